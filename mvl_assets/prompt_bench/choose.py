"""The few rows that a prompt is tried on: the same ones every time, so that rounds can be compared."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.errors import SourceError
from mvl_assets.fetch.overview import format_missing_hint
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.removal.id_prefix import build_prefix_filter
from mvl_assets.stages import CATEGORY, RAW, REWRITTEN, Stage

_REWRITE_COLUMNS = ["rewrite_id", "sample_id", "version_id", "ordinal", "conversations"]


def choose_samples(
    lake: Lake, source: SourceSpec, n_rows: int, seed: int = 0, id_prefixes: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return `sample_id` and `version_id` of a few samples, by hash.

    Args:
        lake: The lake.
        source: The source.
        n_rows: How many; a larger number contains a smaller one.
        seed: Another one chooses others; 0 takes the samples that a limit takes.
        id_prefixes: Beginnings of sample ids; if there are any, only these samples.

    Raises:
        SourceError: The lake has no rows of the source, or none with such an id.
    """
    return _choose_rows(lake, source, CATEGORY, ["sample_id", "version_id"], n_rows, seed, id_prefixes)


def choose_rewrites(
    lake: Lake, source: SourceSpec, n_rows: int, seed: int = 0, id_prefixes: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return a few rows of `rewritten/<category>`, those of the samples that `choose_samples` returns first.

    Args:
        lake: The lake.
        source: The source.
        n_rows: How many.
        seed: See `choose_samples`.
        id_prefixes: Beginnings of ids of samples or rewrites; if there are any, only these.

    Raises:
        SourceError: The lake has no rewrites of the source, or none with such an id.
    """
    return _choose_rows(lake, source, REWRITTEN, _REWRITE_COLUMNS, n_rows, seed, id_prefixes)


def _choose_rows(
    lake: Lake,
    source: SourceSpec,
    stage: Stage,
    columns: list[str],
    n_rows: int,
    seed: int,
    id_prefixes: Sequence[str],
) -> list[dict[str, Any]]:
    table = lake.get_table(stage.get_table_name(source.category))
    id_columns = [column for column in ("sample_id", "rewrite_id") if column in columns]
    condition = " OR ".join(build_prefix_filter(column, prefix) for prefix in id_prefixes for column in id_columns)

    def get_rank(row: dict[str, Any]) -> tuple[str, int]:
        sample_id = row["sample_id"]
        return compute_digest(seed, sample_id) if seed else sample_id, row.get("ordinal", 0)

    rows = table.iter_rows(columns, condition or None, partition_key=source.slug)
    chosen = heapq.nsmallest(n_rows, rows, key=get_rank)
    if not chosen:
        if id_prefixes and table.count(partition_key=source.slug):
            raise SourceError(
                source.slug,
                f"no row of {stage.name}/{source.category} has an id that begins with {', '.join(id_prefixes)}",
                hint=f"leave --ids out; `mvl try rewrite --source {source.slug}` shows ids",
            )
        raise SourceError(
            source.slug,
            f"the lake has no rows of it in {stage.name}/{source.category}",
            hint=_format_hint(lake, source, stage),
        )
    return chosen


def _format_hint(lake: Lake, source: SourceSpec, stage: Stage) -> str:
    command = f"`mvl run --source {source.slug} --until {stage.name}` makes them"
    if lake.get_table(RAW.get_table_name(source.slug)).count(partition_key=source.slug) or source.root.is_dir():
        return command
    return f"it has no files either: {format_missing_hint(source)}; then {command}"
