"""Lineage of a row: from a training row back to its verdict, raw answers, prompt, sample and source file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from mvl_assets.lake import sql
from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.removal.id_prefix import build_prefix_filter
from mvl_assets.stages import JUDGED, MIXTURE, REWRITTEN, SCORED

MAX_USES = 20


def trace(lake: Lake, row_id: str) -> dict[str, Any]:
    """Return the lineage of a mixture row, verdict, rewrite, sample version or sample; of an answer or image, its uses.

    Args:
        lake: The lake.
        row_id: The row's id, or an unambiguous prefix of it.

    Returns:
        A dictionary with `table`, `id` and, as far as the row goes back: `mixture` (rows that use it), `judged`,
        `verdicts` (raw judge answers), `is_superseded` (whether another rewrite has replaced it since, as after an
        edit of the prompt; the rewrite is then read from an older version of its table, and missing if `mvl gc` has
        removed that), `rewritten`, `answer` (raw answer of the rewrite), `sample`, its `rewrites` where it is the
        sample that was named, `images` and `rejects`. Of an answer or an image instead: `answer` or `image`, and
        `uses`, the tables and ids of at most `MAX_USES` rows that were made of it or have it.

    Raises:
        LakeError: No row matches, or more than one.
    """
    lake = lake.get_pipeline_lake()
    name, column, full_id = _find_row(lake, row_id.strip().lower())
    if column == "request_key":
        return _trace_answer(lake, name, full_id)
    if column == "image_id":
        return _trace_image(lake, full_id)
    # A sample is traced from its newest version; any other id names one row.
    row = max(lake.get_table(name).iter_rows(None, sql.equals(column, full_id)), key=lambda r: r.get("revision", 1))
    lineage: dict[str, Any] = {"table": name, "id": full_id}
    family = name.split("/", 1)[0]
    if family == SCORED.name:
        lineage["scored"] = row
    if family == "mixture":
        # The same row may be in the mixtures of several arms of studies.
        lineage["mixture"] = list(_iter_mixture_rows(lake, column, full_id))
    if family != "samples":
        _add_rewrite(lake, row["category"], row["rewrite_id"], lineage)
    _add_sample(lake, lineage.get("rewritten", row), lineage)
    if family == "samples":
        lineage["rewrites"] = list(_iter_rewrites(lake, row))
    if "mixture" not in lineage:
        key, value = (
            ("rewrite_id", lineage["rewritten"]["rewrite_id"])
            if "rewritten" in lineage
            else ("sample_id", row["sample_id"])
        )
        lineage["mixture"] = list(_iter_mixture_rows(lake, key, value))
    return lineage


def trace_rewrite(lake: Lake, category: str, rewrite_id: str) -> dict[str, Any]:
    """Return the lineage of a rewrite as `trace` does, without looking for the table that has it.

    Raises:
        LakeError: The rewrite is gone, with the older versions of its table.
    """
    lake = lake.get_pipeline_lake()
    lineage: dict[str, Any] = {"table": REWRITTEN.get_table_name(category), "id": rewrite_id}
    _add_rewrite(lake, category, rewrite_id, lineage)
    if "rewritten" not in lineage:
        raise LakeError(f"the rewrite {rewrite_id} is not in {lineage['table']} any more", hint="reload the page")
    _add_sample(lake, lineage["rewritten"], lineage)
    lineage["mixture"] = list(_iter_mixture_rows(lake, "rewrite_id", rewrite_id))
    return lineage


def _iter_mixture_rows(lake: Lake, column: str, row_id: str) -> Iterator[dict[str, Any]]:
    for name in lake.list_tables_with_arms(MIXTURE.name):
        for row in lake.get_table(name).iter_rows(None, sql.equals(column, row_id)):
            yield {"stage": name.split("/", 1)[1], **row}


def _find_row(lake: Lake, prefix: str) -> tuple[str, str, str]:
    # What rows are made of is looked at only where no row has the id: its tables are many, and larger.
    matches = list(_iter_matches(lake, prefix, _list_row_columns(lake)))
    matches = matches or list(_iter_matches(lake, prefix, _iter_part_columns(lake)))
    if not matches:
        raise LakeError(
            f"nothing in the lake has an id that begins with {prefix}",
            hint="`mvl train-rows STAGE STEP` lists training rows by id; the web UI shows the ids of every table",
        )
    if len(matches) > 1:
        candidates = ", ".join(f"{full_id} in {name}" for name, _, full_id in matches[:4])
        raise LakeError(f"more than one row begins with {prefix}: {candidates}", hint="give more characters")
    return matches[0]


def _iter_matches(lake: Lake, prefix: str, id_columns: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    seen_ids: set[str] = set()
    for name, column in id_columns:
        condition = build_prefix_filter(column, prefix)
        full_ids = {row[column] for row in lake.get_table(name).iter_rows([column], condition)}
        # Mixtures have rows, and so ids, in common with those of arms.
        new_ids = sorted(full_ids - seen_ids) if column == "row_id" else sorted(full_ids)
        seen_ids |= full_ids
        yield from ((name, column, full_id) for full_id in new_ids)


def _list_row_columns(lake: Lake) -> list[tuple[str, str]]:
    return [
        *((n, "row_id") for n in lake.list_tables_with_arms(MIXTURE.name)),
        *((n, "judged_id") for n in lake.list_tables(JUDGED.name)),
        *((n, "scored_id") for n in lake.list_tables(SCORED.name)),
        *((n, "rewrite_id") for n in lake.list_tables(REWRITTEN.name)),
        ("samples", "version_id"),
        ("samples", "sample_id"),
    ]


def _iter_part_columns(lake: Lake) -> Iterator[tuple[str, str]]:
    yield "images", "image_id"
    for stage in (REWRITTEN.name, JUDGED.name, SCORED.name):
        for source in lake.get_table("samples").list_partitions():
            for shard in lake.get_answer_lookup(stage, source).logs:
                yield "/".join(filter(None, ("answers", stage, source, shard))), "request_key"


def _trace_answer(lake: Lake, name: str, request_key: str) -> dict[str, Any]:
    _, stage, source, *_ = name.split("/")
    answer = lake.get_answer_lookup(stage, source).get([request_key])[request_key]
    id_column = {REWRITTEN.name: "rewrite_id", SCORED.name: "scored_id"}.get(stage)
    uses: Iterator[dict[str, Any]] = (
        _iter_judged_uses(lake, source, request_key)
        if id_column is None
        else _iter_uses(lake, stage, id_column, source, sql.equals("request_key", request_key))
    )
    return {"table": name, "id": request_key, "answer": answer, "uses": list(islice(uses, MAX_USES))}


def _trace_image(lake: Lake, image_id: str) -> dict[str, Any]:
    columns = ["image_id", "source", "size", "format", "width", "height"]
    rows = list(lake.get_table("images").iter_rows(columns, sql.equals("image_id", image_id)))
    condition = f"array_has(image_ids, {sql.format_literal(image_id)})"
    uses = (
        {"table": "samples", "id": row["version_id"]}
        for source in sorted(row["source"] for row in rows)
        for row in lake.get_table("samples").iter_rows(["version_id"], condition, partition_key=source)
    )
    return {"table": "images", "id": image_id, "image": rows[0], "uses": list(islice(uses, MAX_USES))}


def _iter_uses(lake: Lake, family: str, id_column: str, source: str, condition: str) -> Iterator[dict[str, Any]]:
    for name in lake.list_tables(family):
        for row in lake.get_table(name).iter_rows([id_column], condition, partition_key=source):
            yield {"table": name, "id": row[id_column]}


def _iter_judged_uses(lake: Lake, source: str, request_key: str) -> Iterator[dict[str, Any]]:
    columns = ["judged_id", "verdicts", "panel"]
    for name in lake.list_tables(JUDGED.name):
        for row in lake.get_table(name).iter_rows(columns, partition_key=source):
            if request_key in list_request_keys(row):
                yield {"table": name, "id": row["judged_id"]}


def _add_rewrite(lake: Lake, category: str, rewrite_id: str | None, lineage: dict[str, Any]) -> None:
    if rewrite_id is None:
        return
    rewrite_filter = sql.equals("rewrite_id", rewrite_id)
    rewrite, is_current = lake.get_table(REWRITTEN.get_table_name(category)).find_latest_match(rewrite_filter)
    lineage["is_superseded"] = not is_current
    if rewrite is None:
        return
    lineage["rewritten"] = rewrite
    lineage["answer"] = (
        lake.get_answer_lookup(REWRITTEN.name, rewrite["source"])
        .get([rewrite["request_key"]])
        .get(rewrite["request_key"])
    )
    judged, _ = lake.get_table(JUDGED.get_table_name(category)).find_latest_match(rewrite_filter)
    if judged is not None:
        lineage["judged"] = judged
        answers = lake.get_answer_lookup(JUDGED.name, rewrite["source"]).get(list_request_keys(judged))
        lineage["verdicts"] = list(answers.values())


def list_request_keys(judged: Mapping[str, Any]) -> list[str]:
    """Return the requests that judged a row, those of the panel and of further votes included.

    Args:
        judged: Its columns `verdicts` and `panel`.
    """
    all_verdicts = [judged["verdicts"], *(member["verdicts"] for member in judged["panel"] or ())]
    return [
        key
        for verdicts in all_verdicts
        for verdict in verdicts or ()
        for key in (verdict["request_key"], *(verdict["vote_keys"] or ()))
    ]


def _iter_rewrites(lake: Lake, sample: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the id of each rewrite of a version and whether it is kept, None where it is not judged."""
    condition = sql.equals("version_id", sample["version_id"])
    for name in lake.list_tables(REWRITTEN.name):
        rewrites = list(lake.get_table(name).iter_rows(["rewrite_id"], condition, partition_key=sample["source"]))
        if not rewrites:
            continue
        judged = lake.get_table(JUDGED.get_table_name(name.split("/", 1)[1]))
        verdicts = judged.iter_rows(
            ["rewrite_id", "keep"], sql.equals("sample_id", sample["sample_id"]), partition_key=sample["source"]
        )
        kept_by_id = {row["rewrite_id"]: row["keep"] for row in verdicts}
        yield from ({**row, "keep": kept_by_id.get(row["rewrite_id"])} for row in rewrites)


def _add_sample(lake: Lake, row: dict[str, Any], lineage: dict[str, Any]) -> None:
    if "version_id" in row:
        condition = sql.equals("version_id", row["version_id"])
    else:  # a verdict on a rewrite that has been superseded
        condition = sql.equals("sample_id", row["sample_id"])
    # One row is found by a filter: an index would read the keys of the whole source first.
    versions = lake.get_table("samples").iter_rows(None, condition, partition_key=row["source"])
    sample = max(versions, key=lambda r: r["revision"])
    lineage["sample"] = sample
    lineage["images"] = [
        {"image_id": image_id, **properties}
        for image_id, properties in zip(sample["image_ids"] or [], sample["image_properties"] or [], strict=True)
    ]
    lineage["rejects"] = list(lake.get_table("rejects").iter_rows(None, sql.equals("row_key", sample["sample_id"])))
