"""Building the index of pairs, judged or not: every table that says something about a pair is read once.

The file never changes afterwards. Its name is the digest of the versions of all tables that it was made from, so that
the next process opens it at once, and a lake that has changed gets another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.durability.spill import open_duckdb, stream_batches
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.pair_index.columns import FACET_COLUMNS, MAX_FACET_VALUES
from mvl_assets.stages import CATEGORY, JUDGED, MIXTURE, REWRITTEN, SCORED, SCORES

if TYPE_CHECKING:
    import duckdb

FORMAT_VERSION = 3
"""Goes up when the columns or their meaning change: files of another version are not opened."""

SCAN_BATCH_ROWS = 32_768
MAX_SCORE_COLUMNS = 64
"""Criteria, and scores of one `scores/<name>`, that get columns."""
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_CURATION_TABLES = ("curation/duplicates", "curation/contamination")
_FAMILIES = (JUDGED.name, REWRITTEN.name, CATEGORY.name, SCORED.name, SCORES.name, MIXTURE.name)

_INSERT = """
INSERT INTO pairs
SELECT $first + row_number() OVER (ORDER BY j._rowaddr NULLS LAST, r.address) - 1,
       coalesce(j.judged_id::UUID, r.rewrite_id), coalesce(j.rewrite_id::UUID, r.rewrite_id),
       coalesce(j.sample_id::UUID, r.sample_id), r.version_id, j._rowaddr, r.address, NULL,
       $category, coalesce(j.source, r.source), coalesce(j.family, r.family), j.keep, j.drop_reason, j.keep_rule,
       j.p_yes, j.all_yes, j.matches_reference,
       CASE WHEN j.judged_id IS NULL THEN 'not judged'
            WHEN j.matches_reference IS NULL THEN 'no reference, judge ' || if(j.all_yes, 'yes', 'no')
            WHEN j.matches_reference AND j.all_yes THEN 'both yes'
            WHEN j.matches_reference THEN 'judge no, reference yes'
            WHEN j.all_yes THEN 'judge yes, reference no'
            ELSE 'both no' END,
       -- `verdicts` are the first judge's, `panel` those of the others: null where one gave none.
       if(len([p for p in j.panel if p.all_yes IS NOT NULL]) > 0,
          len(list_distinct(list_append([p.all_yes for p in j.panel],
                                        len([v for v in j.verdicts if NOT v.verdict]) = 0))) = 1, NULL),
       nullif(array_to_string(list_sort([v.criterion for v in j.verdicts if NOT v.verdict]), ', '), ''),
       j.model, r.model, r.prompt, r.prompt_hash, r.blind, r.task_type, r.answer_chars,
       c.modality, c.license, c.n_chars, c.n_images,
       CASE WHEN c.holdout_hash < $holdout_limit THEN 'held out' WHEN c.holdout_hash IS NOT NULL THEN 'training' END,
       s.content, s.relevance, m.stages, d.rule, b.benchmark, r.language, j.needs_image, c.n_tiles, c.sharpness,
       r.type_token_ratio, c.answer_chars, [{'criterion': v.criterion, 'p_yes': v.p_yes} for v in j.verdicts]
FROM judged j
FULL JOIN rewritten r ON r.rewrite_id = j.rewrite_id::UUID
LEFT JOIN categorised c ON c.sample_id = coalesce(j.sample_id::UUID, r.sample_id)
LEFT JOIN scores s ON s.rewrite_id = coalesce(j.rewrite_id::UUID, r.rewrite_id)
LEFT JOIN mixed m ON m.judged_id = j.judged_id::UUID
LEFT JOIN duplicates d ON d.sample_id = coalesce(j.sample_id::UUID, r.sample_id)
LEFT JOIN hits b ON b.sample_id = coalesce(j.sample_id::UUID, r.sample_id)
ORDER BY j._rowaddr NULLS LAST, r.address
"""

_CREATE = """
CREATE TABLE pairs (
  ordinal INTEGER, judged_id UUID, rewrite_id UUID, sample_id UUID, version_id UUID,
  judged_address UBIGINT, rewrite_address UBIGINT, sample_address UBIGINT,
  category VARCHAR, source VARCHAR, family VARCHAR, keep BOOLEAN, drop_reason VARCHAR, keep_rule VARCHAR, p_yes DOUBLE,
  all_yes BOOLEAN, matches_reference BOOLEAN, agreement VARCHAR, judges_agree BOOLEAN, failed_criteria VARCHAR,
  judge_model VARCHAR, model VARCHAR, prompt VARCHAR, prompt_hash VARCHAR, blind BOOLEAN, task_type VARCHAR,
  answer_chars BIGINT, modality VARCHAR, license VARCHAR, original_chars BIGINT, n_images INTEGER, split VARCHAR,
  content_score TINYINT, relevance_score TINYINT, mixtures VARCHAR, duplicate VARCHAR, contaminated VARCHAR,
  language VARCHAR, needs_image BOOLEAN, n_tiles INTEGER, sharpness FLOAT, type_token_ratio FLOAT,
  original_answer_chars BIGINT,
  verdicts STRUCT(criterion VARCHAR, p_yes DOUBLE)[])
