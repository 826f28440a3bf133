"""Pictures on their way to a model: standard form, capped, and never a reason for the run to end."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

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


def picture(width: int, height: int, mode: str = "RGB", format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), 80).save(buffer, format)
    return buffer.getvalue()


def look(image: str) -> Request:
    content = [{"type": "image", "image": image}, {"type": "text", "text": "what is it?"}]
    return Request(({"role": "user", "content": content},), MODEL, {"max_tokens": 4}, "p", "h")


def size(data: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(data)).size


def test_a_picture_that_is_ready_travels_as_it_is() -> None:
    data = picture(640, 480)
    assert load_images(lambda ids: {"a": data}, ["a"], 1344) == {"a": data}


def test_a_large_picture_is_scaled_to_what_the_model_can_use_and_a_small_one_up() -> None:
    stored = {"large": picture(3000, 1500), "small": picture(50, 50, format="PNG"), "grey": picture(300, 300, "L")}
    loaded = load_images(lambda ids: stored, list(stored), 1344)
    assert all(isinstance(data, bytes) for data in loaded.values())
    assert size(loaded["large"]) == (1344, 672)  # type: ignore[arg-type]
    assert size(loaded["small"]) == (224, 224)  # type: ignore[arg-type]
    assert Image.open(io.BytesIO(loaded["grey"])).mode == "RGB"  # type: ignore[arg-type]


def test_a_missing_or_broken_picture_is_a_fault_of_its_rows_alone() -> None:
    loaded = load_images(lambda ids: {"broken": b"no picture"}, ["broken", "gone"], 1344)
    assert isinstance(loaded["broken"], ImageFault) and loaded["broken"].error == "not_an_image"
    assert isinstance(loaded["gone"], ImageFault) and loaded["gone"].error == "missing_image"


def test_requests_with_pictures_go_out_with_their_bytes_and_bad_ones_fail(
    new_log: Callable[[], AnswerLog], quick: EngineOptions
) -> None:
    stored = {f"p{i}": picture(300 + i, 300) for i in range(40)} | {"broken": b"no picture"}
    fetched: list[str] = []

    def fetch(ids: Sequence[str]) -> Mapping[str, bytes]:
        fetched.extend(ids)
        return {image: stored[image] for image in ids if image in stored}

    requests = [look(image) for image in [*stored, "gone"]]
    with serving() as (server, endpoint):
        server.record_bodies = True
        outcome = answer_all(requests, endpoints=[endpoint], log=new_log(), fetch_images=fetch, options=quick)
    assert outcome.answered == 40
    assert {failure.error for failure in outcome.failures} == {"not_an_image", "missing_image"}
    sent = {body["messages"][0]["content"][0]["image_url"]["url"].split(",")[1] for body in server.bodies}
    assert {base64.b64decode(data) for data in sent} == {stored[f"p{i}"] for i in range(40)}
    assert sorted(fetched) == sorted([*stored, "gone"])


def questions(images: Sequence[str], each: int) -> list[Request]:
    return [
        Request(
            ({"role": "user", "content": [{"type": "image", "image": i}, {"type": "text", "text": f"question {n}"}]},),
            MODEL,
            {"max_tokens": 4},
            "p",
            "h",
        )
        for i in images
        for n in range(each)
    ]


def bytes_sent(server: FakeServer) -> Counter[str]:
    """How often each picture came with its bytes, by name; under "" without a name."""
    parts = [part for body in server.bodies for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    return Counter(part.get("uuid", "") for part in parts if part["image_url"])


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after the first look at vLLM's metrics, which comes a moment after a run's first answer."""
    monkeypatch.setattr(EndpointClient, "supports_image_cache", property(lambda lane: lane.image_cache.is_effective))


def test_several_questions_about_a_picture_send_its_bytes_once(
    new_log: Callable[[], AnswerLog], quick: EngineOptions, by_name: None
) -> None:
    stored = {f"p{i}": picture(300 + i, 300) for i in range(12)}
    with serving(FakeServerConfig(latency_s=0.01, slots=8, image_cache_size=100)) as (server, endpoint):
        server.record_bodies = True
        requests = questions(list(stored), 5)
        outcome = answer_all(
            requests, endpoints=[endpoint], log=new_log(), fetch_images=lambda ids: stored, options=quick
        )
    assert (outcome.answered, outcome.attempts_sent, outcome.failures) == (60, 60, [])
    assert bytes_sent(server) == {f"{i}-{len(data)}": 1 for i, data in stored.items()}


def test_vllm_is_recognised_by_its_metrics_and_gets_names(
    new_log: Callable[[], AnswerLog], quick: EngineOptions
) -> None:
    stored = {f"p{i}": picture(300 + i, 300) for i in range(120)}
    with serving(FakeServerConfig(latency_s=0.1, slots=8, image_cache_size=1000)) as (server, endpoint):
        server.record_bodies = True
        requests = questions(list(stored), each=3)
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


def test_a_server_that_forgets_pictures_gets_their_bytes_again_and_no_row_is_lost(
    new_log: Callable[[], AnswerLog], quick: EngineOptions, by_name: None
) -> None:
    stored = {f"p{i}": picture(300 + i, 300) for i in range(12)}
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
        "what was refused goes again as to any other server"
    )


def test_questions_about_one_picture_go_to_the_server_that_has_it_if_there_is_a_place(
    new_log: Callable[[], AnswerLog], quick: EngineOptions, by_name: None
) -> None:
    stored = {f"p{i}": picture(300 + i, 300) for i in range(60)}
    behaviour = FakeServerConfig(latency_s=0.01, slots=8, image_cache_size=100)
    with serving(behaviour) as (one, first), serving(behaviour) as (two, second):
        one.record_bodies = two.record_bodies = True
        requests = questions(list(stored), 4)
        outcome = answer_all(
            requests, endpoints=[first, second], log=new_log(), fetch_images=lambda ids: stored, options=quick
        )
    assert (outcome.answered, outcome.attempts_sent) == (240, 240)
    assert one.bodies and two.bodies
    # Wherever there is a place first, three in four pictures would go to both.
    assert (bytes_sent(one) + bytes_sent(two)).total() < 100


def test_a_server_that_is_not_vllm_gets_no_names(new_log: Callable[[], AnswerLog], quick: EngineOptions) -> None:
    stored = {"p0": picture(300, 300)}
    with serving(FakeServerConfig(latency_s=0.01)) as (server, endpoint):
        server.record_bodies = True
        answer_all(questions(["p0"], 5), endpoints=[endpoint], log=new_log(), fetch_images=lambda ids: stored)
    assert bytes_sent(server) == {"": 5}


def test_several_pictures_travel_in_their_order(new_log: Callable[[], AnswerLog], quick: EngineOptions) -> None:
    stored = {name: picture(side, 300) for name, side in (("a", 300), ("b", 400), ("c", 500))}
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


def test_without_a_way_to_fetch_pictures_the_run_says_so(new_log: Callable[[], AnswerLog]) -> None:
    with serving() as (_, endpoint):
        try:
            answer_all([look("p")], endpoints=[endpoint], log=new_log())
        except MvlError as error:
            assert "no way to fetch images" in error.message
        else:
            raise AssertionError("no error")
