"""The Cauldron: parquet of pictures and turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mvl_assets.demo_data.layouts.common import BYTES, Layout, cell, shards
from mvl_assets.demo_data.rows import Row


def cauldron_parquet(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Two shards of {images[{bytes, path}], texts[{user, assistant, source}]}; no markers, no ids."""
    turn = pa.struct([("user", pa.string()), ("assistant", pa.string()), ("source", pa.string())])
    schema = pa.schema([("images", pa.list_(BYTES)), ("texts", pa.list_(turn))])

    def record(row: Row) -> dict[str, Any]:
        turns = [] if row.fault == "no_turns" else row.turns
        return {
            "images": [cell(picture) for picture in row.pictures],
            "texts": [{"user": asked, "assistant": answer, "source": name} for asked, answer in turns],
        }

    shards(folder / "data", [record(row) for row in rows], schema)


LAYOUTS = {
    "cauldron_parquet": Layout("cauldron_parquet", cauldron_parquet),
}
