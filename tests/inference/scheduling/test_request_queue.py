"""Requests are read no further ahead than allowed, once each, and are sent when their images are loaded."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest
from PIL import Image

from mvl_assets.errors import MvlError
from mvl_assets.inference.client.attempt import PendingRequest
from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.progress import RunOutcome
from mvl_assets.inference.request import Request
from mvl_assets.inference.scheduling.image_loader import ImageLoader
from mvl_assets.inference.scheduling.ready_queue import ReadyQueue
from mvl_assets.inference.scheduling.request_queue import RequestQueue
from mvl_assets.lake.answers import AnswerLog
from tests.inference.helpers import MODEL, build_request, build_requests
from tests.lake.rows import answer

CLIENT = EndpointClient(Endpoint("http://host/v1", "m"), EngineOptions())


class Run:
    """A queue, and what it reports. `settle_all` ends every ready request, as answers do."""

    def __init__(
        self,
        log: AnswerLog,
        options: EngineOptions,
        fetch_images: Callable[[Sequence[str]], Mapping[str, bytes]] | None,
    ) -> None:
        self.outcome = RunOutcome()
        self.failed: list[tuple[str, str]] = []
        self.ready = ReadyQueue([])
        self.loader = None
        if fetch_images is not None:
            self.loader = ImageLoader(
                fetch_images, 1344, options.max_image_bytes, self.ready.append, lambda: None, self.fail
            )
        self.queue = RequestQueue(self.ready, log, self.loader, options, self.outcome, self.run_blocking, lambda: None)

    def run_blocking(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(None, function, *arguments)

    def fail(self, pending: PendingRequest, error: str, message: str) -> None:
        self.failed.append((pending.request.key, error))
        self.queue.mark_failed(pending.request.key)
        self.queue.mark_settled(pending)

    def settle_all(self) -> list[str]:
        keys = []
        while self.ready:
            _, pending = self.ready.pop_next([CLIENT])
            self.queue.mark_settled(pending)
            keys.append(pending.request.key)
        self.queue.mark_durable(keys)
        return keys


def read(
    requests: Iterable[Request | None],
    log: AnswerLog,
    options: EngineOptions,
    check: Callable[[Run], None] = lambda run: None,
    fetch_images: Callable[[Sequence[str]], Mapping[str, bytes]] | None = None,
) -> tuple[Run, list[str]]:
    """Read everything, settling what is ready; `check` looks at the run before each settling."""

    async def run_queue() -> tuple[Run, list[str]]:
        run = Run(log, options, fetch_images)
        sent: list[str] = []
        tasks = [asyncio.create_task(run.queue.read_requests(iter(requests)))]
        if run.loader is not None:
            tasks.append(asyncio.create_task(run.loader.run_loader()))
        while not run.queue.all_read or run.queue.n_open:
            await asyncio.sleep(0.01)
            check(run)
            if tasks[0].done():
                tasks[0].result()
            sent += run.settle_all()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert run.queue.is_drained
        return run, sent

    return asyncio.run(run_queue())


def look_at(image_id: str) -> Request:
    content = [{"type": "image", "image": image_id}, {"type": "text", "text": "what is it?"}]
    return Request(({"role": "user", "content": content},), MODEL, {"max_tokens": 4}, "p", "h")


def test_every_request_is_ready_once_in_order(new_log: Callable[[], AnswerLog]) -> None:
    requests = build_requests(300)
    run, sent = read([*requests, None, *requests[:50]], new_log(), EngineOptions())
    assert sent[:300] == [request.key for request in requests]
    # Nothing is stored here: a key that was settled before its repetition was read is asked for again.
    assert run.outcome.requested == 350
    assert run.outcome.deduplicated == 350 - len(sent)


def test_equal_requests_that_are_open_or_have_failed_are_deduplicated(new_log: Callable[[], AnswerLog]) -> None:
    request = build_request("once")

    async def run_queue() -> RunOutcome:
        run = Run(new_log(), EngineOptions(), None)
        await run.queue.read_requests(iter([request, request]))
        _, pending = run.ready.pop_next([CLIENT])
        run.queue.all_read = False
        await run.queue.read_requests(iter([request]))
        assert (run.outcome.deduplicated, run.queue.n_open) == (2, 1)
        run.fail(pending, "http_400", "bad")
        run.queue.all_read = False
        await run.queue.read_requests(iter([request]))
        assert run.queue.n_open == 0
        return run.outcome

    assert asyncio.run(run_queue()).deduplicated == 3


def test_stored_answers_are_cache_hits(new_log: Callable[[], AnswerLog]) -> None:
    requests = build_requests(10)
    with new_log() as log:
        log.append([dataclasses.replace(answer(number), request_key=requests[number].key) for number in range(4)])
    run, sent = read(requests, new_log(), EngineOptions())
    assert run.outcome.cache_hits == 4
    assert sent == [request.key for request in requests[4:]]


def test_open_requests_stay_within_their_bound(new_log: Callable[[], AnswerLog]) -> None:
    most_open = 0

    def check(run: Run) -> None:
        nonlocal most_open
        most_open = max(most_open, run.queue.n_open)

    _, sent = read(build_requests(500), new_log(), EngineOptions(max_open_requests=100), check)
    assert len(sent) == 500
    assert 0 < most_open <= 100


def test_requests_wait_for_their_images_and_fail_without_them(new_log: Callable[[], AnswerLog]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 300), (80, 80, 80)).save(buffer, "JPEG")
    stored = {f"i{number}": buffer.getvalue() for number in range(40)}
    requests = [look_at(image_id) for image_id in (*stored, "gone")]
    options = EngineOptions(max_image_bytes=2 * len(buffer.getvalue()))
    most_bytes = 0

    def check(run: Run) -> None:
        nonlocal most_bytes
        assert run.loader is not None
        most_bytes = max(most_bytes, run.loader.held_bytes)

    run, sent = read(requests, new_log(), options, check, fetch_images=lambda image_ids: stored)
    assert sent == [request.key for request in requests[:-1]]
    assert run.failed == [(requests[-1].key, "missing_image")]
    assert most_bytes < len(stored) * len(buffer.getvalue()), "images are loaded as they are needed"
    assert run.loader is not None and run.loader.held_bytes == 0


def test_an_image_without_a_way_to_fetch_it_ends_the_reading(new_log: Callable[[], AnswerLog]) -> None:
    with pytest.raises(MvlError, match="no way to fetch images"):
        read([look_at("i")], new_log(), EngineOptions())
