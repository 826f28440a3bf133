"""Counts that say how data came to be: what judges kept of each source, what was excluded, which prompts wrote it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mvl_assets.lake.durability.spill import open_duckdb, stream_table
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.mixtures.mixture_filter import MixtureFilter, fill_mixture_table
from mvl_assets.stages import CATEGORY, CURATION, JUDGED, MIXTURE, REWRITTEN

_SINGLE_TABLES = ("samples", "images", "rejects")
_FAMILIES = (CATEGORY.name, REWRITTEN.name, JUDGED.name, "scored", CURATION.name, MIXTURE.name)


def count_by_license(
    lake: Lake, stages: Iterable[str], mixture_filter: MixtureFilter | None = None
) -> list[dict[str, Any]]:
    """Return for every licence in the mixtures of these stages: license (may be null), sources, rows."""
    with open_duckdb() as con:
        con.execute("CREATE TABLE mixed (source VARCHAR, license VARCHAR)")
        for stage in stages:
            fill_mixture_table(con, lake, stage, ["source", "license"], mixture_filter, name="stage_rows")
            con.execute("INSERT INTO mixed SELECT source, license FROM stage_rows")
            con.execute("DROP TABLE stage_rows")
        counts = con.sql(
            """SELECT license, count(DISTINCT source) AS sources, count(*) AS rows
               FROM mixed GROUP BY license ORDER BY license"""
        ).to_arrow_table()
    return counts.to_pylist()  # type: ignore[no-any-return]


def count_by_language(
    lake: Lake, stages: Iterable[str], mixture_filter: MixtureFilter | None = None
) -> list[dict[str, Any]]:
    """Return for every language of the rows in these mixtures: language (may be null), rows; most frequent first."""
    with open_duckdb() as con:
        con.execute("CREATE TABLE texts (text_id UUID)")
        for stage in stages:
            fill_mixture_table(con, lake, stage, ["sample_id", "rewrite_id"], mixture_filter, name="stage_rows")
            con.execute("INSERT INTO texts SELECT coalesce(rewrite_id, sample_id)::UUID FROM stage_rows")
            con.execute("DROP TABLE stage_rows")
        con.execute("CREATE TABLE wanted AS SELECT text_id, count(*) AS n FROM texts GROUP BY text_id")
        con.execute("CREATE TABLE counts (language VARCHAR, n BIGINT)")
        for family, key in ((CATEGORY.name, "sample_id"), (REWRITTEN.name, "rewrite_id")):
            for name in lake.list_tables(family):
                with stream_table(con, "texts_of_table", lake.get_table(name), [key, "language"]):
                    con.execute(
                        f"""INSERT INTO counts SELECT language, sum(n) FROM texts_of_table t
                            JOIN wanted w ON w.text_id = t.{key}::UUID GROUP BY language"""  # noqa: S608 - of ours
                    )
        counts = con.sql(
            "SELECT language, sum(n)::BIGINT AS rows FROM counts GROUP BY language ORDER BY rows DESC, language"
        ).to_arrow_table()
    return counts.to_pylist()  # type: ignore[no-any-return]


def count_kept_by_source(lake: Lake) -> list[dict[str, Any]]:
    """Return for every judged source: category, source, judged (pairs), kept (of these)."""
    rows = []
    for name in lake.list_tables(JUDGED.name):
        with open_duckdb() as con, stream_table(con, "judged", lake.get_table(name), ["source", "keep"]):
            counts = con.sql(
                """SELECT source, count(*) AS judged, count(*) FILTER (keep) AS kept
                   FROM judged GROUP BY source ORDER BY source"""
            ).to_arrow_table()
        rows += [{"category": name.partition("/")[2], **count} for count in counts.to_pylist()]
    return rows


def count_contaminated(lake: Lake) -> list[dict[str, Any]]:
    """Return for every benchmark and kind of hit: benchmark, kind, samples, left_out (of these, by mixtures)."""
    table = lake.get_table("curation/contamination")
    with open_duckdb() as con, stream_table(con, "hits", table, ["benchmark", "kind", "sample_id", "removed"]):
        counts = con.sql(
            """SELECT benchmark, kind, count(DISTINCT sample_id) AS samples,
                      count(DISTINCT sample_id) FILTER (removed) AS left_out
               FROM hits GROUP BY ALL ORDER BY benchmark, kind"""
        ).to_arrow_table()
    return counts.to_pylist()  # type: ignore[no-any-return]


def count_duplicates_by_rule(lake: Lake) -> list[dict[str, Any]]:
    """Return for every rule by which samples are duplicates: rule, samples."""
    with open_duckdb() as con, stream_table(con, "duplicates", lake.get_table("curation/duplicates"), ["rule"]):
        counts = con.sql(
            "SELECT rule, count(*) AS samples FROM duplicates GROUP BY rule ORDER BY rule"
        ).to_arrow_table()
    return counts.to_pylist()  # type: ignore[no-any-return]


def count_by_prompt(lake: Lake) -> list[dict[str, Any]]:
    """Return for every prompt and model that wrote pairs: prompt, prompt_hash, model, model_revision, pairs."""
    return _count_pairs_by(lake, REWRITTEN.name, ["prompt", "prompt_hash", "model", "model_revision"])


def count_by_judging_prompt(lake: Lake) -> list[dict[str, Any]]:
    """Return for every family, judging prompt and judge: family, prompt_hash, model, model_revision, pairs.

    The hash is over all criteria, as `compute_judging_hash` returns it.
    """
    return _count_pairs_by(lake, JUDGED.name, ["family", "prompt_hash", "model", "model_revision"])


def _count_pairs_by(lake: Lake, stage: str, columns: list[str]) -> list[dict[str, Any]]:
    """Return the values of these columns in all tables of a stage, in order, with the number of their pairs."""
    counts: dict[tuple[str, ...], int] = {}
    for name in lake.list_tables(stage):
        with open_duckdb() as con, stream_table(con, "pairs", lake.get_table(name), columns):
            groups = con.sql(f"SELECT {', '.join(columns)}, count(*) FROM pairs GROUP BY ALL").fetchall()  # noqa: S608 - of ours
        for *key, n_pairs in groups:
            counts[tuple(key)] = counts.get(tuple(key), 0) + n_pairs
    ordered = sorted(counts.items(), key=lambda item: tuple(map(str, item[0])))
    return [{**dict(zip(columns, key, strict=True)), "pairs": n_pairs} for key, n_pairs in ordered]


def list_table_versions(lake: Lake) -> list[dict[str, Any]]:
    """Return name, version and number of rows of every table that mixtures are made of."""
    names = [*_SINGLE_TABLES, *(name for family in _FAMILIES for name in lake.list_tables(family))]
    tables = [lake.get_table(name) for name in names]
    return [
        {"table": name, "version": table.version, "rows": table.count()}
        for name, table in zip(names, tables, strict=True)
        if table.exists()
    ]
