"""The data: a small lake with JPEG images and texts whose lengths follow `sample_shapes`, its plan and its loader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from training_parts.common import SEED, STAGE
from training_parts.data import DrawnSample, compute_row_id, draw_jpeg, write_mixture

from gpu_step_parts.common import RunSize
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.chat_format import IM_END, IM_START
from mvl_training.data.pack_loader import PackLoader
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.planning import build_pack_plan
from mvl_training.data.processing import SampleProcessor, load_tokenizer
from mvl_training.data.step_packs import PackLimits, StepPacker
from mvl_training.model.cost_model import ModelSizes, build_sample_flops
from mvl_training.recipe import Recipe
from mvl_training.runs.sample_shapes import SampleShapes, draw_samples

SPECIAL_TOKENS = ("<|endoftext|>", IM_START, IM_END)
N_ADDED_TOKENS = 1 + len(SPECIAL_TOKENS) + 2
"""Tokens that are no words: the unknown word, these, and the markers of images and videos."""
CHAT_TOKENS = 21
"""Tokens that ChatML adds to question and answer: system prompt, headers, ends of turns."""


@dataclass(frozen=True, slots=True)
class StepData:
    """What steps are loaded from; `image_sizes` has (height, width) by the row's id."""

    plan: PackPlan
    loader: PackLoader
    image_sizes: dict[str, tuple[int, int]]


def write_tokenizer(folder: Path, vocab_size: int) -> Path:
    """Write a tokenizer that makes one token of each word `w0`, `w1`, ... and of each line break."""
    words = ["<unk>", "\n", *(f"w{n}" for n in range(count_words(vocab_size)))]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split("\n", "isolated")]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def count_words(vocab_size: int) -> int:
    return vocab_size - N_ADDED_TOKENS - 1  # the line break


def open_step_data(run_size: RunSize, recipe: Recipe, folder: Path) -> StepData:
    """Write and plan the samples of all steps."""
    tokenizer = load_tokenizer(recipe)
    shapes = draw_samples(run_size.n_rows, recipe.towers.grid.to_tile_grid(), SEED, run_size.max_seq_len)
    lake = write_mixture(folder, iter_drawn_samples(shapes, count_words(tokenizer.vocab_size)))
    build_pack_plan(lake, STAGE, recipe, run_id="benchmark")
    plan = PackPlan(lake, STAGE)
    processor = SampleProcessor.for_stage(recipe, STAGE, tokenizer)
    image_sizes = {
        compute_row_id(n): shapes.image_sizes[image_index][::-1]
        for n, image_index in enumerate(shapes.image_index_N.tolist())
        if image_index >= 0
    }
    return StepData(plan, PackLoader(lake, STAGE, plan, processor, recipe.loss_weighting), image_sizes)


def iter_drawn_samples(shapes: SampleShapes, n_words: int) -> Iterator[DrawnSample]:
    rng = np.random.default_rng(SEED)

    def draw_words(n_tokens: int) -> str:
        return " ".join(f"w{n}" for n in rng.integers(0, n_words, max(1, n_tokens)).tolist())

    for n_text, n_loss, image_index in zip(
        shapes.text_tokens_N.tolist(), shapes.loss_tokens_N.tolist(), shapes.image_index_N.tolist(), strict=True
    ):
        image = draw_jpeg(rng, shapes.image_sizes[image_index]) if image_index >= 0 else None
        yield DrawnSample(image, draw_words(n_text - n_loss - CHAT_TOKENS), draw_words(n_loss))


def build_step_packer(data: StepData, recipe: Recipe, sizes: ModelSizes) -> StepPacker:
    stage_config = recipe.get_stage(STAGE)
    return StepPacker(
        data.plan,
        BatchOrder(len(data.plan), stage_config.global_batch_size, recipe.seed),
        build_sample_flops(sizes, stage_config),
        PackLimits.for_stage(recipe, STAGE),
        world_size=1,
    )