"""


_COUNT_CATEGORY = """
INSERT INTO category_counts
SELECT $category, count(*) FILTER ("group" = 'A'), count(*) FILTER ("group" = 'B') FROM categorised
"""


def read_table_versions(lake: Lake) -> dict[str, int]:
    """Return the newest versions of the tables that the index is made from, by name."""
    names = [name for family in _FAMILIES for name in lake.list_tables(family)]
    versions = {name: lake.get_table(name).version for name in ("samples", *names, *_CURATION_TABLES)}
    return {name: version for name, version in versions.items() if version}


def build_file_name(lake: Lake, versions: Mapping[str, int], holdout_limit: int) -> str:
    """Return the name of the index of these versions."""
    content = [lake.root, FORMAT_VERSION, holdout_limit, *(f"{n}@{v}" for n, v in sorted(versions.items()))]
    return f"pairs-{compute_digest(*content)}.duckdb"


def build_pair_index(lake: Lake, versions: Mapping[str, int], holdout_limit: int, path: Path) -> None:
    """Write the index of these versions. A process that dies leaves nothing that another one would open.

    Args:
        lake: The lake.
        versions: Of `read_table_versions`.
        holdout_limit: Samples with a smaller `holdout_hash` are held out.
        path: The file.
    """
    with open_duckdb() as con:
        # DuckDB may choose the side of a join that it holds: streams are read into tables first.
        con.execute("RESET disabled_optimizers")
        _read_small_tables(con, lake, versions)
        con.execute(_CREATE)
        con.execute("CREATE TABLE category_counts (category VARCHAR, n_as_is BIGINT, n_rewritable BIGINT)")
        n_rows = 0
        families = (JUDGED.name, REWRITTEN.name)
        for category in sorted({c for f, _, c in (name.partition("/") for name in versions) if f in families}):
            _insert_category(con, lake, versions, category, n_rows, holdout_limit)
            ((n_rows,),) = con.execute("SELECT count(*) FROM pairs").fetchall()
        _count_other_categories(con, lake, versions)
        _add_sample_addresses(con, lake, versions)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path = path.with_suffix(".partial")
        partial_path.unlink(missing_ok=True)
        con.execute("ATTACH '" + str(partial_path).replace("'", "''") + "' AS target")
        columns = [*_list_criterion_columns(con), *_read_foreign_scores(con, lake, versions)]
        values = "".join(f', {column.sql} AS "{column.name}"' for column in columns)
        joins = "".join(
            f' LEFT JOIN "{table}" USING (sample_id)' for table in dict.fromkeys(c.table for c in columns) if table
        )
        con.execute(
            f"""CREATE TABLE target.pairs AS
                SELECT p.* EXCLUDE (verdicts) REPLACE (a.address AS sample_address) {values}
                FROM pairs p LEFT JOIN sample_addresses a ON a.version_id = p.version_id {joins}
                ORDER BY ordinal"""  # noqa: S608 - names that were checked
        )
        con.execute("CREATE TABLE target.number_columns (name VARCHAR, heading VARCHAR)")
        for number_name, heading in (number for column in columns for number in column.numbers.items()):
            con.execute("INSERT INTO target.number_columns VALUES (?, ?)", [number_name, heading])
        con.execute("CREATE TABLE target.category_counts AS FROM category_counts")
        _count_facets(con)
        con.execute("CREATE TABLE target.table_versions (name VARCHAR, version BIGINT)")
        if versions:
            con.executemany("INSERT INTO target.table_versions VALUES (?, ?)", list(versions.items()))
        con.execute("DETACH target")
        partial_path.replace(path)


class _ScoreColumn(NamedTuple):
    """A column that not every lake has.

    Attributes:
        name: Its name.
        sql: Its value.
        numbers: What of it has a range, with headings.
        table: The table with it, to be joined by `sample_id`; empty for `pairs` itself.
    """

    name: str
    sql: str
    numbers: Mapping[str, str]
    table: str = ""


def _list_criterion_columns(con: duckdb.DuckDBPyConnection) -> list[_ScoreColumn]:
    criteria = con.execute("SELECT DISTINCT unnest(verdicts).criterion AS name FROM pairs ORDER BY name").fetchall()
    return [
        _ScoreColumn(
            f"p_yes_{criterion}",
            f"[v.p_yes for v in p.verdicts if v.criterion = '{criterion}'][1]",
            {f"p_yes_{criterion}": f"P(yes), {criterion}"},
        )
        for (criterion,) in criteria[:MAX_SCORE_COLUMNS]
        if _WORD.fullmatch(criterion or "")
    ]


def _read_foreign_scores(con: duckdb.DuckDBPyConnection, lake: Lake, versions: Mapping[str, int]) -> list[_ScoreColumn]:
    """Create a table for each `scores/<name>`, and return its column: a struct, for conditions as in `where`."""
    columns = []
    for table_name in (name for name in versions if name.startswith(f"{SCORES.name}/")):
        name = table_name.partition("/")[2]
        statement = f'CREATE TABLE "foreign_{name}" AS SELECT sample_id::UUID AS sample_id, scores FROM stream'  # noqa: S608 - a name
        _create(con, lake, versions, table_name, ["sample_id", "scores"], statement)
        counts = con.execute(
            f"""SELECT s.name, count(s.number) > 0, count(s."boolean") > 0
                FROM (SELECT unnest(scores) AS s FROM "foreign_{name}") GROUP BY s.name ORDER BY s.name"""  # noqa: S608 - a name
        ).fetchall()
        types = {
            score: "number" if is_number else "boolean" if is_boolean else "text"
            for score, is_number, is_boolean in counts[:MAX_SCORE_COLUMNS]
        }
        values = ", ".join(
            f"""\"{score}\" := [s.\"{type_}\" for s in \"foreign_{name}\".scores if s.name = '{score}'][1]"""
            for score, type_ in types.items()
        )
        numbers = {f"{name}.{score}": f"{name}: {score}" for score, type_ in types.items() if type_ == "number"}
        if values:
            columns.append(_ScoreColumn(name, f"struct_pack({values})", numbers, f"foreign_{name}"))
    return columns


