"""Rows of `samples` with their images, as ingest stores both."""

from __future__ import annotations

from typing import Any

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import SAMPLES
from mvl_assets.lake.schemas.rows import ImageRow
from mvl_assets.media.image import inspect_image
from tests.lake.rows import sample, table_of

QUESTION, ANSWER = "What is written in the second line of the letter?", "Ada Lovelace"


def store(lake: Lake, slug: str, data: bytes) -> ImageRow:
    info = inspect_image(data)
    row = ImageRow(
        compute_digest(data),
        data,
        info.format,
        info.width,
        info.height,
        info.n_frames,
        info.mode,
        info.phash,
        info.pdq,
        info.pdq_quality,
        info.trimmed_pdq,
        info.sharpness,
    )
    lake.get_images(slug).insert([row])
    return row


def put_row(lake: Lake, slug: str, *files: bytes, number: int = 0, **said: Any) -> dict[str, Any]:
    pictures = [store(lake, slug, data) for data in files]
    row = sample(slug, number, pictures=pictures, **({"question": QUESTION, "answer": ANSWER} | said))
    lake.get_table("samples").append_fragments(
        [lake.get_table("samples").write_fragments([table_of(SAMPLES, [row])], slug)]
    )
    return row
