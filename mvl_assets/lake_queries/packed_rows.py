"""Rows with their images as rows of a table `packed_rows/<stage>`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lance
import pyarrow as pa

from mvl_assets.lake.schemas.training_tables import PACKED_ROWS

IMAGE_BYTES_COLUMN = "image_bytes"


def build_packed_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows, given as dictionaries, as a table; what a dictionary lacks is null."""
    columns = {
        field.name: pa.array([row.get(field.name) for row in rows], field.type)
        for field in PACKED_ROWS.columns
        if field.name != IMAGE_BYTES_COLUMN
    }
    blobs = lance.blob_array([row[IMAGE_BYTES_COLUMN] for row in rows])
    return pa.table({**columns, IMAGE_BYTES_COLUMN: blobs}, schema=PACKED_ROWS.columns)
