"""Previews of rows that the data cannot break."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
from PIL import Image

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import ImageRow
from mvl_assets.orchestration.metadata import (
    MAX_PREVIEW_BYTES,
    MAX_PREVIEW_IMAGES,
    MIN_DIALOG_CHARS,
    format_column_type,
    render_preview,
)


def test_a_preview_of_the_largest_rows_stays_within_its_limits(lake: Lake) -> None:
    """Noise does not compress, and every character needs an escape: the largest a row can get."""
    rng = np.random.default_rng(0)
    pictures = [make_image(rng.integers(0, 256, (600, 600, 3), dtype=np.uint8)) for _ in range(6)]
    lake.get_images("drawn").insert(pictures)
    rows = [
        {
            "image_ids": [p.image_id, p.image_id],
            "conversations": [{"from": who, "value": "|" * 5000} for who in ("human", "gpt", "human", "gpt")],
            **{f"c{n}": "é|" * 500 for n in range(12)},
        }
        for p in pictures
    ]
    text = render_preview(lake, rows, ["question", "answer", *(f"c{n}" for n in range(12))]).value
    assert isinstance(text, str)
    assert len(text.encode()) <= MAX_PREVIEW_BYTES
    lines = text.splitlines()
    assert len(lines) > 2 and len({line.count("|") for line in lines}) == 1
    assert 1 <= text.count("data:image/jpeg") <= MAX_PREVIEW_IMAGES


def test_a_preview_embeds_the_first_images_and_counts_the_others(lake: Lake) -> None:
    one = make_image(np.zeros((240, 240, 3), dtype=np.uint8))
    lake.get_images("drawn").insert([one])
    text = render_preview(lake, [{"image_ids": [one.image_id] * 3, "n": n} for n in range(6)], ["n"]).value
    assert isinstance(text, str)
    assert text.count("data:image/jpeg") == MAX_PREVIEW_IMAGES
    assert text.count(" +2 |") == 6


def test_a_preview_without_rows_is_the_word_none(lake: Lake) -> None:
    assert render_preview(lake, [], ["question"]).value == "none"


def make_image(pixels: np.ndarray) -> ImageRow:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    data = buffer.getvalue()
    return ImageRow(compute_digest(data), data, "PNG", pixels.shape[1], pixels.shape[0], 1, "RGB", None)


def test_a_table_of_many_columns_is_shown_in_a_dialog_and_a_narrow_one_on_the_page(lake: Lake) -> None:
    row = {"a": 1, "b": 2, "c": 3, "d": 4}
    assert len(str(render_preview(lake, [row], ["a", "b"]).value)) < MIN_DIALOG_CHARS
    wide = str(render_preview(lake, [row], list(row)).value)
    assert len(wide) == MIN_DIALOG_CHARS and wide.rstrip().endswith("| 1 | 2 | 3 | 4 |")


def test_long_types_of_columns_are_shown_without_their_fields() -> None:
    short = pa.list_(pa.struct([("from", pa.string())]))
    assert format_column_type(short) == str(short)
    long = pa.struct([(f"field_{n}", pa.string()) for n in range(20)])
    assert format_column_type(long) == "struct"
    assert format_column_type(pa.list_(long)) == "list<struct>"
