"""Images on their way to a model: prepared, scaled, and never a reason for the run to end."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import pytest
from PIL import Image

from mvl_assets.errors import MvlError
from mvl_assets.inference.client.endpoint_client import EndpointClient
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.images import ImageFault, load_images
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.request import Request
from mvl_assets.inference.testing.fake_server import FakeServer, FakeServerConfig
from mvl_assets.lake.answers import AnswerLog
from tests.inference.helpers import MODEL
from tests.servers import serving


def build_image(width: int, height: int, mode: str = "RGB", format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), 80).save(buffer, format)
    return buffer.getvalue()


def look_at(image: str) -> Request:
    content = [{"type": "image", "image": image}, {"type": "text", "text": "what is it?"}]
    return Request(({"role": "user", "content": content},), MODEL, {"max_tokens": 4}, "p", "h")


def size(data: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(data)).size


def test_an_image_in_prepared_form_is_not_changed() -> None:
    data = build_image(640, 480)
    assert load_images(lambda ids: {"a": data}, ["a"], 1344) == {"a": data}


def test_large_images_are_scaled_down_and_small_ones_up() -> None:
    stored = {
        "large": build_image(3000, 1500),
        "small": build_image(50, 50, format="PNG"),
        "grey": build_image(300, 300, "L"),
    }
    loaded = load_images(lambda ids: stored, list(stored), 1344)
    assert all(isinstance(data, bytes) for data in loaded.values())
    assert size(loaded["large"]) == (1344, 672)  # type: ignore[arg-type]
    assert size(loaded["small"]) == (224, 224)  # type: ignore[arg-type]
    assert Image.open(io.BytesIO(loaded["grey"])).mode == "RGB"  # type: ignore[arg-type]


def test_a_missing_or_broken_image_is_a_fault_of_that_image_alone() -> None:
    loaded = load_images(lambda ids: {"broken": b"not an image"}, ["broken", "gone"], 1344)
    assert isinstance(loaded["broken"], ImageFault) and loaded["broken"].error == "not_an_image"
    assert isinstance(loaded["gone"], ImageFault) and loaded["gone"].error == "missing_image"


def test_images_are_sent_with_their_bytes_and_requests_with_bad_ones_fail(
    new_log: Callable[[], AnswerLog], quick: EngineOptions
) -> None:
    stored = {f"p{i}": build_image(300 + i, 300) for i in range(40)} | {"broken": b"not an image"}
    fetched: list[str] = []

    def fetch(ids: Sequence[str]) -> Mapping[str, bytes]:
        fetched.extend(ids)
        return {image: stored[image] for image in ids if image in stored}

    requests = [look_at(image) for image in [*stored, "gone"]]
    with serving() as (server, endpoint):
        server.record_bodies = True
        outcome = answer_all(requests, endpoints=[endpoint], log=new_log(), fetch_images=fetch, options=quick)
    assert outcome.answered == 40
    assert {failure.error for failure in outcome.failures} == {"not_an_image", "missing_image"}
    sent = {body["messages"][0]["content"][0]["image_url"]["url"].split(",")[1] for body in server.bodies}
    assert {base64.b64decode(data) for data in sent} == {stored[f"p{i}"] for i in range(40)}
    assert sorted(fetched) == sorted([*stored, "gone"])


def questions(images: Sequence[str], n_per_image: int) -> list[Request]:
    return [
        Request(
            ({"role": "user", "content": [{"type": "image", "image": i}, {"type": "text", "text": f"question {n}"}]},),
            MODEL,
            {"max_tokens": 4},
            "p",
            "h",
        )
        for i in images
        for n in range(n_per_image)
    ]


def bytes_sent(server: FakeServer) -> Counter[str]:
    """Return how often each image came with its bytes, by uuid; under "" without one."""
    parts = [part for body in server.bodies for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    return Counter(part.get("uuid", "") for part in parts if part["image_url"])


@pytest.fixture
def image_uuids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Act as after the first poll of vLLM's metrics, which comes a moment after a run's first answer."""
    monkeypatch.setattr(
        EndpointClient, "supports_image_cache", property(lambda client: client.image_cache.is_effective)
    )


def test_several_requests_with_one_image_send_its_bytes_once(
    new_log: Callable[[], AnswerLog], quick: EngineOptions, image_uuids: None
) -> None:
    stored = {f"p{i}": build_image(300 + i, 300) for i in range(12)}
    with serving(FakeServerConfig(latency_s=0.01, slots=8, image_cache_size=100)) as (server, endpoint):
        server.record_bodies = True
        requests = questions(list(stored), 5)
        outcome = answer_all(
            requests, endpoints=[endpoint], log=new_log(), fetch_images=lambda ids: stored, options=quick
        )
    assert (outcome.answered, outcome.attempts_sent, outcome.failures) == (60, 60, [])
    assert bytes_sent(server) == {f"{i}-{len(data)}": 1 for i, data in stored.items()}


def test_vllm_is_recognized_by_its_metrics_and_gets_uuids(
    new_log: Callable[[], AnswerLog], quick: EngineOptions
) -> None:
    stored = {f"p{i}": build_image(300 + i, 300) for i in range(120)}
    with serving(FakeServerConfig(latency_s=0.1, slots=8, image_cache_size=1000)) as (server, endpoint):
        server.record_bodies = True
        requests = questions(list(stored), n_per_image=3)
        endpoint = dataclasses.replace(endpoint, start_concurrency=8, max_concurrency=8)
        outcome = answer_all(
            requests,
            endpoints=[endpoint],
            log=new_log(),
            fetch_images=lambda ids: {i: stored[i] for i in ids},
            options=quick,
        )
    assert (outcome.answered, outcome.failures) == (360, [])
    parts = [part for body in server.bodies for part in body["messages"][0]["content"] if "uuid" in part]
    assert len([part for part in parts if not part["image_url"]]) > 50


