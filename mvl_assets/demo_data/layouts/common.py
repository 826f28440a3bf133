"""What the writers of several formats share: a layout's type, files, parquet shards, conversations, picture cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mvl_assets.config.catalog import source_named
from mvl_assets.demo_data.rows import RawFile, Row

BYTES = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass(frozen=True, slots=True)
class Layout:
    """A folder layout of the catalog's `format`. `write` is `(folder, slug, rows) -> None`.

    Rows keep their order, and broken rows are written among the good ones.
    """

    format: str
    write: Callable[[Path, str, Sequence[Row]], None]


def config_of(name: str) -> str:
    """What the source is called inside its repository: the config of its `hub` entry, or its slug."""
    hub = source_named(name).hub
    return name if hub is None or hub.config is None else hub.config


def dump(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def save(folder: Path, files: Iterable[RawFile]) -> None:
    """Write the files that exist; rows may share one."""
    for file in files:
        path = folder / file.name
        if file.data is not None and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.data)


def shards(folder: Path, records: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Two parquet files named as the hub names them."""
    folder.mkdir(parents=True)
    half = (len(records) + 1) // 2
    for number, part in enumerate((records[:half], records[half:])):
        pq.write_table(pa.Table.from_pylist(list(part), schema=schema), folder / f"train-{number:05d}-of-00002.parquet")


def conversation(row: Row) -> list[dict[str, str]]:
    """Turns {from, value}, the markers in the first question; faults of the text are made here."""
    markers = "<image>\n" * len(row.pictures) if row.video is None else "<image>\n"
    if row.fault == "marker_mismatch":
        markers += "<image>\n"
    turns: list[dict[str, str]] = []
    for number, (asked, answer) in enumerate(row.turns):
        turns.append({"from": "human", "value": (markers if number == 0 else "") + asked})
        turns.append({"from": "gpt", "value": answer})
    if row.fault == "swapped_roles":
        other = {"human": "gpt", "gpt": "human"}
        turns = [{"from": other[turn["from"]], "value": turn["value"]} for turn in turns]
    if row.fault == "no_answer":
        turns = turns[:1]
    if row.fault == "unknown_role":
        turns[-1]["from"] = "narrator"
    return turns


def cell(picture: RawFile) -> dict[str, Any]:
    """A missing picture is a path without bytes, as rows have it that were exported without their files."""
    return {"bytes": picture.data, "path": picture.name}
