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

IMAGE_ID = "a" * 32


def build_default_request(**changes: object) -> Request:
    base = Request(
        messages=(
            {
                "role": "user",
                "content": [{"type": "image", "image": IMAGE_ID}, {"type": "text", "text": "what is it?"}],
            },
        ),
        model=ModelRef("m", "r1"),
        sampling={"max_tokens": 8, "temperature": 0},
        prompt_name="p",
        prompt_hash="h1",
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def build_image_message(image: str) -> dict[str, object]:
    return {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "what is it?"}]}


def test_the_key_is_32_hex_digits_and_does_not_depend_on_the_order_of_fields() -> None:
    assert len(build_default_request().key) == 32 and int(build_default_request().key, 16) >= 0
    assert build_default_request(sampling={"temperature": 0, "max_tokens": 8}).key == build_default_request().key


@pytest.mark.parametrize(
    "change",
    [
        {"messages": (build_image_message("b" * 32),)},
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
def test_what_decides_the_answer_changes_the_key(change: dict) -> None:
    assert build_default_request(**change).key != build_default_request().key


@pytest.mark.parametrize("change", [{"prompt_name": "renamed"}, {"model": ModelRef("m", "r1", supports_images=True)}])
def test_what_does_not_decide_the_answer_keeps_the_key(change: dict) -> None:
    assert build_default_request(**change).key == build_default_request().key


def test_the_order_of_choices_changes_the_key() -> None:
    assert (
        build_default_request(output=build_choice_output("Yes", "No")).key
        != build_default_request(output=build_choice_output("No", "Yes")).key
    )


def test_an_image_for_a_text_only_model_is_an_error() -> None:
    with pytest.raises(RequestError, match="reads text only") as caught:
        build_default_request(model=ModelRef("m", "r1", supports_images=False))
    assert caught.value.hint


@pytest.mark.parametrize("sampling", [{}, {"max_tokens": 0}, {"max_tokens": "many"}])
def test_sampling_without_max_tokens_is_an_error(sampling: dict) -> None:
    with pytest.raises(RequestError, match="max_tokens"):
        build_default_request(sampling=sampling)


@pytest.mark.parametrize("parts", [{"kind": "json"}, {"kind": "choice"}, {"kind": "text", "options": ("a",)}])
def test_an_output_format_that_contradicts_itself_is_an_error(parts: dict) -> None:
    with pytest.raises(RequestError):
        OutputFormat(**parts)


def test_image_ids_are_listed_in_order_with_repetitions() -> None:
    messages = (build_image_message("b" * 32), build_image_message("a" * 32), build_image_message("b" * 32))
    assert build_default_request(messages=messages).image_ids == ("b" * 32, "a" * 32, "b" * 32)
