"""Exports outside the export folder: copies of the lake's rows that a purge cannot reach and has to name."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import RECORDED_EXPORTS


@dataclass(frozen=True, slots=True)
class RecordedExport:
    """An export: the folder or address it was written to, its format, and when it was first written there."""

    location: str
    format: str
    created_at: dt.datetime


def record_export(lake: Lake, location: str, formats: Iterable[str]) -> None:
    """Remember that rows of the lake are written to a place, before they are."""
    created_at = dt.datetime.now(dt.UTC)
    rows = [
        {
            "export_id": compute_digest(location, format_),
            "location": location,
            "format": format_,
            "created_at": created_at,
        }
        for format_ in formats
    ]
    lake.get_table(RECORDED_EXPORTS.name).insert(pa.Table.from_pylist(rows, schema=RECORDED_EXPORTS.columns))


def list_recorded_exports(lake: Lake) -> list[RecordedExport]:
    """Return all of them by place and format, whether they are still there or not."""
    rows = lake.get_table(RECORDED_EXPORTS.name).iter_rows(["location", "format", "created_at"])
    return sorted((RecordedExport(**row) for row in rows), key=lambda export: (export.location, export.format))