def _insert_category(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    versions: Mapping[str, int],
    category: str,
    first: int,
    holdout_limit: int,
) -> None:
    columns = ["rewrite_id", "version_id", "prompt", "prompt_hash", "model", "blind", "task_type", "conversations"]
    columns += ["sample_id", "source", "family", "language", "type_token_ratio"]
    _create(
        con,
        lake,
        versions,
        REWRITTEN.get_table_name(category),
        columns,
        """CREATE OR REPLACE TABLE rewritten AS
           SELECT rewrite_id::UUID AS rewrite_id, version_id::UUID AS version_id, _rowaddr AS address, prompt,
                  prompt_hash, model, blind, task_type, sample_id::UUID AS sample_id, source, family, language,
                  type_token_ratio,
                  list_sum([len(t.value) for t in conversations if t."from" = 'gpt'])::BIGINT AS answer_chars
           FROM stream""",
    )
    columns = ["sample_id", "modality", "license", "n_chars", "n_images", "holdout_hash", "n_tiles", "sharpness"]
    columns += ["answer_chars", "group"]
    _create(
        con,
        lake,
        versions,
        CATEGORY.get_table_name(category),
        columns,
        """CREATE OR REPLACE TABLE categorised AS SELECT * REPLACE (sample_id::UUID AS sample_id) FROM stream""",
    )
    _create(
        con,
        lake,
        versions,
        SCORED.get_table_name(category),
        ["rewrite_id", "content", "relevance"],
        """CREATE OR REPLACE TABLE scores AS
           SELECT rewrite_id::UUID AS rewrite_id, min(content) AS content, min(relevance) AS relevance FROM stream
           WHERE rewrite_id IS NOT NULL GROUP BY ALL""",
    )
    columns = ["judged_id", "rewrite_id", "sample_id", "source", "family", "verdicts", "all_yes", "p_yes"]
    columns += ["matches_reference", "keep", "drop_reason", "keep_rule", "model", "panel", "needs_image"]
    con.execute(_COUNT_CATEGORY, {"category": category})
    parameters = {"first": first, "category": category, "holdout_limit": holdout_limit}
    _create(
        con, lake, versions, JUDGED.get_table_name(category), columns, "CREATE OR REPLACE TABLE judged AS FROM stream"
    )
    con.execute(_INSERT, parameters)
    for name in ("judged", "rewritten", "categorised", "scores"):
        con.execute(f"DROP TABLE {name}")