def test_images_that_a_server_has_evicted_are_sent_again(
    new_log: Callable[[], AnswerLog], quick: EngineOptions, image_uuids: None
) -> None:
    stored = {f"p{i}": build_image(300 + i, 300) for i in range(12)}
    with serving(FakeServerConfig(latency_s=0.01, slots=8, image_cache_size=1)) as (server, endpoint):
        server.record_bodies = True
        outcome = answer_all(
            questions(list(stored), 5),
            endpoints=[endpoint],
            log=new_log(),
            fetch_images=lambda ids: stored,
            options=quick,
        )
    assert (outcome.answered, outcome.failures) == (60, [])
    assert server.fault_counts["image_cache_miss"] > 0
    assert outcome.attempts_sent == 60 + server.fault_counts["image_cache_miss"]
    assert bytes_sent(server)[""] >= server.fault_counts["image_cache_miss"], (
        "a rejected request is sent again as to any other server"
    )


def test_requests_with_one_image_go_to_the_server_that_has_cached_it(
    new_log: Callable[[], AnswerLog], quick: EngineOptions, image_uuids: None
) -> None:
    stored = {f"p{i}": build_image(300 + i, 300) for i in range(60)}
    behaviour = FakeServerConfig(latency_s=0.01, slots=8, image_cache_size=100)
    with serving(behaviour) as (one, first), serving(behaviour) as (two, second):
        one.record_bodies = two.record_bodies = True
        outcome = answer_all(
            questions(list(stored), 4),
            endpoints=[first, second],
            log=new_log(),
            fetch_images=lambda ids: stored,
            options=quick,
        )
    assert (outcome.answered, outcome.attempts_sent) == (240, 240)
    assert one.bodies and two.bodies
    # Without that preference, three in four images would go to both.
    assert (bytes_sent(one) + bytes_sent(two)).total() < 100


@pytest.mark.parametrize("slow_latency_s", [0.02, 0.2])
def test_requests_with_one_image_that_are_far_apart_go_to_one_server(
    new_log: Callable[[], AnswerLog], quick: EngineOptions, slow_latency_s: float
) -> None:
    """Without uuids, too: the server may know the image by its content."""
    stored = {f"p{i}": build_image(300 + i, 300) for i in range(60)}
    with ExitStack() as stack:
        configs = [FakeServerConfig(latency_s=0.02), FakeServerConfig(latency_s=0.02), FakeServerConfig(slow_latency_s)]
        servers, endpoints = zip(*(stack.enter_context(serving(config)) for config in configs), strict=True)
        for server in servers:
            server.record_bodies = True
        outcome = answer_all(
            sorted(questions(list(stored), 5), key=lambda request: request.messages[0]["content"][1]["text"]),
            endpoints=[dataclasses.replace(endpoint, start_concurrency=4, max_concurrency=4) for endpoint in endpoints],
            log=new_log(),
            fetch_images=lambda ids: stored,
            options=quick,
        )
    assert (outcome.answered, outcome.attempts_sent) == (300, 300)
    urls = [[body["messages"][0]["content"][0]["image_url"]["url"] for body in server.bodies] for server in servers]
    n_repeated = sum(len(seen) - len(set(seen)) for seen in urls)
    # Of the 240 that could be: 200 on an idle machine, about 130 where the least loaded server is taken.
    assert n_repeated > 140
    assert len(urls[2]) < 150, "a slow server holds up nobody"


def test_a_server_that_is_not_vllm_gets_no_uuids(new_log: Callable[[], AnswerLog], quick: EngineOptions) -> None:
    stored = {"p0": build_image(300, 300)}
    with serving(FakeServerConfig(latency_s=0.01)) as (server, endpoint):
        server.record_bodies = True
        answer_all(questions(["p0"], 5), endpoints=[endpoint], log=new_log(), fetch_images=lambda ids: stored)
    assert bytes_sent(server) == {"": 5}


def test_several_images_are_sent_in_order(new_log: Callable[[], AnswerLog], quick: EngineOptions) -> None:
    stored = {name: build_image(side, 300) for name, side in (("a", 300), ("b", 400), ("c", 500))}
    content = [{"type": "image", "image": name} for name in ("b", "a", "c", "a")]
    request = Request(
        ({"role": "user", "content": [*content, {"type": "text", "text": "compare"}]},),
        MODEL,
        {"max_tokens": 4},
        "p",
        "h",
    )
    with serving() as (server, endpoint):
        server.record_bodies = True
        answer_all([request], endpoints=[endpoint], log=new_log(), fetch_images=lambda ids: stored, options=quick)
    sent = [part["image_url"]["url"].split(",")[1] for part in server.bodies[0]["messages"][0]["content"][:4]]
    assert [size(base64.b64decode(data))[0] for data in sent] == [400, 300, 500, 300]


def test_an_image_without_fetch_images_is_an_error(new_log: Callable[[], AnswerLog]) -> None:
    with serving() as (_, endpoint):
        try:
            answer_all([look_at("p")], endpoints=[endpoint], log=new_log())
        except MvlError as error:
            assert "no way to fetch images" in error.message
        else:
            raise AssertionError("no error")
