"""Tokens of an image by the rule of its model. The figures are those of the models' own image processors."""

from __future__ import annotations

import pytest

from mvl_assets.inference.request import ModelRef
from mvl_assets.model_stage.image_tokens import count_image_tokens, find_image_token_rule


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("Qwen/Qwen2-VL-72B-Instruct", "qwen2_vl"),
        ("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_vl"),
        ("Qwen/Qwen3-VL-8B-Thinking", "qwen3_vl"),
        ("OpenGVLab/InternVL2-Llama3-76B", "internvl"),
        ("OpenGVLab/InternVL3_5-8B", "internvl"),
        ("lmms-lab/llava-onevision-qwen2-7b-ov", "llava_onevision"),
        ("MAmmoTH-VL/MAmmoTH-VL-8B", "llava_onevision"),
        ("lmms-lab/LLaVA-OneVision-1.5-8B-Instruct", "qwen2_vl"),
        ("google/gemma-3-27b-it", "default"),
        ("Qwen/Qwen2.5-7B-Instruct", "default"),
    ],
)
def test_the_rule_follows_from_the_name_of_the_model(name: str, rule: str) -> None:
    assert find_image_token_rule(name).name == rule


@pytest.mark.parametrize(
    ("name", "size", "n_tokens"),
    [
        # 280 x 280 px are 10 x 10 patches; a tiny image is scaled up to 4 patches, a huge one down to at most 16,384.
        ("qwen2.5-vl", (280, 280), 100),
        ("qwen2.5-vl", (20, 20), 4),
        ("qwen2.5-vl", (10_000, 10_000), 127 * 127),
        ("qwen3-vl", (320, 640), 200),
        ("qwen3-vl", (20, 20), 64),
        ("qwen3-vl", (8192, 8192), 128 * 128),
        # One tile has no thumbnail; 4:3 is the shape of 12 tiles, whatever the size.
        ("internvl2", (448, 448), 256),
        ("internvl2", (800, 600), 13 * 256),
        ("internvl2", (900, 450), 3 * 256),
        # The whole image, and a grid of features whose rows end with a newline.
        ("llava-onevision", (384, 384), 729 + 27 * 28),
        ("gpt", (449, 448), 2 * 256),
        ("gpt", (4480, 4480), 12 * 256),
    ],
)
def test_tokens_follow_from_the_size(name: str, size: tuple[int, int], n_tokens: int) -> None:
    assert count_image_tokens(ModelRef(name, "1"), *size) == n_tokens


def test_an_image_is_scaled_to_what_the_model_gets_first() -> None:
    assert count_image_tokens(ModelRef("qwen2.5-vl", "1", max_image_side=560), 5600, 2800) == 20 * 10
