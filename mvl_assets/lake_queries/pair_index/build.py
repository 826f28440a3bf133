"""Building the index of judged pairs: every table that says something about a pair is read once.

The file never changes afterwards. Its name is the digest of the versions of all tables that it was made from, so that
the next process opens it at once, and a lake that has changed gets another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.durability.spill import open_duckdb, stream_batches
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.pair_index.columns import FACET_COLUMNS, MAX_FACET_VALUES
from mvl_assets.stages import CATEGORY, JUDGED, MIXTURE, REWRITTEN, SCORED

if TYPE_CHECKING:
    import duckdb

FORMAT_VERSION = 1
"""Goes up when the columns or their meaning change: files of another version are not opened."""

SCAN_BATCH_ROWS = 32_768
_CURATION_TABLES = ("curation/duplicates", "curation/contamination")
_FAMILIES = (JUDGED.name, REWRITTEN.name, CATEGORY.name, SCORED.name, MIXTURE.name)

_INSERT = """
INSERT INTO pairs
SELECT $first + row_number() OVER (ORDER BY j._rowaddr) - 1,
       j.judged_id::UUID, j.rewrite_id::UUID, j.sample_id::UUID, r.version_id,
       j._rowaddr, r.address, NULL,
       $category, j.source, j.family, j.keep, j.drop_reason, j.keep_rule, j.p_yes, j.all_yes, j.matches_reference,
       CASE WHEN j.matches_reference IS NULL THEN 'no reference, judge ' || if(j.all_yes, 'yes', 'no')
            WHEN j.matches_reference AND j.all_yes THEN 'both yes'
            WHEN j.matches_reference THEN 'judge no, reference yes'
            WHEN j.all_yes THEN 'judge yes, reference no'
            ELSE 'both no' END,
       if(len(j.panel) > 1, len(list_distinct([p.all_yes for p in j.panel])) = 1, NULL),
       nullif(array_to_string(list_sort([v.criterion for v in j.verdicts if NOT v.verdict]), ', '), ''),
       j.model, r.model, r.prompt, r.prompt_hash, r.blind, r.task_type, r.answer_chars,
       c.modality, c.license, c.n_chars, c.n_images,
       CASE WHEN c.holdout_hash < $holdout_limit THEN 'held out' WHEN c.holdout_hash IS NOT NULL THEN 'training' END,
       s.content, s.relevance, m.stages, d.rule, b.benchmark
FROM judged j
LEFT JOIN rewritten r ON r.rewrite_id = j.rewrite_id::UUID
LEFT JOIN categorised c ON c.sample_id = j.sample_id::UUID
LEFT JOIN scores s ON s.rewrite_id = j.rewrite_id::UUID
LEFT JOIN mixed m ON m.judged_id = j.judged_id::UUID
LEFT JOIN duplicates d ON d.sample_id = j.sample_id::UUID
LEFT JOIN hits b ON b.sample_id = j.sample_id::UUID
ORDER BY j._rowaddr
"""

_CREATE = """
CREATE TABLE pairs (
  ordinal INTEGER, judged_id UUID, rewrite_id UUID, sample_id UUID, version_id UUID,
  judged_address UBIGINT, rewrite_address UBIGINT, sample_address UBIGINT,
  category VARCHAR, source VARCHAR, family VARCHAR, keep BOOLEAN, drop_reason VARCHAR, keep_rule VARCHAR, p_yes DOUBLE,
  all_yes BOOLEAN, matches_reference BOOLEAN, agreement VARCHAR, judges_agree BOOLEAN, failed_criteria VARCHAR,
  judge_model VARCHAR, model VARCHAR, prompt VARCHAR, prompt_hash VARCHAR, blind BOOLEAN, task_type VARCHAR,
  answer_chars BIGINT, modality VARCHAR, license VARCHAR, original_chars BIGINT, n_images INTEGER, split VARCHAR,
  content_score TINYINT, relevance_score TINYINT, mixtures VARCHAR, duplicate VARCHAR, contaminated VARCHAR)
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
        n_rows = 0
        for name in (name for name in versions if name.startswith(f"{JUDGED.name}/")):
            _insert_category(con, lake, versions, name.partition("/")[2], n_rows, holdout_limit)
            ((n_rows,),) = con.execute("SELECT count(*) FROM pairs").fetchall()
        _add_sample_addresses(con, lake, versions)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path = path.with_suffix(".partial")
        partial_path.unlink(missing_ok=True)
        con.execute("ATTACH '" + str(partial_path).replace("'", "''") + "' AS target")
        con.execute(f"CREATE TABLE target.pairs AS {_SELECT_COMPLETE} ORDER BY ordinal")
        _count_facets(con)
        con.execute("CREATE TABLE target.table_versions (name VARCHAR, version BIGINT)")
        if versions:
            con.executemany("INSERT INTO target.table_versions VALUES (?, ?)", list(versions.items()))
        con.execute("DETACH target")
        partial_path.replace(path)


_SELECT_COMPLETE = """
SELECT p.* REPLACE (s.address AS sample_address)
FROM pairs p LEFT JOIN sample_addresses s ON s.version_id = p.version_id
"""


def _insert_category(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    versions: Mapping[str, int],
    category: str,
    first: int,
    holdout_limit: int,
) -> None:
    columns = ["rewrite_id", "version_id", "prompt", "prompt_hash", "model", "blind", "task_type", "conversations"]
    _create(
        con,
        lake,
        versions,
        REWRITTEN.get_table_name(category),
        columns,
        """CREATE OR REPLACE TABLE rewritten AS
           SELECT rewrite_id::UUID AS rewrite_id, version_id::UUID AS version_id, _rowaddr AS address, prompt,
                  prompt_hash, model, blind, task_type,
                  list_sum([len(t.value) for t in conversations if t."from" = 'gpt'])::BIGINT AS answer_chars
           FROM stream""",
    )
    columns = ["sample_id", "modality", "license", "n_chars", "n_images", "holdout_hash"]
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
    columns += ["matches_reference", "keep", "drop_reason", "keep_rule", "model", "panel"]
    parameters = {"first": first, "category": category, "holdout_limit": holdout_limit}
    _create(
        con, lake, versions, JUDGED.get_table_name(category), columns, "CREATE OR REPLACE TABLE judged AS FROM stream"
    )
    con.execute(_INSERT, parameters)
    for name in ("judged", "rewritten", "categorised", "scores"):
        con.execute(f"DROP TABLE {name}")


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
