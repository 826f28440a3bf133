"""Rows for every table, made from small numbers, so that a test names only what it is about."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.image_properties import ImageProperties
from mvl_assets.common.sample_facts import FlatConversations, build_fact_columns
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CATEGORY, JUDGED, REWRITTEN, SAMPLES
from mvl_assets.lake.schemas.rows import Answer, ImageRow
from mvl_assets.lake.schemas.table_spec import TableSpec
from mvl_assets.lake.schemas.training_tables import MIXTURE
from mvl_assets.lake.table import Table

LONG_AGO = dt.datetime(2024, 12, 6, tzinfo=dt.UTC)


def table_of(spec: TableSpec, rows: Iterable[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=spec.columns)


def answer(number: int, text: str | None = None) -> Answer:
    return Answer(
        request_key=compute_digest("request", number),
        source="drawn",
        stage="rewrite",
        model="model",
        model_revision="1",
        prompt="general",
        prompt_hash=compute_digest("prompt"),
        text=f"text {number}" if text is None else text,
        finish_reason="stop",
        prompt_tokens=10,
        completion_tokens=5,
        first_token_logprobs=None,
        latency_s=0.5,
        attempts=1,
        run_id="run",
        created_at=LONG_AGO,
    )


def make_image(number: int, size: int = 100) -> ImageRow:
    data = random.Random(number).randbytes(size)
    return ImageRow(compute_digest(data), data, "PNG", 32, 24, 1, "RGB", f"{number:016x}")


def sample(
    source: str, number: int, *, revision: int = 1, pictures: Sequence[ImageRow] = (), **said: Any
) -> dict[str, Any]:
    """One row of `samples`; `question`, `answer` and any column may be given."""
    sample_id = compute_digest(source, number)
    question, reply = said.pop("question", f"what is {source} {number}?"), said.pop("answer", f"it is {number}")
    row = {
        "version_id": compute_digest(sample_id, revision),
        "sample_id": sample_id,
        "source": source,
        "revision": revision,
        "withdrawn": False,
        "native_id": str(number),
        "file": "rows.json",
        "position": number,
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": reply}],
        "image_ids": [picture.image_id for picture in pictures],
        "run_id": "run",
    } | said
    content = {name: row.get(name) for name in ("conversations", "image_ids", "video", "license")}
    return build_facts(row, pictures) | {"content_hash": compute_digest(content)} | row


def build_facts(of: dict[str, Any], pictures: Sequence[ImageRow] = ()) -> dict[str, Any]:
    """The columns that ingest would add to a row of `samples`; images that are not given are 32 x 24 pixels."""
    image_ids = of["image_ids"] or []
    properties = dict.fromkeys(image_ids, ImageProperties(100, "PNG", 32, 24, 1, "RGB", None))
    properties |= {picture.image_id: picture.properties for picture in pictures}
    names = [None] * len(image_ids)
    turns = of["conversations"]
    said = FlatConversations([len(turns)], [turn["from"] for turn in turns], [turn["value"] for turn in turns])
    facts = build_fact_columns([of["sample_id"]], said, [image_ids], [names], properties)
    return {name: pa.array(column)[0].as_py() for name, column in facts.items()}


def category_row(of: dict[str, Any], category: str, **changed: Any) -> dict[str, Any]:
    """The row of `category/<c>` for a sample."""
    pictures = of["image_ids"]
    return {
        "sample_id": of["sample_id"],
        "version_id": of["version_id"],
        "source": of["source"],
        "category": category,
        "group": "B",
        "modality": "single_image",
        "image_group_id": pictures[0] if pictures else of["sample_id"],
        "holdout_hash": of["holdout_hash"],
        "n_images": len(pictures),
        "n_turns": 2,
        "n_chars": 10,
        "run_id": "run",
    } | changed


def rewrite(of: dict[str, Any], category: str, ordinal: int = 0) -> dict[str, Any]:
    return {
        "rewrite_id": compute_digest(of["version_id"], "request", ordinal),
        "sample_id": of["sample_id"],
        "version_id": of["version_id"],
        "source": of["source"],
        "category": category,
        "ordinal": ordinal,
        "conversations": [{"from": "human", "value": "why?"}, {"from": "gpt", "value": f"because {ordinal}"}],
        "run_id": "run",
    }


def judgement(of: dict[str, Any], keep: bool) -> dict[str, Any]:
    return {
        "judged_id": compute_digest(of["rewrite_id"], "judge"),
        "rewrite_id": of["rewrite_id"],
        "sample_id": of["sample_id"],
        "source": of["source"],
        "category": of["category"],
        "keep": keep,
        "run_id": "run",
    }


def put(lake: Lake, name: str, spec: TableSpec, rows: Sequence[dict[str, Any]], source: str | None = None) -> None:
    lake.get_table(name).publish([table_of(spec, rows)], source)


def put_samples(lake: Lake, source: str, rows: Sequence[dict[str, Any]]) -> None:
    put(lake, "samples", SAMPLES, rows, source)


def put_category(
    lake: Lake, category: str, source: str, count: int, *, rewritten: int = 0, dropped: int = 0
) -> list[dict[str, Any]]:
    """`count` samples of a source in a category; the first `rewritten` have a kept rewrite, the next `dropped` one that
    the judge refused. Returns the samples."""
    rows = [sample(source, n) for n in range(count)]
    put_samples(lake, source, rows)
    put(lake, f"category/{category}", CATEGORY, [category_row(r, category) for r in rows], source)
    made = [rewrite(r, category) for r in rows[: rewritten + dropped]]
    if made:
        put(lake, f"rewritten/{category}", REWRITTEN, made, source)
        verdicts = [judgement(r, keep=n < rewritten) for n, r in enumerate(made)]
        put(lake, f"judged/{category}", JUDGED, verdicts, source)
    return rows


def mixture(count: int, name: str = "row") -> pa.Table:
    return table_of(
        MIXTURE, ({"row_id": compute_digest(name, n), "position": n, "kind": "original"} for n in range(count))
    )


def pages(source: str, who: str, numbers: Iterable[int]) -> pa.Table:
    """Rows of `category/<c>` that only differ in what `who` says."""
    return table_of(
        CATEGORY,
        (
            {
                "sample_id": compute_digest(source, n),
                "version_id": compute_digest(who, n),
                "source": source,
                "license": who,
            }
            for n in numbers
        ),
    )


def duplicates(table: Table) -> int:
    """Rows beyond the first of each key."""
    keys = Counter(row[table.spec.key_column] for row in table.iter_rows([table.spec.key_column]))
    return keys.total() - len(keys)


def newest_manifest(table: Table) -> Path:
    """Where Lance keeps the newest version of a local table: names count down, so it is the first."""
    return min((Path(table.uri) / "_versions").glob("*.manifest"))
