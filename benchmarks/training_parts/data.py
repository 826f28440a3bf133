"""Mixtures that planning, steps and loaders are measured on."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from mvl_assets.common.digest import compute_digest
from mvl_assets.ingest.shard import SHARD_ROWS as INGEST_SHARD_ROWS
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import ImageRow
from mvl_assets.media.image import inspect_image
from mvl_training.runs.sample_shapes import TEXT_ONLY_FRACTION, draw_image_size
from training_parts.common import SEED, STAGE

CATEGORY = "general"
WORDS = ("the", "chart", "shows", "a", "red", "line", "above", "two", "bars", "that", "mean", "nothing", "in", "spring")


@dataclass(frozen=True, slots=True)
class DrawnSample:
    """One question with its answer, about an image or none."""

    image: ImageRow | None
    question: str
    answer: str


def write_lake(root: Path, n_rows: int) -> Lake:
    """Write a mixture of `n_rows` short conversations."""
    return write_mixture(root, iter_short_samples(n_rows))


def iter_short_samples(n_rows: int) -> Iterator[DrawnSample]:
    """Yield conversations with one image each, except for the text-only ones."""
    rng = np.random.default_rng(SEED)
    for _ in range(n_rows):
        is_text_only = rng.random() < TEXT_ONLY_FRACTION
        image = None if is_text_only else draw_jpeg(rng)
        yield DrawnSample(image, draw_text(rng, 10), draw_text(rng, 120 if is_text_only else 45))


def write_mixture(root: Path, drawn_samples: Iterable[DrawnSample]) -> Lake:
    """Write `mixture/single_image` with these samples, whose rows are `compute_row_id` of 0, 1, 2, ..."""
    lake, numbered_samples = Lake(str(root)), enumerate(drawn_samples)
    samples: list[dict[str, Any]] = []
    mixture: list[dict[str, Any]] = []
    # Fragments have the size of ingest's, which reading speed depends on.
    while chunk := list(islice(numbered_samples, INGEST_SHARD_ROWS)):
        for row_number, drawn in chunk:
            image_ids = [] if drawn.image is None else [drawn.image.image_id]
            turns = [
                {"from": "human", "value": "<image>\n" * len(image_ids) + drawn.question},
                {"from": "gpt", "value": drawn.answer},
            ]
            row_key = {
                "sample_id": compute_digest("drawn", row_number),
                "version_id": compute_digest("drawn", row_number, 1),
            }
            row_key |= {"source": "drawn", "position": row_number}
            samples.append(
                {
                    **row_key,
                    "revision": 1,
                    "withdrawn": False,
                    "conversations": turns,
                    "image_ids": image_ids,
                    "video": None,
                }
                | {"content_hash": compute_digest(turns, image_ids)}
            )
            mixture.append(
                {**row_key, "row_id": compute_row_id(row_number), "kind": "original", "category": CATEGORY}
                | {"modality": "single_image", "repeat_index": 0}
            )
        lake.get_images("drawn").insert([drawn.image for _, drawn in chunk if drawn.image is not None])
    for name, table_rows, partition_key in (("samples", samples, "drawn"), (f"mixture/{STAGE}", mixture, None)):
        table = lake.get_table(name)
        schema = table.spec.columns
        table.publish([pa.Table.from_pylist(table_rows, schema=schema)], partition_key)
    return lake


def compute_row_id(row_number: int) -> str:
    return compute_digest("mixture", row_number)


def draw_jpeg(rng: np.random.Generator, size: tuple[int, int] | None = None) -> ImageRow:
    """Return smooth noise of a (width, height), by default a random one, at quality 85."""
    noise = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.resize(size or draw_image_size(rng), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    data = buffer.getvalue()
    image_info = inspect_image(data)
    return ImageRow(
        compute_digest(data),
        data,
        image_info.format,
        image_info.width,
        image_info.height,
        image_info.n_frames,
        image_info.mode,
        image_info.phash,
    )


def draw_text(rng: np.random.Generator, median_words: int) -> str:
    return " ".join(rng.choice(WORDS, 1 + int(rng.lognormal(np.log(median_words), 0.7))))
