"""HTTP: sends one attempt and returns a `Reply` or a `RequestFault`; a fault of one request never raises.

`aiohttp`: at 64 connections it costs 0.2 to 0.4 ms of CPU per request, httpx and the openai SDK 6 to 9.
"""

from __future__ import annotations

import re
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any

import aiohttp

from mvl_assets.inference.client.chat_protocol import (
    NO_LOGPROBS,
    MalformedReply,
    Reply,
    ServerLoad,
    build_probe_body,
    parse_max_model_len,
    parse_model_names,
    parse_reply,
    parse_server_load,
)
from mvl_assets.inference.client.faults import FaultScope, RequestFault, classify_http_status
from mvl_assets.inference.client.output_forms import (
    NONE,
    OPENAI,
    VLLM,
    build_form_probe,
    build_logprobs_probe,
    has_form,
)
from mvl_assets.inference.endpoint import Endpoint

CONNECT_TIMEOUT_S = 5.0
HEALTH_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 60.0
MAX_BODY_BYTES = 16 << 20
MIN_SECRET_LENGTH = 6
PUBLIC_HEADERS = ("Content-Type", "Host")


class Transport:
    """The connections of one run, an async context manager."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._headers: dict[tuple[str, str], dict[str, str]] = {}

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

    def get_headers(self, endpoint: Endpoint) -> dict[str, str]:
        """Return the headers of every request to an endpoint.

        Raises:
            EndpointError: The variable of its API key is not set.
        """
        key = endpoint.key
        if key not in self._headers:
            self._headers[key] = endpoint.build_headers()
        return self._headers[key]

    async def send_request(self, endpoint: Endpoint, body: bytes, timeout_s: float) -> Reply | RequestFault:
        """Send one chat request, and wait at most `timeout_s` for the whole reply."""
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with self._session.post(
                endpoint.chat_url,
                data=body,
                headers=self.get_headers(endpoint),
                timeout=timeout,
                server_hostname=endpoint.server_hostname,
            ) as response:
                content = await read_body(response)
                if response.status != 200:
                    fault = classify_http_status(response.status, content, response.headers.get("Retry-After"))
                    return replace(fault, message=self.mask_secrets(endpoint, fault.message))
            return parse_reply(content)
        except MalformedReply as error:
            return RequestFault("malformed_reply", self.mask_secrets(endpoint, str(error)), FaultScope.UNKNOWN)
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            return build_connection_fault(error, timeout_s)

    def open_request(
        self, method: str, endpoint: Endpoint, url: str, timeout: aiohttp.ClientTimeout, **arguments: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Send any request to an endpoint; a form brings the content type of its own."""
        assert self._session is not None
        headers = {**self.get_headers(endpoint), **arguments.pop("headers", {})}
        if isinstance(arguments.get("data"), aiohttp.FormData):
            del headers["Content-Type"]
        return self._session.request(
            method, url, headers=headers, timeout=timeout, server_hostname=endpoint.server_hostname, **arguments
        )

    def mask_secrets(self, endpoint: Endpoint, text: str) -> str:
        """Mask the values of our headers: a server may repeat them in its errors, and messages are stored."""
        for name, value in self.get_headers(endpoint).items():
            for secret in (value, value.removeprefix("Bearer ")):
                if name not in PUBLIC_HEADERS and len(secret) >= MIN_SECRET_LENGTH:
                    text = text.replace(secret, "***")
        return text

    async def find_output_form(self, endpoint: Endpoint) -> str | RequestFault:
        """Return the first form of constraint that the server knows; a fault where that cannot be told now."""
        for form in (VLLM, OPENAI):
            accepts_form = await self.accepts_form(endpoint, form)
            if isinstance(accepts_form, RequestFault):
                return accepts_form
            if accepts_form:
                return form
        return NONE

    async def accepts_form(self, endpoint: Endpoint, form: str) -> bool | RequestFault:
        """Return whether the server constrains answers in this form; a fault where that cannot be told now."""
        if form == NONE:
            return True
        result = await self.send_request(endpoint, build_form_probe(endpoint.model, form), PROBE_TIMEOUT_S)
        if isinstance(result, RequestFault):
            return False if result.scope is FaultScope.REQUEST or result.error == "http_501" else result
        return has_form(result.text, form)

    async def has_logprobs(self, endpoint: Endpoint) -> bool | RequestFault:
        """Return whether the server gives log-probabilities; a fault where that cannot be told now."""
        result = await self.send_request(endpoint, build_logprobs_probe(endpoint.model), PROBE_TIMEOUT_S)
        if isinstance(result, RequestFault):
            return False if result.scope is FaultScope.REQUEST or result.error == "http_501" else result
        return result.first_token_logprobs not in (None, NO_LOGPROBS)

    async def read_max_model_len(self, endpoint: Endpoint) -> int | None:
        """Return how many tokens a prompt and its answer may have together; None where the server does not say.

        Raises:
            ConnectionError: It cannot be asked just now.
        """
        try:
            async with self._get(endpoint, endpoint.models_url) as response:
                return parse_max_model_len(await read_body(response), endpoint.model)
        except MalformedReply:
            return None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionError(_format_error(error)) from error

    async def is_healthy(self, endpoint: Endpoint) -> bool:
        """Return whether `/health` gives no server error; a server without it is healthy if it answers at all."""
        try:
            async with self._get(endpoint, endpoint.health_url) as response:
                return response.status < 500
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            return False

    async def read_server_load(self, endpoint: Endpoint) -> ServerLoad | None:
        """Return the load of the server; None for a server that does not report it (only vLLM does).

        Raises:
            ConnectionError: It cannot be asked just now.
        """
        try:
            async with self._get(endpoint, endpoint.metrics_url) as response:
                return parse_server_load(await response.read()) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionError(_format_error(error)) from error

    async def check_model(self, endpoint: Endpoint) -> RequestFault | None:
        """Check that a server is there and serves the endpoint's model, at no cost where it lists its models.

        Returns:
            None when it does; else the fault, whose scope is CONFIG when the server serves other models only.
        """
        model_names: list[str] = []
        try:
            async with self._get(endpoint, endpoint.models_url) as response:
                if response.status == 200:
                    model_names = parse_model_names(await read_body(response))
        except MalformedReply:
            pass  # no list of models: the probe decides
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            return RequestFault("no_connection", _format_error(error), FaultScope.ENDPOINT)
        if endpoint.model in model_names:
            return None
        # A gateway may serve names that it does not list.
        fault = await self.probe(endpoint)
        if fault is not None and fault.scope is FaultScope.CONFIG and model_names:
            served = self.mask_secrets(endpoint, ", ".join(model_names)[:200])
            return replace(fault, message=f"it serves {served}, and not {endpoint.model}")
        return fault

    def _get(self, endpoint: Endpoint, url: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        return self.open_request("GET", endpoint, url, timeout)

    async def probe(self, endpoint: Endpoint) -> RequestFault | None:
        """Send the smallest request. Returns None when it was answered."""
        result = await self.send_request(endpoint, build_probe_body(endpoint), PROBE_TIMEOUT_S)
        return result if isinstance(result, RequestFault) else None


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """Return the whole decoded body; raise `MalformedReply` beyond `MAX_BODY_BYTES`."""
    chunks: list[bytes] = []
    n_bytes = 0
    async for chunk in response.content.iter_chunked(1 << 16):
        chunks.append(chunk)
        n_bytes += len(chunk)
        if n_bytes > MAX_BODY_BYTES:
            raise MalformedReply(f"a reply of more than {MAX_BODY_BYTES >> 20} MiB")
    return b"".join(chunks)


def build_connection_fault(error: BaseException, timeout_s: float) -> RequestFault:
    """Return the fault that a broken connection, or none within `timeout_s`, is."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        # Nothing was sent, so the request cannot be the reason.
        return RequestFault("no_connection", _format_error(error), FaultScope.ENDPOINT)
    if isinstance(error, TimeoutError):
        message = f"no answer within {timeout_s:.0f} s"
        return RequestFault("timeout", message, FaultScope.UNKNOWN, server_may_have_crashed=True)
    return RequestFault("connection_lost", _format_error(error), FaultScope.UNKNOWN, server_may_have_crashed=True)


def _format_error(error: BaseException) -> str:
    # Some errors repeat the URL, which may hold a password.
    return re.sub(r"//[^/\s@]*@", "//", f"{type(error).__name__}: {error}")[:300]
