"""HTTP requests for files: redirects are followed by hand, and refusals are kept apart from transient failures.

Nothing here writes a file. Authorisation headers go to the first host only, never to one that it redirects to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from mvl_assets.common.retry_after import MAX_RETRY_AFTER_S, parse_retry_after
from mvl_assets.fetch.errors import FetchRefused
from mvl_assets.fetch.ssrf_guard import create_public_socket, get_proxy

MAX_REDIRECTS = 5
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 30.0, 60.0
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
_RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class TransientError(Exception):
    """A failure worth another try, after `retry_after_s` seconds if the server asked for a delay."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        self.reason, self.retry_after_s = reason, retry_after_s
        super().__init__(reason)


def create_session() -> aiohttp.ClientSession:
    """Create the session of one fetch, which connects to public addresses only (`ssrf_guard`).

    Addresses of a host are tried one after the other: when they race, aiohttp swallows the refusal of one of them.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(socket_factory=create_public_socket, happy_eyeballs_delay=None, limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


@asynccontextmanager
async def open_response(
    session: aiohttp.ClientSession, url: str, headers: Mapping[str, str], auth_headers: Mapping[str, str]
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Yield the response (200, 206 or 416) after at most `MAX_REDIRECTS` redirects.

    Args:
        session: From `create_session`.
        url: An http or https URL.
        headers: Headers of every request.
        auth_headers: Headers for the first host only.

    Raises:
        FetchRefused: Another try will not help.
        TransientError: Anything else, also while the body is read.
    """
    current_url = first_url = parse_web_url(url)
    request_headers = {"Accept-Encoding": "identity", **headers}
    try:
        for _ in range(MAX_REDIRECTS + 1):
            extra_headers = auth_headers if current_url.origin() == first_url.origin() else {}
            async with session.get(
                current_url,
                headers={**request_headers, **extra_headers},
                allow_redirects=False,
                proxy=get_proxy(current_url),
            ) as response:
                if response.status not in _REDIRECT_STATUSES:
                    _raise_for_status(response)
                    yield response
                    return
                redirect_url = _resolve_redirect(current_url, response.headers.get("Location", ""))
            if redirect_url.scheme not in ("http", "https") or (
                current_url.scheme == "https" and redirect_url.scheme == "http"
            ):
                raise FetchRefused(f"{current_url.host} redirects to another scheme ({redirect_url.scheme}:)")
            current_url = redirect_url
    except aiohttp.InvalidURL as error:
        raise FetchRefused(f"{error} is not a URL") from error
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
        raise TransientError(f"{current_url.host}: {_format_error(error)}") from error
    raise FetchRefused(f"{first_url.host} redirects more than {MAX_REDIRECTS} times")


def parse_web_url(url: str) -> URL:
    """Return the parsed URL. Raises `FetchRefused` if it is not http or https, or if it contains a user name."""
    parsed_url = URL(url)
    if parsed_url.scheme not in ("http", "https") or not parsed_url.host:
        raise FetchRefused(f"{url} is not an http or https URL")
    if parsed_url.user or parsed_url.password:
        raise FetchRefused(f"the URL at {parsed_url.host} contains a user name", hint="remove it from the catalog")
    return parsed_url


def is_html(response: aiohttp.ClientResponse, name: str) -> bool:
    """Return whether a web page came instead of data: a login, a landing page, a virus-scan notice."""
    return response.content_type in ("text/html", "application/xhtml+xml") and not name.endswith((".html", ".htm"))


def get_validator(response: aiohttp.ClientResponse) -> str | None:
    """Return a value for `If-Range`: a strong ETag, or else the date of the last change."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def get_total_size(response: aiohttp.ClientResponse) -> int | None:
    """Return the bytes of the whole file, also from a response with a part of it; None if it does not say."""
    if response.status == 200:
        return response.content_length
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdecimal() else None


def _resolve_redirect(current_url: URL, location: str) -> URL:
    try:
        return current_url.join(URL(location, encoded=True))
    except ValueError as error:
        raise FetchRefused(f"{current_url.host} redirects to something that is not a URL") from error


def _raise_for_status(response: aiohttp.ClientResponse) -> None:
    status, host = response.status, response.url.host
    if status in (200, 206, 416):
        if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
            raise FetchRefused(
                f"{host} sends the file encoded as {response.headers['Content-Encoding']}, which was not asked for"
            )
        return
    if status in _RETRYABLE_STATUSES:
        retry_after_s = parse_retry_after(response.headers.get("Retry-After"))
        if retry_after_s is not None and retry_after_s > MAX_RETRY_AFTER_S:
            raise FetchRefused(
                f"{host} asks to come back in {retry_after_s:.0f} s (HTTP {status})", hint="run it again then"
            )
        raise TransientError(f"{host} answers HTTP {status}", retry_after_s)
    if status in (401, 403):
        raise FetchRefused(
            f"{host} denies access (HTTP {status})",
            hint="if it is a gated repository, accept its terms on the hub and set HF_TOKEN to a token of that account",
        )
    if status in (404, 410):
        raise FetchRefused(f"it is not at {host} (HTTP {status})", hint="`mvl sources lock` looks up what is there now")
    raise FetchRefused(f"{host} answers HTTP {status}")


def _format_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200] if str(error) else type(error).__name__
