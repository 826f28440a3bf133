"""Helpers of the layout writers: a layout's type, files, parquet shards, conversations, image cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mvl_assets.config.catalog import get_source
from mvl_assets.demo_data.rows import RawFile, RawRow

IMAGE_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass(frozen=True, slots=True)
class SourceLayout:
    """A folder layout of the catalog's `format`. `write_source` is `(folder, slug, rows) -> None`.

    Rows keep their order, and invalid rows are written among the valid ones.
    """

    format: str
    write_source: Callable[[Path, str, Sequence[RawRow]], None]


def resolve_config_name(slug: str) -> str:
    """Return what the source is called inside its repository: the config of its `hub` entry, or its slug."""
    hub = get_source(slug).hub
    return slug if hub is None or hub.config is None else hub.config


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def write_files(folder: Path, files: Iterable[RawFile]) -> None:
    """Write the files that exist; rows may share one."""
    for file in files:
        path = folder / file.name
        if file.data is not None and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.data)


def write_parquet_shards(folder: Path, records: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write two parquet files named as the hub names them."""
    folder.mkdir(parents=True)
    half_size = (len(records) + 1) // 2
    for number, shard_records in enumerate((records[:half_size], records[half_size:])):
        pq.write_table(
            pa.Table.from_pylist(list(shard_records), schema=schema), folder / f"train-{number:05d}-of-00002.parquet"
        )


def build_conversation(row: RawRow) -> list[dict[str, str]]:
    """Return turns {from, value} with the markers in the first question; applies the faults of the text."""
    markers = "<image>\n" * len(row.images) if row.video is None else "<image>\n"
    if row.fault == "marker_mismatch":
        markers += "<image>\n"
    turns: list[dict[str, str]] = []
    for number, (question, answer) in enumerate(row.turns):
        turns.append({"from": "human", "value": (markers if number == 0 else "") + question})
        turns.append({"from": "gpt", "value": answer})
    if row.fault == "swapped_roles":
        swapped_roles = {"human": "gpt", "gpt": "human"}
        turns = [{"from": swapped_roles[turn["from"]], "value": turn["value"]} for turn in turns]
    if row.fault == "no_answer":
        turns = turns[:1]
    if row.fault == "unknown_role":
        turns[-1]["from"] = "narrator"
    return turns


def build_image_cell(image: RawFile) -> dict[str, Any]:
    """Return {bytes, path}; a missing image has a path without bytes, as in rows exported without their files."""
    return {"bytes": image.data, "path": image.name}
