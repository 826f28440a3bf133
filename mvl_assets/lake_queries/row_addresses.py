"""Where the content of planned packs lies: row addresses in `samples`, `rewritten` and `images`, in training order.

A plan names mixture rows by id, in shuffled order. Looking them up one by one takes an index of all keys in every
process. Here the ids are joined with the tables once, in DuckDB, which spills to disk: memory does not grow with the
number of rows, and whoever reads the packs afterwards takes rows by address.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import lance
import numpy as np
import pyarrow as pa

from mvl_assets.lake.durability.scratch import create_scratch_dir
from mvl_assets.lake.durability.spill import MEMORY_LIMIT
from mvl_assets.lake.errors import translate_disk_errors
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table_reader import TableReader

SCAN_BATCH_ROWS = 32_768

SAMPLES_TABLE, IMAGES_TABLE = "samples", "images"
_REWRITTEN_FAMILY = "rewritten"


@dataclass(frozen=True, slots=True)
class PackAddresses:
    """Addresses of the rows and images of consecutive packs. Can be pickled.

    Attributes:
        rows: One row per sample in the order of training: pack, row_id, source, category, kind, sample_address,
            rewrite_table and rewrite_address (null for an original).
        images: One row per pack and image: pack, image_id, address, size.
        table_versions: Versions of the tables that the addresses belong to.
    """

    rows: pa.Table
    images: pa.Table
    table_versions: dict[str, int]


class AddressBook:
    """Addresses of all packs of a stage, on disk. Made by `open_address_book`."""

    def __init__(self, con: duckdb.DuckDBPyConnection, table_versions: dict[str, int]) -> None:
        self._con = con
        self._table_versions = table_versions

    def read(self, start: int, stop: int) -> PackAddresses:
        """Return the addresses of the packs from `start` to `stop` (exclusive)."""
        # Both tables are stored in the order of packs, so that a range reads only its own part.
        rows = self._con.sql(
            """SELECT pack, row_id, source, category, kind, sample_address, rewrite_table, rewrite_address
               FROM row_addresses WHERE pack >= ? AND pack < ? ORDER BY pack, ordinal""",
            params=[start, stop],
        ).to_arrow_table()
        images = self._con.sql(
            """SELECT pack, image_id, address, size FROM image_addresses
               WHERE pack >= ? AND pack < ? ORDER BY pack, image_id""",
            params=[start, stop],
        ).to_arrow_table()
        return PackAddresses(rows, images, self._table_versions)

    def count_missing(self) -> int:
        """Count the planned rows that have no mixture row, sample or rewrite any more."""
        ((n_missing,),) = self._con.sql(
            """SELECT count(*) FROM row_addresses
               WHERE sample_address IS NULL OR (kind = 'rewritten' AND rewrite_address IS NULL)"""
        ).fetchall()
        return int(n_missing)


@contextmanager
def open_address_book(lake: Lake, stage: str, plan: TableReader, first_pack: int = 0) -> Iterator[AddressBook]:
    """Find the addresses of all rows and images of a pack plan; yield them while the block runs.

    Args:
        lake: The lake.
        stage: The training stage.
        plan: Snapshot of its pack plan.
        first_pack: Leave out the packs before this one.
    """
    mixture = lake.get_table(f"mixture/{stage}").snapshot()
    samples = lake.get_table(SAMPLES_TABLE).snapshot()
    rewritten = {name: lake.get_table(name).snapshot() for name in lake.list_tables(_REWRITTEN_FAMILY)}
    images = {IMAGES_TABLE: lake.get_table(IMAGES_TABLE).snapshot()} if lake.get_table(IMAGES_TABLE).exists() else {}
    readers = {SAMPLES_TABLE: samples, **images, **rewritten}
    with (
        create_scratch_dir("addresses") as folder,
        duckdb.connect(f"{folder}/addresses.duckdb") as con,
        translate_disk_errors(str(folder)),
    ):
        con.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        con.execute(f"SET temp_directory = '{folder}/spill'")
        con.execute("SET preserve_insertion_order = false")
        con.register("plan", _open_stream(plan, ["position", "row_ids"]))
        con.execute(
            f"""CREATE TABLE planned AS
                SELECT position AS pack, generate_subscripts(row_ids, 1) AS ordinal, unnest(row_ids) AS row_id
                FROM plan WHERE position >= {first_pack:d}"""  # noqa: S608 - a number
        )
        con.unregister("plan")
        con.register(
            "mixture", _open_stream(mixture, ["row_id", "source", "category", "kind", "version_id", "rewrite_id"])
        )
        con.execute(
            """CREATE TABLE mixed AS
               SELECT pack, ordinal, row_id, source, category, kind, version_id, rewrite_id
               FROM planned LEFT JOIN mixture USING (row_id)"""
        )
        con.unregister("mixture")
        con.execute("DROP TABLE planned")
        con.execute("CREATE TABLE rewrites (rewrite_id VARCHAR, rewrite_table VARCHAR, rewrite_address UBIGINT)")
        for name, reader in rewritten.items():
            con.register("rewritten", _open_stream(reader, ["rewrite_id"], with_addresses=True))
            con.execute(
                """INSERT INTO rewrites SELECT rewrite_id, ?, _rowaddr FROM rewritten
                   SEMI JOIN mixed USING (rewrite_id)""",
                [name],
            )
            con.unregister("rewritten")
        con.register("samples", _open_stream(samples, ["version_id", "image_ids"], with_addresses=True))
        con.execute(
            """CREATE TABLE found AS
               SELECT pack, ordinal, row_id, source, category, kind, rewrite_id, samples._rowaddr AS sample_address,
                      image_ids
               FROM mixed LEFT JOIN samples USING (version_id)"""
        )
        con.unregister("samples")
        con.execute("DROP TABLE mixed")
        con.execute(
            """CREATE TABLE row_addresses AS
               SELECT pack, ordinal, row_id, source, category, kind, sample_address, rewrite_table, rewrite_address
               FROM found LEFT JOIN rewrites ON kind = 'rewritten' AND found.rewrite_id = rewrites.rewrite_id
               ORDER BY pack, ordinal"""
        )
        con.execute("DROP TABLE rewrites")
        con.execute(
            """CREATE TABLE shown AS SELECT DISTINCT pack, source, image_id
               FROM (SELECT pack, source, unnest(image_ids) AS image_id FROM found)"""
        )
        con.execute("DROP TABLE found")
        _find_images(con, images.get(IMAGES_TABLE))
        yield AddressBook(con, {name: reader.version for name, reader in readers.items()})


def _find_images(con: duckdb.DuckDBPyConnection, images: TableReader | None) -> None:
    con.execute("CREATE TABLE image_addresses (pack BIGINT, image_id VARCHAR, address UBIGINT, size BIGINT)")
    if images is not None:
        con.register("images", _open_stream(images, ["image_id", "source", "size"], with_addresses=True))
        # Two runs may have stored the same image of a source: the first is taken, as everywhere.
        con.execute(
            """INSERT INTO image_addresses
               SELECT pack, image_id, min(_rowaddr), any_value(size) FROM shown JOIN images USING (source, image_id)
               GROUP BY pack, image_id ORDER BY pack, image_id"""
        )
        con.unregister("images")
    con.execute("DROP TABLE shown")


def _open_stream(reader: TableReader, columns: Sequence[str], *, with_addresses: bool = False) -> pa.RecordBatchReader:
    scanner = reader.open().scanner(columns=list(columns), batch_size=SCAN_BATCH_ROWS, with_row_address=with_addresses)
    return scanner.to_reader()


def read_located_rows(lake: Lake, addresses: PackAddresses) -> list[dict[str, Any]]:
    """Return the located rows in their order: pack, row_id, source, category, conversations, image_ids and video."""
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
                **{name: row[name] for name in ("pack", "row_id", "source", "category")},
                "conversations": content["conversations"],
                "image_ids": sample["image_ids"] or [],
                "video": sample["video"],
            }
        )
    return joined_rows


def read_located_images(lake: Lake, addresses: PackAddresses, image_addresses: Sequence[int]) -> dict[int, bytes]:
    """Return the original bytes of images by address."""
    if not image_addresses:
        return {}
    dataset = _open_version(lake, addresses, IMAGES_TABLE)
    unique_addresses = sorted(set(image_addresses))
    blobs = dataset.read_blobs("bytes", addresses=unique_addresses, preserve_order=True)
    return {address: data or b"" for address, (_, data) in zip(unique_addresses, blobs, strict=True)}


def _take_rows(
    lake: Lake, addresses: PackAddresses, name: str, row_addresses: Collection[int], columns: Sequence[str]
) -> dict[int, dict[str, Any]]:
    """Return rows by address, read in the order in which they are stored."""
    unique_addresses = np.unique(np.array(list(row_addresses), dtype=np.uint64)).tolist()
    # Lance's public `take` wants positions in the whole table; see `KeyIndex`.
    taken = _open_version(lake, addresses, name)._take_rows(unique_addresses, columns=list(columns))
    return dict(zip(unique_addresses, taken.to_pylist(), strict=True))


def _open_version(lake: Lake, addresses: PackAddresses, name: str) -> lance.LanceDataset:
    return lake.get_table(name).open().checkout_version(addresses.table_versions[name])
