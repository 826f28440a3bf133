"""One attempt over HTTP: a request goes out, a `Reply` or a `Fault` comes back. Never an exception for one row.

`aiohttp`: at 64 connections it costs 0.2 to 0.4 ms of CPU per request, httpx and the openai SDK 6 to 9.
"""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType

import aiohttp

from mvl_assets.inference.chat_protocol import MalformedReply, Reply, decode, probe_body, requests_waiting
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.faults import Blame, Fault, fault_of_status

CONNECT_TIMEOUT_S = 5.0
HEALTH_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 60.0
MAX_BODY = 16 << 20
SHORTEST_SECRET = 6


class Transport:
    """The connections of one run. `async with` it."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._headers: dict[str, dict[str, str]] = {}

    async def __aenter__(self) -> Transport:
        # The engine bounds what is in flight; a second bound here would only hide it.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    def headers(self, endpoint: Endpoint) -> dict[str, str]:
        """Raises `EndpointError` for a missing key."""
        if endpoint.base_url not in self._headers:
            self._headers[endpoint.base_url] = endpoint.request_headers()
        return self._headers[endpoint.base_url]

    async def ask(self, endpoint: Endpoint, body: bytes, timeout_s: float) -> Reply | Fault:
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with self._session.post(
                endpoint.chat_url, data=body, headers=self.headers(endpoint), timeout=timeout
            ) as response:
                content = await _body(response)
                if response.status != 200:
                    fault = fault_of_status(response.status, content, response.headers.get("Retry-After"))
                    return replace(fault, message=self._masked(endpoint, fault.message))
            return decode(content)
        except MalformedReply as error:
            return Fault("malformed_reply", self._masked(endpoint, str(error)), Blame.UNCLEAR)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            # Nothing was sent, so the row cannot be the reason.
            return Fault("no_connection", _words(error), Blame.ENDPOINT)
        except TimeoutError:
            return Fault("timeout", f"no answer within {timeout_s:.0f} s", Blame.UNCLEAR, lost=True)
        except (aiohttp.ClientError, ConnectionError) as error:
            return Fault("connection_lost", _words(error), Blame.UNCLEAR, lost=True)

    def _masked(self, endpoint: Endpoint, text: str) -> str:
        """Without what was sent in the headers: a server may show them in its errors, and messages are stored."""
        for name, value in self.headers(endpoint).items():
            for secret in (value, value.removeprefix("Bearer ")):
                if name != "Content-Type" and len(secret) >= SHORTEST_SECRET:
                    text = text.replace(secret, "***")
        return text

    async def is_healthy(self, endpoint: Endpoint) -> bool:
        """Whether the server says it is well. A server without /health counts as well when it answers at all."""
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with self._session.get(
                endpoint.health_url, headers=self.headers(endpoint), timeout=timeout
            ) as response:
                return response.status < 500
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            return False

    async def waiting(self, endpoint: Endpoint) -> int | None:
        """How many requests wait inside the server for their turn; None from one that does not say (only vLLM does).

        Raises `ConnectionError` when it cannot be asked just now.
        """
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with self._session.get(
                endpoint.metrics_url, headers=self.headers(endpoint), timeout=timeout
            ) as response:
                return requests_waiting(await response.read()) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionError(_words(error)) from error

    async def probe(self, endpoint: Endpoint) -> Fault | None:
        """Asks the smallest question. None when it was answered."""
        answer = await self.ask(endpoint, probe_body(endpoint), PROBE_TIMEOUT_S)
        return answer if isinstance(answer, Fault) else None


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """All of it, unpacked. Raises `MalformedReply` beyond `MAX_BODY`."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(1 << 16):
        parts.append(part)
        size += len(part)
        if size > MAX_BODY:
            raise MalformedReply(f"a reply of more than {MAX_BODY >> 20} MiB")
    return b"".join(parts)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]
