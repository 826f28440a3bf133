"""Small raw data sets for tests of readers and ingest, built from the formats' public descriptions."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mvl_assets.config.catalog import RecordsMapping, SourceSpec
from mvl_assets.readers.registry import get_key_reader, get_reader
from mvl_assets.readers.sample import RejectedRow, Sample

TABMWP = RecordsMapping(
    files="problems.json",
    shape="dict_of_id",
    question="{question}",
    answer="{answer}",
    choices="choices",
    unit="unit",
    images=("tables/{id}.png",),
)


def source(format: str, records: RecordsMapping | None = None, **fields: Any) -> SourceSpec:
    values: dict[str, Any] = {"category": "general", "group": "A", "modality": None, **fields}
    return SourceSpec(slug="demo", title="Demo", format=format, records=records, **values)  # type: ignore[arg-type]


def make_image(colour: int = 0, size: tuple[int, int] = (240, 240), format: str = "PNG") -> bytes:
    """A picture whose bytes differ by colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (colour % 256, colour // 256, 77)).save(buffer, format)
    return buffer.getvalue()


def put(root: Path, name: str, data: bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def put_json(root: Path, name: str, value: object) -> None:
    put(root, name, json.dumps(value).encode())


def talk(question: str, answer: str, style: str = "from") -> list[dict[str, Any]]:
    """One question and answer in a key style: `from`, `role`, or `both` (all four keys, two of them null)."""
    if style == "from":
        return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [{**t, "from": None, "value": None} for t in turns] if style == "both" else turns


def put_parquet(root: Path, name: str, rows: Iterable[Mapping[str, Any]], schema: pa.Schema | None = None) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path, row_group_size=2)


def read_all(spec: SourceSpec, root: Path) -> list[Sample | RejectedRow]:
    return list(get_reader(spec.format)(spec, root))


def good(rows: Iterable[Sample | RejectedRow]) -> list[Sample]:
    return [row for row in rows if isinstance(row, Sample)]


def errors(rows: Iterable[Sample | RejectedRow]) -> list[tuple[int, str]]:
    """(position, error class) of the broken rows."""
    return [(row.position, row.error) for row in rows if isinstance(row, RejectedRow)]


def list_turns(sample: Sample) -> list[tuple[str, str]]:
    return [(turn.role, turn.value) for turn in sample.turns]


def messages(rows: Sequence[Sample | RejectedRow]) -> list[str]:
    return [row.message for row in rows if isinstance(row, RejectedRow)]


def keyed(spec: SourceSpec, root: Path) -> None:
    """The keys name exactly the rows that are read, but for the ends of broken files; rows may change processes."""
    read = read_all(spec, root)
    assert pickle.loads(pickle.dumps(read)) == read
    ends = {(row.file, row.position) for row in read if isinstance(row, RejectedRow) and row.error == "broken_file"}
    rows = [(row.file, row.position, row.native_id) for row in read if (row.file, row.position) not in ends]
    assert [key for key in get_key_reader(spec.format)(spec, root) if key[:2] not in ends] == rows
