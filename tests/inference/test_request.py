"""When two requests are the same request, and which requests cannot be made."""

from __future__ import annotations

import dataclasses

import pytest

from mvl_assets.inference.request import (
    ModelRef,
    OutputFormat,
    Request,
    RequestError,
    build_choice_output,
    build_json_output,
)

PICTURE = "a" * 32


def request(**changes: object) -> Request:
    base = Request(
        messages=(
            {
                "role": "user",
                "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "what is it?"}],
            },
        ),
        model=ModelRef("m", "r1"),
        sampling={"max_tokens": 8, "temperature": 0},
        prompt_name="p",
        prompt_hash="h1",
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def with_picture(image: str) -> dict[str, object]:
    return {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "what is it?"}]}


def test_the_key_is_32_hex_digits_and_does_not_depend_on_the_order_of_fields() -> None:
    assert len(request().key) == 32 and int(request().key, 16) >= 0
    assert request(sampling={"temperature": 0, "max_tokens": 8}).key == request().key


@pytest.mark.parametrize(
    "change",
    [
        {"messages": (with_picture("b" * 32),)},
        {"messages": ({"role": "user", "content": "what is it?"},)},
        {"model": ModelRef("m", "r2")},
        {"model": ModelRef("n", "r1")},
        {"sampling": {"max_tokens": 9, "temperature": 0}},
        {"sampling": {"max_tokens": 8, "temperature": 0, "seed": 1}},
        {"output": build_choice_output("Yes", "No")},
        {"output": build_json_output({"type": "object"})},
        {"prompt_hash": "h2"},
    ],
)
def test_whatever_decides_the_answer_changes_the_key(change: dict) -> None:
    assert request(**change).key != request().key


@pytest.mark.parametrize("change", [{"prompt_name": "renamed"}, {"model": ModelRef("m", "r1", supports_images=True)}])
def test_what_does_not_decide_the_answer_leaves_the_key(change: dict) -> None:
    assert request(**change).key == request().key


def test_the_order_of_choices_and_their_names_count() -> None:
    assert request(output=build_choice_output("Yes", "No")).key != request(output=build_choice_output("No", "Yes")).key


def test_a_picture_for_a_model_that_reads_text_only_is_refused() -> None:
    with pytest.raises(RequestError, match="reads text only") as caught:
        request(model=ModelRef("m", "r1", supports_images=False))
    assert caught.value.hint


@pytest.mark.parametrize("sampling", [{}, {"max_tokens": 0}, {"max_tokens": "many"}])
def test_an_answer_without_a_bound_is_refused(sampling: dict) -> None:
    with pytest.raises(RequestError, match="max_tokens"):
        request(sampling=sampling)


@pytest.mark.parametrize("parts", [{"kind": "json"}, {"kind": "choice"}, {"kind": "text", "options": ("a",)}])
def test_an_output_form_that_contradicts_itself_is_refused(parts: dict) -> None:
    with pytest.raises(RequestError):
        OutputFormat(**parts)


def test_images_come_in_order_with_repetitions() -> None:
    messages = (with_picture("b" * 32), with_picture("a" * 32), with_picture("b" * 32))
    assert request(messages=messages).image_ids == ("b" * 32, "a" * 32, "b" * 32)
