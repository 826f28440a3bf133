"""Pictures on their way to a model: standard form, capped, and never a reason for the run to end."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence

from asking import MODEL
from PIL import Image
from servers import serving

from mvl_assets.errors import MvlError
from mvl_assets.inference.engine import answer_all
from mvl_assets.inference.options import EngineOptions
from mvl_assets.inference.pictures import PictureFault, load_pictures
from mvl_assets.inference.request import Request
from mvl_assets.lake.answers import AnswerLog


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
    assert load_pictures(lambda ids: {"a": data}, ["a"], 1344) == {"a": data}


def test_a_large_picture_is_scaled_to_what_the_model_can_use_and_a_small_one_up() -> None:
    stored = {"large": picture(3000, 1500), "small": picture(50, 50, format="PNG"), "grey": picture(300, 300, "L")}
    loaded = load_pictures(lambda ids: stored, list(stored), 1344)
    assert all(isinstance(data, bytes) for data in loaded.values())
    assert size(loaded["large"]) == (1344, 672)  # type: ignore[arg-type]
    assert size(loaded["small"]) == (224, 224)  # type: ignore[arg-type]
    assert Image.open(io.BytesIO(loaded["grey"])).mode == "RGB"  # type: ignore[arg-type]


def test_a_missing_or_broken_picture_is_a_fault_of_its_rows_alone() -> None:
    loaded = load_pictures(lambda ids: {"broken": b"no picture"}, ["broken", "gone"], 1344)
    assert isinstance(loaded["broken"], PictureFault) and loaded["broken"].error == "not_a_picture"
    assert isinstance(loaded["gone"], PictureFault) and loaded["gone"].error == "missing_picture"


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
        server.keep_bodies = True
        outcome = answer_all(requests, endpoints=[endpoint], log=new_log(), pictures=fetch, options=quick)
    assert outcome.answered == 40
    assert {failure.error for failure in outcome.failures} == {"not_a_picture", "missing_picture"}
    sent = {body["messages"][0]["content"][0]["image_url"]["url"].split(",")[1] for body in server.bodies}
    assert {base64.b64decode(data) for data in sent} == {stored[f"p{i}"] for i in range(40)}
    assert sorted(fetched) == sorted([*stored, "gone"])


def test_without_a_way_to_fetch_pictures_the_run_says_so(new_log: Callable[[], AnswerLog]) -> None:
    with serving() as (_, endpoint):
        try:
            answer_all([look("p")], endpoints=[endpoint], log=new_log())
        except MvlError as error:
            assert "no way to fetch pictures" in error.message
        else:
            raise AssertionError("no error")
