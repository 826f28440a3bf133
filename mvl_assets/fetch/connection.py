"""Asking for a file over HTTP: redirects followed by hand, refusals told apart from what is worth another try.

Nothing here writes a file. The token goes to the host it is meant for and to no host that one redirects to.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime

import aiohttp
from yarl import URL

from mvl_assets.fetch.errors import Unreachable
from mvl_assets.fetch.ssrf_guard import checked_socket, proxy_for

REDIRECTS = 5
CONNECT_S, STALL_S = 30.0, 60.0
LONGEST_WAIT_S = 300.0
_MOVED = frozenset({301, 302, 303, 307, 308})
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class TryAgain(Exception):
    """The request failed in a way that passes; `wait` seconds were asked for by the server, if any."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        self.reason, self.wait = reason, wait
        super().__init__(reason)


def new_session() -> aiohttp.ClientSession:
    """Connections of one fetch; to public addresses only (`address`).

    One address after the other is tried: when several race, aiohttp swallows the refusal of one of them.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(socket_factory=checked_socket, happy_eyeballs_delay=None, limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=STALL_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


@asynccontextmanager
async def answer(
    session: aiohttp.ClientSession, url: str, headers: Mapping[str, str], secret: Mapping[str, str]
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer (200, 206 or 416) after at most `REDIRECTS` redirects. `secret` are headers for the first host alone.

    Raises `Unreachable` for what another try will not change, `TryAgain` for the rest, also while the body is read.
    """
    here = first = web_address(url)
    sent = {"Accept-Encoding": "identity", **headers}
    try:
        for _ in range(REDIRECTS + 1):
            own = secret if here.origin() == first.origin() else {}
            async with session.get(here, headers={**sent, **own}, allow_redirects=False, proxy=proxy_for(here)) as got:
                if got.status not in _MOVED:
                    _refuse(got)
                    yield got
                    return
                target = _target(here, got.headers.get("Location", ""))
            if target.scheme not in ("http", "https") or (here.scheme == "https" and target.scheme == "http"):
                raise Unreachable(f"{here.host} redirects to an address of another kind ({target.scheme}:)")
            here = target
    except aiohttp.InvalidURL as error:
        raise Unreachable(f"{error} is no address") from error
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
        raise TryAgain(f"{here.host}: {_words(error)}") from error
    raise Unreachable(f"{first.host} redirects more than {REDIRECTS} times")


def web_address(url: str) -> URL:
    """Raises `Unreachable` for an address that is not http or https, or that carries a password."""
    address = URL(url)
    if address.scheme not in ("http", "https") or not address.host:
        raise Unreachable(f"{url} is no http or https address")
    if address.user or address.password:
        raise Unreachable(f"the address at {address.host} carries a user name", hint="take it out of the catalog")
    return address


def is_page(answer: aiohttp.ClientResponse, name: str) -> bool:
    """Whether a web page came where data was asked for: a login, a landing page, a virus-scan notice."""
    return answer.content_type in ("text/html", "application/xhtml+xml") and not name.endswith((".html", ".htm"))


def validator_of(answer: aiohttp.ClientResponse) -> str | None:
    """What can stand in `If-Range`: a strong ETag, or else the date of the last change."""
    tag = answer.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")


def whole_size(answer: aiohttp.ClientResponse) -> int | None:
    """Bytes of the whole file, of an answer that may hold a part of it; None when it does not say."""
    if answer.status == 200:
        return answer.content_length
    total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdecimal() else None


def _target(here: URL, location: str) -> URL:
    try:
        return here.join(URL(location, encoded=True))
    except ValueError as error:
        raise Unreachable(f"{here.host} redirects to something that is no address") from error


def _refuse(got: aiohttp.ClientResponse) -> None:
    status, host = got.status, got.url.host
    if status in (200, 206, 416):
        if got.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
            raise Unreachable(
                f"{host} sends the file packed as {got.headers['Content-Encoding']}, which nobody asked for"
            )
        return
    if status in _AGAIN:
        wait = wait_asked(got.headers.get("Retry-After"))
        if wait is not None and wait > LONGEST_WAIT_S:
            raise Unreachable(f"{host} asks to come back in {wait:.0f} s (HTTP {status})", hint="run it again then")
        raise TryAgain(f"{host} answers HTTP {status}", wait)
    if status in (401, 403):
        raise Unreachable(
            f"{host} does not give it out (HTTP {status})",
            hint="if it is a gated repository, accept its terms on the hub and set HF_TOKEN to a token of that account",
        )
    if status in (404, 410):
        raise Unreachable(f"it is not at {host} (HTTP {status})", hint="`mvl sources lock` looks up what is there now")
    raise Unreachable(f"{host} answers HTTP {status}")


def wait_asked(header: str | None) -> float | None:
    """Seconds that a `Retry-After` asks for, written as a number or as a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200] if str(error) else type(error).__name__
