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
from mvl_assets.lake.table_reader import TableReader

if TYPE_CHECKING:
    import duckdb

SCAN_BATCH_ROWS = 32_768
# Images read at once by `iter_located_images`.
MAX_GROUP_IMAGES, MAX_GROUP_BYTES = 512, 32 << 20

SAMPLES_TABLE, IMAGES_TABLE = "samples", "images"
_REWRITTEN_FAMILY = "rewritten"
_MIXTURE_COLUMNS = ("row_id", "source", "category", "modality", "kind", "version_id", "rewrite_id")


@dataclass(frozen=True, slots=True)
class RowAddresses:
    """Addresses of the rows and images of consecutive parts. Can be pickled.

    Attributes:
        rows: One row per sample in order: part, ordinal, row_id, source, category, modality, kind, sample_address,
            rewrite_table and rewrite_address (null for an original).
        images: One row per part and image: part, image_id, address, size, format, width, height.
        table_versions: Versions of the tables that the addresses belong to.
    """

    rows: pa.Table
    images: pa.Table
    table_versions: dict[str, int]


class AddressBook:
    """Addresses of all rows of a mixture, on disk, in parts: packs, or chunks of consecutive rows."""

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
def open_pack_addresses(lake: Lake, stage: str, plan: TableReader, first_pack: int = 0) -> Iterator[AddressBook]:
    """Find the addresses of all rows of a pack plan; a part is a pack, an ordinal the place of a sample in it.

    Args:
        lake: The lake.
        stage: The training stage.
        plan: Snapshot of its pack plan.
        first_pack: Leave out the packs before this one.
    """
    with _open_duckdb() as con:
        con.register("plan", _open_stream(plan, ["position", "row_ids"]))
        con.execute(
            f"""CREATE TABLE planned AS
                SELECT position AS part, generate_subscripts(row_ids, 1) AS ordinal, unnest(row_ids) AS row_id
                FROM plan WHERE position >= {first_pack:d}"""  # noqa: S608 - a number
        )
        con.unregister("plan")
        con.register("mixture", _open_stream(lake.get_table(f"mixture/{stage}").snapshot(), _MIXTURE_COLUMNS))
        con.execute("CREATE TABLE mixed AS SELECT * FROM planned LEFT JOIN mixture USING (row_id)")
        con.unregister("mixture")
        con.execute("DROP TABLE planned")
        yield _find_addresses(lake, stage, con)


@contextmanager
def open_mixture_addresses(lake: Lake, stage: str, chunk_rows: int) -> Iterator[AddressBook]:
    """Find the addresses of all rows of a mixture; a part is a chunk of rows, an ordinal a position in the mixture.

    Args:
        lake: The lake.
        stage: The training stage.
        chunk_rows: Rows of a chunk.
    """
    with _open_duckdb() as con:
        mixture = lake.get_table(f"mixture/{stage}").snapshot()
        con.register("mixture", _open_stream(mixture, ["position", *_MIXTURE_COLUMNS]))
        con.execute(
            f"""CREATE TABLE mixed AS SELECT position // {chunk_rows:d} AS part, position AS ordinal,
                * EXCLUDE (position) FROM mixture"""  # noqa: S608 - a number
        )
        con.unregister("mixture")
        yield _find_addresses(lake, stage, con)


@contextmanager
def _open_duckdb() -> Iterator[duckdb.DuckDBPyConnection]:
    with open_duckdb() as con:
        # Here streams are on the right of joins, and DuckDB may choose the side that it holds.
        con.execute("RESET disabled_optimizers")
        yield con


def _find_addresses(lake: Lake, stage: str, con: duckdb.DuckDBPyConnection) -> AddressBook:
    """Join the table `mixed` with samples, rewrites and images."""
    names = [SAMPLES_TABLE, IMAGES_TABLE, *lake.list_tables(_REWRITTEN_FAMILY)]
    readers = {name: lake.get_table(name).snapshot() for name in names if lake.get_table(name).exists()}
    con.execute("CREATE TABLE rewrites (rewrite_id VARCHAR, rewrite_table VARCHAR, rewrite_address UBIGINT)")
    for name, reader in readers.items():
        if name.startswith(_REWRITTEN_FAMILY):
            con.register("rewritten", _open_stream(reader, ["rewrite_id"], with_addresses=True))
            con.execute(
                """INSERT INTO rewrites SELECT rewrite_id, ?, _rowaddr FROM rewritten
                   SEMI JOIN mixed USING (rewrite_id)""",
                [name],
            )
            con.unregister("rewritten")
    samples = readers.get(SAMPLES_TABLE) or lake.get_table(SAMPLES_TABLE).snapshot()
    con.register("samples", _open_stream(samples, ["version_id", "image_ids"], with_addresses=True))
    con.execute(
        """CREATE TABLE sampled AS
           SELECT mixed.*, samples._rowaddr AS sample_address, image_ids
           FROM mixed LEFT JOIN samples USING (version_id)"""
    )
    con.unregister("samples")
    con.execute("DROP TABLE mixed")
    con.execute(
        """CREATE TABLE row_addresses AS
           SELECT part, ordinal, row_id, source, category, modality, kind, sample_address, rewrite_table,
                  rewrite_address
           FROM sampled LEFT JOIN rewrites ON kind = 'rewritten' AND sampled.rewrite_id = rewrites.rewrite_id
           ORDER BY part, ordinal"""
    )
    con.execute("DROP TABLE rewrites")
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


def _open_stream(reader: TableReader, columns: Sequence[str], *, with_addresses: bool = False) -> pa.RecordBatchReader:
    scanner = reader.open().scanner(columns=list(columns), batch_size=SCAN_BATCH_ROWS, with_row_address=with_addresses)
    return scanner.to_reader()


def read_located_rows(lake: Lake, addresses: RowAddresses) -> list[dict[str, Any]]:
    """Return the rows in their order: the columns of `RowAddresses.rows`, conversations, image_ids and video."""
    rows: list[dict[str, Any]] = addresses.rows.to_pylist()
    columns = ["conversations", "image_ids", "video"]
    samples = _take_rows(lake, addresses, SAMPLES_TABLE, [row["sample_address"] for row in rows], columns)
    rewrites: dict[tuple[str, int], dict[str, Any]] = {}
    for name in {row["rewrite_table"] for row in rows} - {None}:
        own_addresses = [row["rewrite_address"] for row in rows if row["rewrite_table"] == name]
        own_rows = _take_rows(lake, addresses, name, own_addresses, ["conversations"])
        rewrites |= {(name, address): own_rows[address] for address in own_addresses}
    joined_rows = []
    for row in rows:
        sample = samples[row["sample_address"]]
        content = rewrites[row["rewrite_table"], row["rewrite_address"]] if row["kind"] == "rewritten" else sample
        joined_rows.append(
            {
                **row,
                "conversations": content["conversations"],
                "image_ids": sample["image_ids"] or [],
                "video": sample["video"],
            }
        )
    return joined_rows


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
