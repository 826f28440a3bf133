"""Tables that a field map in the catalog reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mvl_assets.miniature.layouts.common import Layout, dump, save
from mvl_assets.miniature.rows import RawFile, Row


def tabmwp(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`problems.json`, a dict of id -> problem, and `tables/<id>.png` (the fields of TabMWP's release)."""
    dump(folder / "problems.json", {row.key: dict(row.fields) for row in rows})
    save(folder / "tables", (RawFile(f"{row.key}.png", picture.data) for row in rows for picture in row.pictures))


LAYOUTS = {
    "tabmwp": Layout("records", tabmwp),
}
