"""Each image is loaded and counted once, however many open requests share it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Mapping, Sequence

from PIL import Image

from mvl_assets.inference.client.attempt import PendingRequest
from mvl_assets.inference.progress import RequestOutcome
from mvl_assets.inference.request import Request
from mvl_assets.inference.scheduling.image_loader import ImageLoader
from tests.inference.helpers import MODEL
from tests.patience import PATIENCE_S


def build_image(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (80, 80, 80)).save(buffer, "JPEG")
    return buffer.getvalue()


def look_at(*image_ids: str, question: str = "what is it?") -> PendingRequest:
    content = [*({"type": "image", "image": image_id} for image_id in image_ids), {"type": "text", "text": question}]
    return PendingRequest(Request(({"role": "user", "content": content},), MODEL, {"max_tokens": 4}, "p", "h"))


class World:
    """Stored images, and what the loader does with them."""

    def __init__(self, stored: Mapping[str, bytes], max_image_bytes: int = 1 << 20, n_loaders: int = 4) -> None:
        self.stored = stored
        self.fetched: list[str] = []
        self.loaded: list[PendingRequest] = []
        self.failed: list[tuple[PendingRequest, str]] = []
        self.loader = ImageLoader(
            self.fetch, 1344, max_image_bytes, self.loaded.append, lambda: None, lambda *fault: self.fail(*fault[:2])
        )
        self.loader.n_loaders = n_loaders

    def fetch(self, image_ids: Sequence[str]) -> Mapping[str, bytes]:
        self.fetched += image_ids
        return {image_id: self.stored[image_id] for image_id in image_ids if image_id in self.stored}

    def fail(self, pending: PendingRequest, error: str) -> None:
        self.failed.append((pending, error))
        self.settle(pending)

    def settle(self, pending: PendingRequest) -> None:
        assert not pending.is_settled
        pending.outcome = RequestOutcome.ANSWERED
        self.loader.release(pending)


def run(act: Callable[[], World], requests: Sequence[PendingRequest], check: Callable[[World], None]) -> None:
    async def run_loaders() -> None:
        world = act()
        tasks = [asyncio.create_task(world.loader.run_loader()) for _ in range(world.loader.n_loaders)]
        for pending in requests:
            world.loader.add(pending)
        async with asyncio.timeout(PATIENCE_S):
            while not world.loader.is_idle:
                await asyncio.sleep(0.005)
                check(world)
        check(world)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert {id(pending) for pending in world.loaded} | {id(pending) for pending, _ in world.failed} == {
            id(pending) for pending in requests
        }
        assert len(world.loaded) + len(world.failed) == len(requests)
        for pending in world.loaded:
            if not pending.is_settled:
                world.settle(pending)
        assert world.loader.held_bytes == 0 and not world.loader._held

    asyncio.run(run_loaders())


def test_an_image_of_many_requests_is_fetched_and_counted_once() -> None:
    stored = {f"i{n}": build_image(300 + n) for n in range(5)}
    requests = [look_at(f"i{n % 5}", question=f"question {n}") for n in range(100)]

    def check(world: World) -> None:
        assert world.loader.held_bytes <= sum(map(len, stored.values()))
        if world.loader.is_idle:
            assert sorted(world.fetched) == sorted(stored)
            assert all(pending.images == {f"i{n % 5}": stored[f"i{n % 5}"]} for n, pending in enumerate(requests))

    run(lambda: World(stored), requests, check)


def test_requests_with_several_images_that_other_batches_load_get_them_all() -> None:
    stored = {f"i{n}": build_image(300 + n) for n in range(12)}
    requests = [look_at(*(f"i{(n * step) % 12}" for step in (1, 5, 7, 1))) for n in range(60)]

    def check(world: World) -> None:
        for pending in world.loaded:
            if not pending.is_settled:
                assert pending.images.keys() == set(pending.request.image_ids)

    run(lambda: World(stored), requests, check)


def test_a_request_with_a_missing_image_fails_once_and_keeps_nothing() -> None:
    stored = {f"i{n}": build_image(300 + n) for n in range(4)}
    bad = [look_at("i0", "gone", "lost"), look_at("gone", "i1"), look_at("gone")]
    requests = [look_at("i0"), *bad, look_at("i1", "i2"), look_at("i3")]
    worlds: list[World] = []

    def check(world: World) -> None:
        worlds.append(world)

    run(lambda: World(stored), requests, check)
    assert sorted(error for _, error in worlds[-1].failed) == ["missing_image"] * 3
    assert {id(pending) for pending, _ in worlds[-1].failed} == {id(pending) for pending in bad}


def test_images_stay_within_their_bytes_by_about_one_batch() -> None:
    stored = {f"i{n}": build_image(400) for n in range(120)}
    size = len(stored["i0"])
    most_bytes = 0

    def check(world: World) -> None:
        nonlocal most_bytes
        most_bytes = max(most_bytes, world.loader.held_bytes)
        for pending in world.loaded:
            if not pending.is_settled:
                world.settle(pending)

    run(lambda: World(stored, max_image_bytes=20 * size, n_loaders=2), [look_at(name) for name in stored], check)
    assert 0 < most_bytes <= (20 + 2 * 16) * size
