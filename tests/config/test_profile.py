"""Fields of a profile that are checked against each other."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mvl_assets.config.profile import ExecutorConfig, ModelProfile


def test_address_of_an_executor_without_ray_is_refused() -> None:
    with pytest.raises(ValidationError, match="belongs to kind: ray"):
        ExecutorConfig(address="auto")


def test_executor_of_fewer_than_one_process_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        ExecutorConfig(processes=0)


def build_model(**fields: object) -> ModelProfile:
    return ModelProfile.model_validate(
        {"name": "m", "revision": "1", "supports_images": True, "base_urls": ["http://host/v1"], **fields}
    )


def test_extra_body_and_template_arguments_are_one_canonical_json() -> None:
    assert build_model().encoded_extra_body == ""
    model = build_model(extra_body={"top_k": 5, "min_p": 0.1}, chat_template_kwargs={"enable_thinking": False})
    assert model.encoded_extra_body == '{"chat_template_kwargs":{"enable_thinking":false},"min_p":0.1,"top_k":5}'


@pytest.mark.parametrize("extra_body", [{"messages": []}, {"n": 2}, {"stream": True}, {"top_p": float("nan")}])
def test_extra_body_cannot_change_what_is_asked(extra_body: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="extra_body"):
        build_model(extra_body=extra_body)


def test_a_batch_needs_one_address_and_halves_the_price_of_tokens() -> None:
    fields = {"name": "m", "revision": "1", "supports_images": True, "mode": "batch"}
    with pytest.raises(ValidationError, match="one address"):
        ModelProfile(**fields, base_urls=["http://a/v1", "http://b/v1"])
    price = {"input_per_million": 2.0, "output_per_million": 8.0, "gpu_hour": 3.0}
    model = ModelProfile(**fields, base_urls=["http://a/v1"], price=price)
    assert (model.token_price.input_per_million, model.token_price.output_per_million) == (1.0, 4.0)
    assert model.token_price.gpu_hour == 3.0