def _count_other_categories(con: duckdb.DuckDBPyConnection, lake: Lake, versions: Mapping[str, int]) -> None:
    """Count the samples of categories in which nothing is rewritten."""
    counted = {category for (category,) in con.execute("SELECT category FROM category_counts").fetchall()}
    for name in (name for name in versions if name.startswith(f"{CATEGORY.name}/")):
        category = name.partition("/")[2]
        if category not in counted:
            _create(con, lake, versions, name, ["group"], "CREATE OR REPLACE TABLE categorised AS FROM stream")
            con.execute(_COUNT_CATEGORY, {"category": category})
            con.execute("DROP TABLE categorised")


def _read_small_tables(con: duckdb.DuckDBPyConnection, lake: Lake, versions: Mapping[str, int]) -> None:
    con.execute("CREATE TABLE mixture_rows (judged_id UUID, stage VARCHAR)")
    for name in versions:
        if name.startswith(f"{MIXTURE.name}/"):
            _create(
                con,
                lake,
                versions,
                name,
                ["judged_id"],
                """INSERT INTO mixture_rows SELECT DISTINCT judged_id::UUID, $stage FROM stream
                   WHERE judged_id IS NOT NULL""",
                {"stage": name.partition("/")[2]},
            )
    con.execute(
        """CREATE TABLE mixed AS SELECT judged_id, array_to_string(list_sort(list(stage)), ', ') AS stages
           FROM mixture_rows GROUP BY ALL"""
    )
    _create(
        con,
        lake,
        versions,
        "curation/duplicates",
        ["sample_id", "rule"],
        "CREATE TABLE duplicates AS SELECT sample_id::UUID AS sample_id, min(rule) AS rule FROM stream GROUP BY ALL",
    )
    _create(
        con,
        lake,
        versions,
        "curation/contamination",
        ["sample_id", "benchmark"],
        """CREATE TABLE hits AS SELECT sample_id::UUID AS sample_id, coalesce(min(benchmark), 'held out') AS benchmark
           FROM stream GROUP BY ALL""",
    )


def _add_sample_addresses(con: duckdb.DuckDBPyConnection, lake: Lake, versions: Mapping[str, int]) -> None:
    con.execute("CREATE TABLE known_versions AS SELECT DISTINCT version_id FROM pairs")
    _create(
        con,
        lake,
        versions,
        "samples",
        ["version_id"],
        """CREATE TABLE sample_addresses AS
           SELECT version_id::UUID AS version_id, min(_rowaddr) AS address FROM stream
           WHERE version_id::UUID IN (SELECT version_id FROM known_versions) GROUP BY ALL""",
    )


def _count_facets(con: duckdb.DuckDBPyConnection) -> None:
    """Store the counts of all values, which the page without a filter shows."""
    con.execute("CREATE TABLE target.facets (name VARCHAR, value VARCHAR, n BIGINT)")
    for name in FACET_COLUMNS:
        con.execute(
            f"""INSERT INTO target.facets SELECT '{name}', {name}::VARCHAR, count(*) AS n FROM target.pairs
                GROUP BY {name} ORDER BY n DESC, {name} LIMIT {MAX_FACET_VALUES}"""  # noqa: S608 - names of ours
        )


def _create(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    versions: Mapping[str, int],
    name: str,
    columns: Sequence[str],
    statement: str,
    parameters: Mapping[str, object] | None = None,
) -> None:
    """Run a statement that reads `stream`: columns of a table with the row addresses. A missing table has no rows."""
    schema = pa.schema([*(lake.get_table(name).schema.field(column) for column in columns), ("_rowaddr", pa.uint64())])
    batches = iter(())
    if name in versions:
        dataset = lake.get_table(name).open().checkout_version(versions[name])
        scanner = dataset.scanner(columns=list(columns), batch_size=SCAN_BATCH_ROWS, with_row_address=True)
        batches = scanner.to_batches()
    with stream_batches(con, "stream", batches, schema):
        con.execute(statement, dict(parameters or {}))
