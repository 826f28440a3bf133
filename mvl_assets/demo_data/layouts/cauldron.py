"""The Cauldron: parquet of images and turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mvl_assets.demo_data.layouts.common import IMAGE_STRUCT, SourceLayout, build_image_cell, write_parquet_shards
from mvl_assets.demo_data.rows import RawRow


def write_cauldron_parquet(source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write two shards of {images[{bytes, path}], texts[{user, assistant, source}]}; no markers, no ids."""
    turn = pa.struct([("user", pa.string()), ("assistant", pa.string()), ("source", pa.string())])
    schema = pa.schema([("images", pa.list_(IMAGE_STRUCT)), ("texts", pa.list_(turn))])

    def build_record(row: RawRow) -> dict[str, Any]:
        turns = [] if row.fault == "no_turns" else row.turns
        return {
            "images": [build_image_cell(image) for image in row.images],
            "texts": [{"user": question, "assistant": answer, "source": slug} for question, answer in turns],
        }

    write_parquet_shards(source_dir / "data", [build_record(row) for row in rows], schema)


LAYOUTS = {
    "cauldron_parquet": SourceLayout("cauldron_parquet", write_cauldron_parquet),
}
