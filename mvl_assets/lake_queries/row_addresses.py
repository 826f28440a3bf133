"""Where the content of mixture rows lies: row addresses in `samples`, `rewritten` and `images`, in order of reading.

A mixture and its pack plan name rows by id, in shuffled order. Looking them up one by one takes an index of all keys in
every process. Here the ids are joined with the tables once, in DuckDB, which spills to disk: memory does not grow with
the number of rows, and whoever reads the rows afterwards takes them by address.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lance
import numpy as np
import pyarrow as pa

from mvl_assets.lake.durability.spill import open_duckdb
from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.table_spec import ROW_HASH_COLUMN
from mvl_assets.lake.table_reader import TableReader
from mvl_assets.lake_queries.mixtures.mixture_filter import MixtureFilter, fill_mixture_table

if TYPE_CHECKING:
    import duckdb

SCAN_BATCH_ROWS = 32_768
# Images read at once by `iter_located_images`.
MAX_GROUP_IMAGES, MAX_GROUP_BYTES = 512, 32 << 20

SAMPLES_TABLE, IMAGES_TABLE = "samples", "images"
_REWRITTEN_FAMILY = "rewritten"
_JUDGED_FAMILY = "judged"
_SCORED_FAMILY = "scored"
_SCORES_FAMILY = "scores"
_MIXTURE_COLUMNS = ("row_id", "source", "category", "modality", "kind", "version_id", "rewrite_id")
_PROVENANCE_COLUMNS = ("sample_id", "judged_id", "license")
_SAMPLE_PROVENANCE = ("native_id", "file", "position", "upstream_dataset", "license")
_REWRITE_PROVENANCE = ("task_type", "prompt", "prompt_hash", "model", "model_revision", "blind")
# Names of a row's columns, by the column of `judged` that they are.
_VERDICT_COLUMNS = {
    "verdicts": "verdicts",
    "all_yes": "all_yes",
    "p_yes": "p_yes",
    "matches_reference": "matches_reference",
    "keep": "keep",
    "drop_reason": "drop_reason",
    "keep_rule": "keep_rule",
    "model": "judge_model",
    "model_revision": "judge_model_revision",
    "panel": "panel",
}


@dataclass(frozen=True, slots=True)
class RowAddresses:
    """Addresses of the rows and images of consecutive parts. Can be pickled.

    Attributes:
        rows: One row per sample in order: part, ordinal, row_id, source, category, modality, kind, sample_address,
            rewrite_table and rewrite_address (null for an original). With provenance also the ids of the sample, its
            version, rewrite and verdict, license, judged_table and judged_address, the hashes of the rows of the
            rewrite and the verdict, and scores: the model's, and those of others as a JSON object by name.
        images: One row per part and image: part, image_id, address, size, format, width, height.
        table_versions: Versions of the tables that the addresses belong to.
    """

    rows: pa.Table
    images: pa.Table
    table_versions: dict[str, int]


class AddressBook:
    """Addresses of all rows of a mixture, on disk, in parts: single rows, or chunks of consecutive ones."""

    def __init__(self, con: duckdb.DuckDBPyConnection, stage: str, table_versions: dict[str, int]) -> None:
        self._con = con
        self._stage = stage
        self._table_versions = table_versions

    def read(self, start: int, stop: int) -> RowAddresses:
        """Return the addresses of the parts from `start` to `stop` (exclusive)."""
        # Both tables are stored in the order of parts, so that a range reads only its own.
        rows, images = (
            self._con.sql(
                f"SELECT * FROM {name} WHERE part >= ? AND part < ? ORDER BY part, {order}",  # noqa: S608 - of ours
                params=[start, stop],
            ).to_arrow_table()
            for name, order in (("row_addresses", "ordinal"), ("image_addresses", "image_id"))
        )
        return RowAddresses(rows, images, self._table_versions)

    def count_rows(self) -> int:
        """Return how many rows there are."""
        ((n_rows,),) = self._con.sql("SELECT count(*) FROM row_addresses").fetchall()
        return int(n_rows)

    def measure_parts(self) -> list[int]:
        """Return the bytes of the images of each part."""
        ((n_parts,),) = self._con.sql("SELECT coalesce(max(part) + 1, 0) FROM row_addresses").fetchall()
        sizes = [0] * n_parts
        for part, size in self._con.sql("SELECT part, sum(size)::BIGINT FROM image_addresses GROUP BY part").fetchall():
            sizes[part] = size
        return sizes

    def require_complete(self) -> None:
        """Raise `LakeError` if a row is in no mixture any more, or its sample or rewrite is not in the lake."""
        ((n_missing,),) = self._con.sql(
            """SELECT count(*) FROM row_addresses
               WHERE sample_address IS NULL OR (kind = 'rewritten' AND rewrite_address IS NULL)"""
        ).fetchall()
        if n_missing:
            raise LakeError(
                f"{n_missing} rows of the mixture {self._stage}, or of its pack plan, are not in the lake any more",
                hint=f"materialise mixture/{self._stage} and pack_plan/{self._stage} again",
            )


@contextmanager
def open_pack_addresses(lake: Lake, stage: str, plan: TableReader, first_position: int = 0) -> Iterator[AddressBook]:
    """Find the addresses of all rows of a pack plan; a part is a position in it, and every ordinal is 0.

    Args:
        lake: The lake.
        stage: The training stage.
        plan: Snapshot of its pack plan.
        first_position: Leave out the rows before this one.
    """
    with _open_duckdb() as con:
        con.register("plan", _open_stream(plan, ["position", "row_id"]))
        con.execute(
            f"""CREATE TABLE planned AS
                SELECT position AS part, 0 AS ordinal, row_id FROM plan WHERE position >= {first_position:d}"""  # noqa: S608 - a number
        )
        con.unregister("plan")
        con.register("mixture", _open_stream(lake.get_table(f"mixture/{stage}").snapshot(), _MIXTURE_COLUMNS))
        con.execute("CREATE TABLE mixed AS SELECT * FROM planned LEFT JOIN mixture USING (row_id)")
        con.unregister("mixture")
        con.execute("DROP TABLE planned")
        yield _find_addresses(lake, stage, con)


@contextmanager
def open_mixture_addresses(
    lake: Lake,
    stage: str,
    chunk_rows: int,
    *,
    with_provenance: bool = False,
    mixture_filter: MixtureFilter | None = None,
) -> Iterator[AddressBook]:
    """Find the addresses of rows of a mixture; a part is a chunk of rows, an ordinal a position among the rows.

    Args:
        lake: The lake.
        stage: The training stage.
        chunk_rows: Rows of a chunk.
        with_provenance: Also find what says how a row came to be.
        mixture_filter: Which rows; None takes all.
    """
    with _open_duckdb() as con:
        columns = [*_MIXTURE_COLUMNS, *(_PROVENANCE_COLUMNS if with_provenance else ())]
        fill_mixture_table(con, lake, stage, columns, mixture_filter, name="positioned")
        con.execute(
            f"""CREATE TABLE mixed AS SELECT position // {chunk_rows:d} AS part, position AS ordinal,
                * EXCLUDE (position) FROM positioned"""  # noqa: S608 - a number
        )
        con.execute("DROP TABLE positioned")
        yield _find_addresses(lake, stage, con, with_provenance=with_provenance)


@contextmanager
def open_judged_addresses(
    lake: Lake, categories: Collection[str], chunk_rows: int, max_rows: int | None = None
) -> Iterator[AddressBook]:
    """Find the addresses, with provenance, of all judged pairs whose rewrite is there; a part is a chunk of pairs.

    Args:
        lake: The lake.
        categories: The categories, in whose order the pairs come, and then by source and id.
        chunk_rows: Pairs of a chunk.
        max_rows: Take this many pairs only, the same ones each time.
    """
    with _open_duckdb() as con:
        con.execute(
            """CREATE TABLE pairs (nth INTEGER, row_id VARCHAR, source VARCHAR, category VARCHAR, version_id VARCHAR,
                                   rewrite_id VARCHAR, sample_id VARCHAR, judged_id VARCHAR)"""
        )
        for nth, category in enumerate(categories):
            judged, rewritten = (lake.get_table(f"{name}/{category}") for name in (_JUDGED_FAMILY, _REWRITTEN_FAMILY))
            if not (judged.exists() and rewritten.exists()):
                continue
            con.register("judged", _open_stream(judged.snapshot(), ["judged_id", "rewrite_id"]))
            con.register(
                "rewritten", _open_stream(rewritten.snapshot(), ["rewrite_id", "version_id", "sample_id", "source"])
            )
            con.execute(
                """INSERT INTO pairs SELECT ?, rewrite_id, source, ?, version_id, rewrite_id, sample_id, judged_id
                   FROM rewritten JOIN judged USING (rewrite_id)""",
                [nth, category],
            )
            con.unregister("judged")
            con.unregister("rewritten")
        if max_rows is not None:
            con.execute(
                """DELETE FROM pairs WHERE rewrite_id NOT IN (
                     SELECT rewrite_id FROM pairs ORDER BY md5(rewrite_id), rewrite_id LIMIT ?)""",
                [max_rows],
            )
        con.execute(
            f"""CREATE TABLE mixed AS
                SELECT (ordinal - 1) // {chunk_rows:d} AS part, * EXCLUDE (nth), NULL::VARCHAR AS modality,
                       'rewritten' AS kind, NULL::VARCHAR AS license
                FROM (SELECT row_number() OVER (ORDER BY nth, source, rewrite_id) AS ordinal, * FROM pairs)"""  # noqa: S608 - a number
        )
        con.execute("DROP TABLE pairs")
        yield _find_addresses(lake, "judged", con, with_provenance=True)


@contextmanager
def _open_duckdb() -> Iterator[duckdb.DuckDBPyConnection]:
    with open_duckdb() as con:
        # Here streams are on the right of joins, and DuckDB may choose the side that it holds.
        con.execute("RESET disabled_optimizers")
        yield con


def _find_addresses(
    lake: Lake, stage: str, con: duckdb.DuckDBPyConnection, *, with_provenance: bool = False
) -> AddressBook:
    """Join the table `mixed` with samples, rewrites and images, and with verdicts where provenance is asked for."""
    families = [_REWRITTEN_FAMILY, *([_JUDGED_FAMILY] if with_provenance else [])]
    names = [SAMPLES_TABLE, IMAGES_TABLE, *(name for family in families for name in lake.list_tables(family))]
    readers = {name: lake.get_table(name).snapshot() for name in names if lake.get_table(name).exists()}
    _find_family(con, readers, _REWRITTEN_FAMILY, "rewrite", with_hashes=with_provenance)
    if with_provenance:
        _find_family(con, readers, _JUDGED_FAMILY, "judged", with_hashes=True)
        _read_scores(lake, con)
        _read_foreign_scores(lake, con)
    samples = readers.get(SAMPLES_TABLE) or lake.get_table(SAMPLES_TABLE).snapshot()
    con.register("samples", _open_stream(samples, ["version_id", "image_ids"], with_addresses=True))
    con.execute(
        """CREATE TABLE sampled AS
           SELECT mixed.*, samples._rowaddr AS sample_address, image_ids
           FROM mixed LEFT JOIN samples USING (version_id)"""
    )
    con.unregister("samples")
    con.execute("DROP TABLE mixed")
    provenance, verdict_join = (
        (
            """, sample_id, version_id, sampled.rewrite_id, sampled.judged_id, license, rewrite_hash, judged_table,
               judged_address, judged_hash, content_score, relevance_score, foreign_scores.scores AS scores""",
            """LEFT JOIN located_judged ON sampled.judged_id = located_judged.judged_id
               LEFT JOIN scores ON coalesce(sampled.rewrite_id, sampled.version_id) = scores.scored
               LEFT JOIN foreign_scores USING (sample_id)""",
        )
        if with_provenance
        else ("", "")
    )
    con.execute(
        f"""CREATE TABLE row_addresses AS
            SELECT part, ordinal, row_id, source, category, modality, kind, sample_address, rewrite_table,
                   rewrite_address {provenance}
            FROM sampled
            LEFT JOIN located_rewrite ON kind = 'rewritten' AND sampled.rewrite_id = located_rewrite.rewrite_id
            {verdict_join}
            ORDER BY part, ordinal"""  # noqa: S608 - of ours
    )
    con.execute("DROP TABLE located_rewrite")
    con.execute(
        """CREATE TABLE image_refs AS SELECT DISTINCT part, source, image_id
           FROM (SELECT part, source, unnest(image_ids) AS image_id FROM sampled)"""
    )
    con.execute("DROP TABLE sampled")
    con.execute(
        """CREATE TABLE image_addresses
           (part BIGINT, image_id VARCHAR, address UBIGINT, size BIGINT, format VARCHAR, width INTEGER,
            height INTEGER)"""
    )
    if IMAGES_TABLE in readers:
        columns = ["image_id", "source", "size", "format", "width", "height"]
        con.register("images", _open_stream(readers[IMAGES_TABLE], columns, with_addresses=True))
        # Two runs may have stored the same image of a source: the first is taken, as everywhere.
        con.execute(
            """INSERT INTO image_addresses
               SELECT part, image_id, min(_rowaddr), any_value(size), any_value(format), any_value(width),
                      any_value(height)
               FROM image_refs JOIN images USING (source, image_id)
               GROUP BY part, image_id ORDER BY part, image_id"""
        )
        con.unregister("images")
    con.execute("DROP TABLE image_refs")
    return AddressBook(con, stage, {name: reader.version for name, reader in readers.items()})


def _find_family(
    con: duckdb.DuckDBPyConnection, readers: Mapping[str, TableReader], family: str, prefix: str, *, with_hashes: bool
) -> None:
    """Create the table `located_<prefix>`: id, table, address and hash of the rows of a family that `mixed` names."""
    con.execute(
        f"""CREATE TABLE located_{prefix}
            ({prefix}_id VARCHAR, {prefix}_table VARCHAR, {prefix}_address UBIGINT, {prefix}_hash VARCHAR)"""
    )
    row_hash = ROW_HASH_COLUMN if with_hashes else "NULL"
    for name, reader in readers.items():
        if name.startswith(f"{family}/"):
            columns = [f"{prefix}_id", *([ROW_HASH_COLUMN] if with_hashes else [])]
            con.register("family", _open_stream(reader, columns, with_addresses=True))
            con.execute(
                f"""INSERT INTO located_{prefix} SELECT {prefix}_id, ?, _rowaddr, {row_hash} FROM family
                    SEMI JOIN mixed USING ({prefix}_id)""",  # noqa: S608 - of ours
                [name],
            )
            con.unregister("family")


def _read_scores(lake: Lake, con: duckdb.DuckDBPyConnection) -> None:
    """Create the table `scores` of the rewrites and originals that `mixed` names."""
    con.execute("CREATE TABLE all_scores (scored VARCHAR, content_score TINYINT, relevance_score TINYINT)")
    for name in lake.list_tables(_SCORED_FAMILY):
        columns = ["rewrite_id", "version_id", "content", "relevance"]
        con.register("family", _open_stream(lake.get_table(name).snapshot(), columns))
        con.execute(
            """INSERT INTO all_scores SELECT coalesce(rewrite_id, version_id), content, relevance FROM family
               WHERE coalesce(rewrite_id, version_id) IN (SELECT coalesce(rewrite_id, version_id) FROM mixed)"""
        )
        con.unregister("family")
    con.execute(
        """CREATE TABLE scores AS SELECT scored, min(content_score) AS content_score,
                                         min(relevance_score) AS relevance_score FROM all_scores GROUP BY scored"""
    )


def _read_foreign_scores(lake: Lake, con: duckdb.DuckDBPyConnection) -> None:
    """Create the table `foreign_scores` of the samples that `mixed` names: JSON of all scores that others gave them."""
    con.execute("CREATE TABLE all_foreign (sample_id VARCHAR, entry VARCHAR)")
    for name in lake.list_tables(_SCORES_FAMILY):
        con.register("family", _open_stream(lake.get_table(name).snapshot(), ["sample_id", "scores"]))
        con.execute(
            """INSERT INTO all_foreign
               SELECT sample_id, to_json($name || '.' || s.name) || ': '
                                 || coalesce(to_json(s.number), to_json(s."text"), to_json(s."boolean"))
               FROM (SELECT sample_id, unnest(scores) AS s FROM family SEMI JOIN mixed USING (sample_id))
               WHERE coalesce(to_json(s.number), to_json(s."text"), to_json(s."boolean")) IS NOT NULL""",
            {"name": name.removeprefix(f"{_SCORES_FAMILY}/")},
        )
        con.unregister("family")
    con.execute(
        """CREATE TABLE foreign_scores AS
           SELECT sample_id, '{' || string_agg(entry, ', ' ORDER BY entry) || '}' AS scores
           FROM all_foreign GROUP BY sample_id"""
    )


def _open_stream(reader: TableReader, columns: Sequence[str], *, with_addresses: bool = False) -> pa.RecordBatchReader:
    scanner = reader.open().scanner(columns=list(columns), batch_size=SCAN_BATCH_ROWS, with_row_address=with_addresses)
    return scanner.to_reader()


def read_located_rows(lake: Lake, addresses: RowAddresses, *, with_provenance: bool = False) -> list[dict[str, Any]]:
    """Return the rows in their order: the columns of `RowAddresses.rows`, conversations, image_ids and video.

    Args:
        lake: The lake.
        addresses: The rows; with provenance if that is asked for.
        with_provenance: Add `original_conversations` and what the sample, its rewrite and its verdict say about how the
            row came to be, null where there is no rewrite or verdict.
    """
    rows: list[dict[str, Any]] = addresses.rows.to_pylist()
    columns = ["conversations", "image_ids", "video", *(_SAMPLE_PROVENANCE if with_provenance else ())]
    samples = _take_rows(lake, addresses, SAMPLES_TABLE, [row["sample_address"] for row in rows], columns)
    rewrite_columns = ["conversations", *(_REWRITE_PROVENANCE if with_provenance else ())]
    rewrites = _take_family(lake, addresses, rows, "rewrite", rewrite_columns)
    verdicts = _take_family(lake, addresses, rows, "judged", [*_VERDICT_COLUMNS]) if with_provenance else {}
    joined_rows = []
    for row in rows:
        sample = samples[row["sample_address"]]
        rewrite = rewrites[row["rewrite_table"], row["rewrite_address"]] if row["kind"] == "rewritten" else None
        joined_row = {
            **row,
            "conversations": (rewrite or sample)["conversations"],
            "image_ids": sample["image_ids"] or [],
            "video": sample["video"],
        }
        if with_provenance:
            verdict = verdicts.get((row["judged_table"], row["judged_address"]), {})
            joined_row |= {name: sample[name] for name in _SAMPLE_PROVENANCE}
            joined_row["license"] = row["license"] or sample["license"]
            joined_row |= {name: rewrite and rewrite[name] for name in _REWRITE_PROVENANCE}
            joined_row |= {name: verdict.get(column) for column, name in _VERDICT_COLUMNS.items()}
            joined_row["original_conversations"] = sample["conversations"]
        joined_rows.append(joined_row)
    return joined_rows


def _take_family(
    lake: Lake, addresses: RowAddresses, rows: Sequence[Mapping[str, Any]], prefix: str, columns: Sequence[str]
) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the rewrites or verdicts of rows by table and address."""
    taken: dict[tuple[str, int], dict[str, Any]] = {}
    for name in {row[f"{prefix}_table"] for row in rows} - {None}:
        own_addresses = [row[f"{prefix}_address"] for row in rows if row[f"{prefix}_table"] == name]
        own_rows = _take_rows(lake, addresses, name, own_addresses, columns)
        taken |= {(name, address): own_rows[address] for address in own_addresses}
    return taken


