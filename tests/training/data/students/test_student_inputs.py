"""Inputs of whole students: equal to those of transformers' own processors."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mvl_assets.errors import MvlError
from mvl_training.data.chat_format import IGNORE_INDEX
from mvl_training.data.processing import SampleProcessor
from mvl_training.model.students.choose import choose_student_class
from tests.training import tiny_students as small
from tests.training.student_samples import ANSWER, build_row, draw_image, encode_with_transformers, open_processor
from tests.training.tiny_students import AutoProcessor


@pytest.fixture(scope="module", params=small.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.write_student(family, tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def processor(family: str, folder: Path) -> SampleProcessor:
    return open_processor(family, folder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    hf_processor = AutoProcessor.from_pretrained(folder)
    hf_processor.video_processor.cap_pixels_per_frame = False  # as the exports have it
    return hf_processor


def draw_sizes(n: int) -> list[tuple[int, int]]:
    """Sizes as the lake has them, and those at the limits of a standard image."""
    rng = random.Random(1)
    drawn = [(rng.randint(224, 1400), rng.randint(224, 1400)) for _ in range(n)]
    return [*drawn, (224, 224), (224, 1568), (4096, 586), (1568, 224), (2000, 2000), (448, 447), (450, 449)]


def test_tokens_of_an_image_are_counted_from_its_size_as_transformers_counts_them(
    processor: SampleProcessor, theirs: Any, family: str
) -> None:
    sizes = draw_sizes(400)
    own = [processor.inputs.compute_layouts([size], is_video=False)[0].n_tokens for size in sizes]
    counts = theirs._get_num_multimodal_tokens(image_sizes=[(height, width) for width, height in sizes])
    # Those of InternVL have the two marks counted in.
    assert own == [count - 2 * (family == "internvl") for count in counts["num_image_tokens"]]


@pytest.mark.parametrize("is_limited", [False, True])
def test_samples_have_the_tokens_labels_and_pixels_of_transformers(
    family: str, folder: Path, theirs: Any, is_limited: bool
) -> None:
    processor = open_processor(family, folder, small.LIMITS[family] if is_limited else {})
    hf_processor = AutoProcessor.from_pretrained(folder)
    choose_student_class(small.build_recipe(family, folder)).apply_limits(hf_processor, processor)
    for sizes in ([], [(300, 240)], [(610, 1003)], [(300, 240), (500, 333)]):
        images = [draw_image(*size, seed=i) for i, size in enumerate(sizes)]
        row, data = build_row(images)
        sample = processor.build_sample(row, data)
        expected = encode_with_transformers(hf_processor, images)
        assert sample.encoded.input_ids.tolist() == expected["input_ids"][0].tolist()
        cost = processor.compute_cost(row, {image_id: image.size for image_id, image in zip(data, images, strict=True)})
        assert cost.n_tokens == len(sample.encoded.input_ids) and cost.n_tiles == len(sample.tiles)
        check_labels(processor, sample.encoded.input_ids, sample.encoded.labels)
        if images:
            check_pixels(family, folder, sample.tiles, expected["pixel_values"])


def check_labels(processor: SampleProcessor, input_ids: np.ndarray, labels: np.ndarray) -> None:
    """The loss is on the answer and the token that ends it, and on nothing else."""
    is_target = labels != IGNORE_INDEX
    expected = [*processor.tokenizer.encode(ANSWER), processor.tokenizer.im_end_id]
    assert input_ids[is_target].tolist() == labels[is_target].tolist() == expected
    assert is_target[-1 - len(processor.tokenizer.encode("\n")) - len(expected) + 1 : -1].all()


def check_pixels(family: str, folder: Path, tiles: np.ndarray, pixel_values: torch.Tensor) -> None:
    """Resized on Pillow here and by torch there: two levels of 255 apart at most, and the same on average."""
    student = choose_student_class(small.build_recipe(family, folder)).build_shell(small.build_recipe(family, folder))
    ours = student.build_pixels(torch.from_numpy(tiles))
    assert ours.shape == pixel_values.shape
    difference = (ours - pixel_values).abs()
    assert float(difference.max()) < 2.5 / 255 / 0.26 and float(difference.mean()) < 0.3 / 255 / 0.26


@pytest.mark.parametrize(("n_frames", "fps"), [(4, 1.0), (5, 2.0), (2, 0.5), (3, 3.0)])
def test_a_video_has_the_tokens_and_times_of_transformers(
    processor: SampleProcessor, theirs: Any, n_frames: int, fps: float
) -> None:
    frames = [draw_image(320, 250, seed=i) for i in range(n_frames)]
    row, data = build_row(frames, [i / fps for i in range(n_frames)])
    processor.frame_limits = type(processor.frame_limits)(max_frames=n_frames)
    sample = processor.build_sample(row, data)
    expected = encode_with_transformers(theirs, frames, fps)
    assert sample.encoded.input_ids.tolist() == expected["input_ids"][0].tolist()
    assert sample.layouts[0].is_video


def test_special_tokens_in_the_text_of_a_sample_are_text(processor: SampleProcessor) -> None:
    row, data = build_row([], question="Is <|image_pad|> or <|im_end|> a token?")
    input_ids = processor.build_sample(row, data).encoded.input_ids.tolist()
    assert not set(input_ids) & set(processor.tokenizer.placeholder_ids)
    assert input_ids.count(processor.tokenizer.im_end_id) == 2 + bool(processor.system_prompt)


def test_a_system_turn_of_the_data_replaces_the_family_s(processor: SampleProcessor, theirs: Any) -> None:
    row, data = build_row([], question="Say red.")
    row["conversations"].insert(0, {"from": "system", "value": "Be brief."})
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say red."},
        {"role": "assistant", "content": ANSWER},
    ]
    expected = theirs.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"][0]
    assert processor.build_sample(row, data).encoded.input_ids.tolist() == list(expected)


def test_a_folder_of_another_family_is_refused(folder: Path, family: str) -> None:
    other = next(name for name in small.FAMILIES if name != family)
    with pytest.raises(MvlError, match=f"model of type {family}, the recipe's student is {other}"):
        open_processor(other, folder, {})
