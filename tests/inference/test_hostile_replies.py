"""A server that answers one request with something strange: it fails alone, and no secret leaks."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web

from mvl_assets.inference.client.transport import MAX_BODY_BYTES, Transport
from mvl_assets.inference.endpoint import Endpoint, EndpointError
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.options import EngineOptions
from mvl_assets.lake.answers import AnswerLog
from tests.inference.helpers import build_requests
from tests.servers import serve_in_thread

NewLog = Callable[[], AnswerLog]
FINE = {
    "choices": [{"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 3},
}


@contextmanager
def serve_chat(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Iterator[str]:
    """The base URL of a server that answers chat requests with `handle`."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handle)
    app.router.add_get("/health", lambda _: _nothing())
    with serve_in_thread(app) as url:
        yield url


async def _nothing() -> web.Response:
    return web.Response()


@pytest.mark.parametrize(
    ("status", "body", "headers", "error"),
    [
        (403, b'{"error": {"message": "flagged"}}', {}, "http_403"),
        (402, b'{"error": "too large for your credits"}', {}, "http_402"),
        (404, b"not here", {}, "http_404"),
        (400, b"[" * 200_000, {}, "http_400"),
        (500, b"[" * 200_000, {}, "http_500"),
        (200, b"[" * 200_000, {}, "malformed_reply"),
        (408, b"{}", {"Retry-After": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}, "http_408"),
        (200, b" " * (MAX_BODY_BYTES + 1), {}, "malformed_reply"),
        (200, b"garbage", {"Content-Encoding": "gzip"}, "connection_lost"),
    ],
)
def test_a_strange_reply_to_one_request_fails_it_alone(
    status: int, body: bytes, headers: dict[str, str], error: str, new_log: NewLog, quick: EngineOptions
) -> None:
    async def handle(request: web.Request) -> web.Response:
        if b"poison" in await request.read():
            return web.Response(status=status, body=body, headers=headers)
        return web.json_response(FINE)

    with serve_chat(handle) as url:
        for requests in (
            [*build_requests(20), *build_requests(1, "poison"), *build_requests(20, "more")],
            build_requests(1, "poison"),
        ):
            outcome = answer_all(requests, endpoints=[Endpoint(base_url=url, model="m")], log=new_log(), options=quick)
            assert [failure.error for failure in outcome.failures] == [error]
            assert outcome.answered + outcome.cache_hits == len(requests) - 1


def test_an_endpoint_that_rejects_everything_ends_the_run(new_log: NewLog, quick: EngineOptions) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.json_response({"error": "no such model"}, status=404)

    with (
        serve_chat(handle) as url,
        pytest.raises(EndpointError, match="rejects every request for m: HTTP 404: no such"),
    ):
        answer_all(build_requests(5), endpoints=[Endpoint(base_url=url, model="m")], log=new_log(), options=quick)


@pytest.mark.parametrize("answers", [0, 30])
def test_a_server_that_answers_only_the_probe_ends_the_run_and_fails_no_request(
    answers: int, new_log: NewLog, quick: EngineOptions
) -> None:
    answers_left = answers

    async def handle(request: web.Request) -> web.Response:
        nonlocal answers_left
        is_probe = (await request.json()).get("max_tokens") == 1
        answers_left -= not is_probe
        return (
            web.json_response(FINE)
            if is_probe or answers_left >= 0
            else web.json_response({"error": "broken"}, status=500)
        )

    options = dataclasses.replace(quick, initial_outage_timeout_s=3.0, outage_timeout_s=3.0)
    log = new_log()
    with (
        serve_chat(handle) as url,
        pytest.raises(EndpointError, match=r"no request for .* HTTP 500: broken"),
    ):
        answer_all(build_requests(60), endpoints=[Endpoint(base_url=url, model="m")], log=log, options=options)
    assert log.count() == answers


def test_requests_that_a_server_cannot_answer_fail_while_it_answers_the_canary(
    new_log: NewLog, quick: EngineOptions
) -> None:
    async def handle(request: web.Request) -> web.Response:
        bad = b"poison" in await request.read()
        return web.json_response({"error": "cannot"}, status=500) if bad else web.json_response(FINE)

    requests = [*build_requests(10), *build_requests(40, "poison")]
    with serve_chat(handle) as url:
        outcome = answer_all(requests, endpoints=[Endpoint(base_url=url, model="m")], log=new_log(), options=quick)
    assert (outcome.answered, len(outcome.failures)) == (10, 40)


def test_secrets_are_masked_in_messages(new_log: NewLog, quick: EngineOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MVL_TEST_KEY", "sk-0123456789\n")

    async def handle(request: web.Request) -> web.Response:
        header_text = "; ".join(f"{name}: {value}" for name, value in request.headers.items())
        return web.json_response({"error": {"message": header_text}}, status=400)

    with serve_chat(handle) as url:
        endpoint = Endpoint(base_url=url, model="m", api_key_env="MVL_TEST_KEY", headers={"X-Token": "t0ken-of-mine"})
        (failure,) = answer_all(build_requests(1), endpoints=[endpoint], log=new_log(), options=quick).failures
    assert "***" in failure.message
    for secret in ("sk-0123456789", "t0ken-of-mine"):
        assert secret not in failure.message + repr(endpoint)
    assert Endpoint(base_url="http://user:hunter2@host:8000/v1", model="m").redacted_url == "http://host:8000/v1"


def test_a_password_in_the_address_is_not_in_messages() -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/9.9 nonsense\r\n\r\n")
        writer.close()

    async def ask() -> None:
        server = await asyncio.start_server(reply, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, Transport() as transport:
            fault = await transport.probe(Endpoint(f"http://user:hunter2@127.0.0.1:{port}/v1", "m"))
            assert fault is not None and f"127.0.0.1:{port}" in fault.message and "hunter2" not in fault.message

    asyncio.run(ask())