def read_located_images(lake: Lake, addresses: RowAddresses, image_addresses: Sequence[int]) -> dict[int, bytes]:
    """Return the original bytes of images by address."""
    if not image_addresses:
        return {}
    dataset = _open_version(lake, addresses, IMAGES_TABLE)
    unique_addresses = sorted(set(image_addresses))
    blobs = dataset.read_blobs("bytes", addresses=unique_addresses, preserve_order=True)
    return {address: data or b"" for address, (_, data) in zip(unique_addresses, blobs, strict=True)}


def iter_located_images(
    lake: Lake, addresses: RowAddresses, images: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[Mapping[str, Any], bytes]]:
    """Yield images, given as rows of `RowAddresses.images`, with their bytes, reading a bounded number at once."""
    group: list[Mapping[str, Any]] = []
    group_bytes = 0
    for image in (*images, None):
        if group and (image is None or len(group) == MAX_GROUP_IMAGES or group_bytes + image["size"] > MAX_GROUP_BYTES):
            data = read_located_images(lake, addresses, [member["address"] for member in group])
            yield from ((member, data[member["address"]]) for member in group)
            group, group_bytes = [], 0
        if image is not None:
            group.append(image)
            group_bytes += image["size"]


def _take_rows(
    lake: Lake, addresses: RowAddresses, name: str, row_addresses: Collection[int], columns: Sequence[str]
) -> dict[int, dict[str, Any]]:
    """Return rows by address, read in the order in which they are stored."""
    unique_addresses = np.unique(np.array(list(row_addresses), dtype=np.uint64)).tolist()
    # Lance's public `take` wants positions in the whole table; see `KeyIndex`.
    taken = _open_version(lake, addresses, name)._take_rows(unique_addresses, columns=list(columns))
    return dict(zip(unique_addresses, taken.to_pylist(), strict=True))


def _open_version(lake: Lake, addresses: RowAddresses, name: str) -> lance.LanceDataset:
    return lake.get_table(name).open().checkout_version(addresses.table_versions[name])
