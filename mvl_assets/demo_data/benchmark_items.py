"""Small files of the items of benchmarks, in the layout that each is declared with.

Some items are leaks: their images are those of a demo source, stored anew at another size, with its question, so that
the page of `curation/contamination` shows what it is for. The local suite's items are its real ones.
"""

from __future__ import annotations

import io
import string
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mvl_assets.common.atomic_write import replace_dir
from mvl_assets.config.benchmarks import BenchmarkItems, load_benchmarks
from mvl_assets.config.catalog import RecordsMapping
from mvl_assets.demo_data.layouts.common import IMAGE_STRUCT, write_json
from mvl_assets.demo_data.recipes import RECIPES
from mvl_assets.demo_data.rows import RawRow
from mvl_assets.media.image import encode_image
from mvl_assets.media.synthetic_tasks import write_task_data
from mvl_assets.readers.files import DEMO_MARKER_FILE, is_demo_source

LEAKING_SOURCE = "chartqa_cauldron_llava_format"
LOCAL_SUITE = "benchmark_synthetic"
DEMO_BENCHMARKS = ("benchmark_chartqa", LOCAL_SUITE)
"""The benchmarks that the demo has items of."""

N_ITEMS, N_LEAKS = 12, 3
OTHER_SEED = 1000
MARKER_NOTE = "Made by `mvl demo-data`: drawn, and not the real benchmark. Its tasks are not evaluated on it."


def write_demo_benchmarks(raw_root: Path, slugs: Iterable[str], n_rows: int, seed: int = 0) -> list[str]:
    """Write `<raw_root>/<slug>/…` for each benchmark and return those written; files of the user are left alone.

    Args:
        raw_root: Folder of all raw sources.
        slugs: The benchmarks.
        n_rows: Rows of the demo source whose images leak, as it is written.
        seed: The demo source's.
    """
    written = []
    for slug in slugs:
        folder = raw_root / slug
        marker = {"slug": slug, "seed": seed, "rows": n_rows, "note": MARKER_NOTE}
        if folder.is_symlink() or (folder.is_dir() and any(folder.iterdir()) and not is_demo_source(folder)):
            continue
        with replace_dir(folder) as new_dir:
            _write_items(new_dir, load_benchmarks()[slug], n_rows, seed)
            write_json(new_dir / DEMO_MARKER_FILE, marker)
        written.append(slug)
    return written


def _write_items(folder: Path, spec: BenchmarkItems, n_rows: int, seed: int) -> None:
    if spec.slug == LOCAL_SUITE:
        write_task_data(folder)
        return
    assert spec.records is not None
    records = [_build_record(spec.records, row, number) for number, row in enumerate(_draw_rows(n_rows, seed))]
    for name in list_file_names(spec):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            write_json(path, records)
        else:
            pq.write_table(pa.Table.from_pylist(records, schema=_build_schema(spec.records, records)), path)


@lru_cache(maxsize=1)
def _draw_rows(n_rows: int, seed: int) -> list[RawRow]:
    """Return the rows that items are made of: a few of the demo source's own, then others."""
    recipe = RECIPES[LEAKING_SOURCE]
    leaks, others = recipe.build_rows(n_rows, seed), recipe.build_rows(N_ITEMS, seed + OTHER_SEED)
    sound = [[row for row in rows if row.fault is None] for rows in (leaks, others)]
    return [*sound[0][:N_LEAKS], *sound[1][: N_ITEMS - N_LEAKS]]


def list_file_names(spec: BenchmarkItems) -> list[str]:
    """Return the names of one file for each pattern of the hub's, or for each task where it has a file of its own."""
    own_files = [pattern for pattern in spec.tasks.values() if "*" not in pattern]
    patterns = own_files or list(spec.hub.files if spec.hub else ())
    return [pattern.removeprefix("*").replace("-*.", "-00000-of-00001.").lstrip("_") for pattern in patterns]


def _build_record(records: RecordsMapping, row: RawRow, number: int) -> dict[str, Any]:
    """Return a record with the fields that a map reads: question, options, answer, id and image of a row."""
    question, answer = row.turns[0]
    first, *others = _iter_fields(records.question or "")
    record: dict[str, Any] = {first: question, **{name: f"{name} {number}" for name in others}}
    options = [answer, f"not {answer}", "none of these"]
    if records.choices is not None:
        names = [records.choices] if isinstance(records.choices, str) else records.choices
        if len(names) == 1:
            record[names[0]] = options
        else:
            record |= dict(zip(names, [*options, "all of these"], strict=True))
    (answer_field,) = _iter_fields(records.answer or "")
    answers = {"text": answer, "letter": "A", "index": "0", "votes": [answer]}
    record[answer_field] = [answer] if f"{answer_field}.0" in (records.answer or "") else answers[records.answer_is]
    if f"{first}.*" in (records.question or ""):
        record[first] = [question]
    record |= {name: [f"{name} {number}", "other"] for name in others if f"{name}.*" in (records.question or "")}
    record |= {name: "" for name in (records.context, records.hint, records.unit) if name is not None}
    if records.id is not None:
        record[records.id] = str(number)
    if records.image_field is not None:
        fields = [records.image_field] if isinstance(records.image_field, str) else list(records.image_field)
        record |= dict.fromkeys(fields) | {fields[0]: {"bytes": _store_anew(row), "path": f"{number}.png"}}
    return record


def _iter_fields(template: str) -> Iterator[str]:
    """Yield the names of the record's fields in a template, each once."""
    names = [field.split(".")[0] for _, field, _, _ in string.Formatter().parse(template) if field]
    yield from dict.fromkeys(names)


def _store_anew(row: RawRow) -> bytes:
    """Return the row's image at 80 % of its size, as another file."""
    image = Image.open(io.BytesIO(row.images[0].data or b"")).convert("RGB")
    return encode_image(image.resize((round(image.width * 0.8), round(image.height * 0.8))), "PNG")


def _build_schema(records: RecordsMapping, rows: list[dict[str, Any]]) -> pa.Schema:
    image_fields = records.image_field or ()
    names = {image_fields} if isinstance(image_fields, str) else set(image_fields)
    schema = pa.Table.from_pylist([{k: v for k, v in row.items() if k not in names} for row in rows]).schema
    for name in sorted(names):
        schema = schema.append(pa.field(name, IMAGE_STRUCT))
    return schema
