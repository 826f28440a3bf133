"""Positions, patches and limits of Qwen2.5-VL and Qwen3-VL."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mvl_assets.common.rejects import RejectError
from mvl_assets.errors import MvlError
from mvl_training.data.students.qwen_vl import PixelLimits, fit_size
from mvl_training.model.students.choose import load_student
from tests.training import tiny_students as small
from tests.training.student_samples import build_row, draw_image, encode_with_transformers, open_processor
from tests.training.tiny_students import AutoProcessor

FAMILIES = ("qwen2_5_vl", "qwen3_vl")


@pytest.fixture(scope="module", params=FAMILIES)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    family = str(request.param)
    return family, small.write_student(family, tmp_path_factory.mktemp(family))


@pytest.mark.parametrize("fps", [None, 1.0, 0.5, 3.0])
def test_positions_are_those_of_transformers(opened: tuple[str, Path], fps: float | None) -> None:
    family, folder = opened
    processor = open_processor(family, folder, {}, max_frames=5)
    hf_processor = AutoProcessor.from_pretrained(folder)
    hf_processor.video_processor.cap_pixels_per_frame = False
    images = [draw_image(width, height) for width, height in ((300, 240), (500, 333), (320, 700))]
    if fps:
        images = [draw_image(320, 250, seed=i) for i in range(5)]
    row, data = build_row(images, [i / fps for i in range(5)] if fps else None)
    sample = processor.build_sample(row, data)
    inputs = encode_with_transformers(hf_processor, images, fps)
    vlm = load_student(small.build_recipe(family, folder), folder).vlm
    names = ("mm_token_type_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    given = {name: torch.as_tensor(inputs[name]) for name in names if name in inputs}
    expected, _ = vlm.model.get_rope_index(inputs["input_ids"], **given)
    assert sample.rope_ids_3L is not None
    assert np.array_equal(sample.rope_ids_3L, expected[:, 0].numpy())


def test_sizes_of_images_that_the_student_cannot_take_are_refused(opened: tuple[str, Path]) -> None:
    family, folder = opened
    with pytest.raises(RejectError, match="sides up to 1 : 200"):
        fit_size(6000, 20, 28, PixelLimits(3136, 10**6))
    with pytest.raises(MvlError, match="below the"):
        open_processor(family, folder, {"max_pixels": 100})


def test_a_video_of_one_frame_is_a_reject_where_transformers_refuses_it(opened: tuple[str, Path]) -> None:
    family, folder = opened
    processor = open_processor(family, folder)
    row, data = build_row([draw_image(300, 300)], [0.0])
    if family == "qwen3_vl":
        with pytest.raises(RejectError, match="takes at least 2"):
            processor.build_sample(row, data)
    else:
        assert processor.build_sample(row, data).layouts[0].n_tiles > 0


def test_a_processor_that_gives_other_pixels_is_refused(opened: tuple[str, Path], tmp_path: Path) -> None:
    family, folder = opened
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_normalize": False}))
    with pytest.raises(MvlError, match="do_normalize of its processor"):
        open_processor(family, tmp_path)
