"""The mixture that planning, steps and loaders are measured on."""

from __future__ import annotations

import io
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
from training_parts.common import SEED, STAGE, iter_chunks

WORDS = ("the", "chart", "shows", "a", "red", "line", "above", "two", "bars", "that", "mean", "nothing", "in", "spring")


def write_lake(root: Path, n_rows: int) -> Lake:
    """Write `mixture/single_image` with conversations with one image each, except for the text-only ones."""
    lake, rng = Lake(str(root)), np.random.default_rng(SEED)
    samples: list[dict[str, Any]] = []
    mixture: list[dict[str, Any]] = []
    # Fragments have the size of ingest's, which reading speed depends on.
    for row_numbers in iter_chunks(list(range(n_rows)), INGEST_SHARD_ROWS):
        images: list[ImageRow] = []
        for row_number in row_numbers:
            is_text_only = rng.random() < TEXT_ONLY_FRACTION
            images += [] if is_text_only else [draw_jpeg(rng)]
            image_ids = [] if is_text_only else [images[-1].image_id]
            question, answer = draw_text(rng, 10), draw_text(rng, 120 if is_text_only else 45)
            turns = [
                {"from": "human", "value": "<image>\n" * len(image_ids) + question},
                {"from": "gpt", "value": answer},
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
                {**row_key, "row_id": compute_digest("mixture", row_number), "kind": "original", "category": "general"}
                | {"modality": "single_image", "repeat_index": 0}
            )
        lake.get_images("drawn").insert(images)
    for name, table_rows, partition_key in (("samples", samples, "drawn"), (f"mixture/{STAGE}", mixture, None)):
        table = lake.get_table(name)
        schema = table.spec.columns
        table.publish([pa.Table.from_pylist(table_rows, schema=schema)], partition_key)
    return lake


def draw_jpeg(rng: np.random.Generator) -> ImageRow:
    """Return smooth noise of a random size at quality 85."""
    noise = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.resize(draw_image_size(rng), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
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
