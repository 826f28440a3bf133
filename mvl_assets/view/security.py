"""What the page answers to, and with: this machine's own browser, and nothing that runs code of others.

A page of another site could send requests to a loopback address, or point its own name at it. So the Host header has to
name loopback, a write needs the token that only our own pages hold, and the policy of the pages runs our script files
alone: text of a data set that were taken for HTML could still do nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

ALLOWED_HOSTS = ("127.0.0.1", "localhost", "::1")
TOKEN_HEADER = "x-mvl-token"  # noqa: S105 - the name of a header
MAX_BODY_BYTES = 64 << 10

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class RequestGuard:
    """Refuses requests that our own pages would not send, and adds the headers of `HEADERS` to every answer.

    Attributes:
        token: What a write has to carry; another one in every process.
    """

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(24)

    async def handle(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Answer a request, or refuse it."""
        refusal = self._check(request)
        response = await call_next(request) if refusal is None else refusal
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    def _check(self, request: Request) -> Response | None:
        if parse_host(request.headers.get("host", "")) not in ALLOWED_HOSTS:
            return PlainTextResponse("this page answers on loopback only", 421)
        if request.method in ("GET", "HEAD"):
            return None
        token = request.headers.get(TOKEN_HEADER, "")
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return PlainTextResponse("the token is missing or old: reload the page", 403)
        if not request.headers.get("content-length", "").isdecimal():
            return PlainTextResponse("a write says how long it is", 411)
        if int(request.headers["content-length"]) > MAX_BODY_BYTES:
            return PlainTextResponse(f"at most {MAX_BODY_BYTES} bytes", 413)
        return None


def parse_host(host: str) -> str:
    """Return the name of a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
