"""Materialising a pack plan: the texts and image bytes of its rows, written once in the order of training.

A rank finds the samples of its packs by position, so the table serves any number of ranks. The rows are written in
shards, each one fragment of the table, and committed in order: what is in the table is always the beginning of one
plan, so a run that was killed goes on with the next shard. The shards are tasks of the executor. No torch, no
tokenizer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.errors import MvlError
from mvl_assets.execution.executor import Executor
from mvl_assets.execution.result_order import iter_in_order
from mvl_assets.lake.durability.lease import create_lease
from mvl_assets.lake.fragments import UncommittedFragments
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table import Table
from mvl_assets.lake.table_reader import TableReader
from mvl_assets.lake_queries.packed_rows import build_packed_table
from mvl_assets.lake_queries.row_addresses import (
    AddressBook,
    RowAddresses,
    open_pack_addresses,
    read_located_images,
    read_located_rows,
)
from mvl_training.data.raw_packs import FrameLimits, iter_group_ends

SHARD_ROWS = 4096
"""Rows of a shard: 0.4 to 2 GB with the paper's images, and 3,000 shards for twelve million rows."""

COMMIT_INTERVAL_S = 30.0
"""How much finished work a kill may lose. A commit per shard would leave a gigabyte of manifests for twelve million
rows, because each lists all fragments."""

MATERIALIZE_MIN_ROWS = 1_000_000
"""Rows of a mixture from which plans are materialised unless the profile says otherwise. Below it the indexes of a rank
take less than 100 MB and a few seconds, and the images need not lie on the disk twice."""

_PLAN_COLUMNS = ("planned_id", "position", "row_id", "n_tokens", "n_tiles", "n_loss_tokens")
_CONTENT_COLUMNS = ("row_id", "source", "category", "conversations", "image_ids", "video")


@dataclass(frozen=True, slots=True)
class MaterializeReport:
    """Result of materialising a stage.

    Attributes:
        stage: The training stage.
        n_rows: Rows of the plan.
        n_kept_rows: Rows that were there already.
        n_image_bytes: Bytes of images that were written.
        data_version: Data version of the plan.
        duration_s: Seconds it took.
    """

    stage: str
    n_rows: int
    n_kept_rows: int
    n_image_bytes: int
    data_version: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class RowOrigin:
    """What all rows of a run have in common.

    Attributes:
        frame_limits: Frames taken from a video.
        plan_version: Data version of the plan.
        plan_table_version: Version of its table.
        run_id: Run that the rows name.
    """

    frame_limits: FrameLimits
    plan_version: str
    plan_table_version: int
    run_id: str


@dataclass(frozen=True, slots=True)
class RowShard:
    """The task of writing consecutive rows.

    Attributes:
        lake_address: Address of the lake.
        stage: The training stage.
        start: Position of the first row.
        planned_rows: Rows of the plan.
        addresses: Where their content is.
        origin: Where they come from.
    """

    lake_address: str
    stage: TrainingStage
    start: int
    planned_rows: pa.Table
    addresses: RowAddresses
    origin: RowOrigin

    def __str__(self) -> str:
        return f"packed_rows/{self.stage} from row {self.start}"


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """A shard that is on disk but not committed yet."""

    start: int
    fragments: UncommittedFragments
    n_image_bytes: int

    @property
    def stop(self) -> int:
        """Position after the last row."""
        return self.start + self.fragments.n_rows


def materialize_packs(
    lake: Lake,
    stage: TrainingStage,
    executor: Executor,
    *,
    frame_limits: FrameLimits,
    run_id: str,
    progress_callback: Callable[[int, int], None] | None = None,
) -> MaterializeReport:
    """Write the rows of `pack_plan/<stage>` to `packed_rows/<stage>`, those that are missing.

    Rows of another plan are removed first. May be killed at any time and run again.

    Args:
        lake: The lake.
        stage: The training stage.
        executor: Runs the shards.
        frame_limits: Frames that the stage takes from a video; no others are written.
        run_id: Run that the rows name.
        progress_callback: Called with (rows committed, rows in total).

    Raises:
        MvlError: There is no plan, or the lake lacks a row or image of it.
        LeaseHeld: Another process is writing the same rows.
    """
    started_at = time.monotonic()
    plan_table = lake.get_table(f"pack_plan/{stage}")
    if not plan_table.count():
        raise MvlError(f"there is no pack_plan/{stage}", hint=f"materialise pack_plan/{stage} first")
    plan = plan_table.snapshot()
    plan.require_known_keys()
    plan_version, n_rows = plan.compute_data_version(), plan.count()
    table = lake.get_table(f"packed_rows/{stage}")
    table.create()
    n_image_bytes = 0
    with create_lease(table) as lease:
        n_kept = count_kept_rows(table, plan)
        if n_kept < table.count():
            table.delete("true")
        if n_kept < n_rows:
            with open_pack_addresses(lake, stage, plan, n_kept) as book:
                book.require_complete()
                origin = RowOrigin(frame_limits, plan_version, plan.version, run_id)
                shards = _iter_shards(lake, stage, plan, book, origin, n_kept)
                pending: list[WrittenShard] = []
                committed_at = time.monotonic()
                with closing(executor.run(write_shard, shards)) as written:
                    for shard in iter_in_order(written, lambda shard: (shard.start, shard.stop), n_kept):
                        pending.append(shard)
                        if shard.stop == n_rows or time.monotonic() - committed_at >= COMMIT_INTERVAL_S:
                            lease.renew()
                            table.append_fragments([shard.fragments for shard in pending])
                            n_image_bytes += sum(shard.n_image_bytes for shard in pending)
                            pending, committed_at = [], time.monotonic()
                            if progress_callback is not None:
                                progress_callback(shard.stop, n_rows)
    return MaterializeReport(stage, n_rows, n_kept, n_image_bytes, plan_version, time.monotonic() - started_at)


def is_materialized(lake: Lake, stage: TrainingStage, setting: Literal["auto"] | bool) -> bool:
    """Return whether the plan of a stage is to be materialised, by the profile's `materialize_packs`."""
    if setting == "auto":
        return lake.get_table(f"mixture/{stage}").count() >= MATERIALIZE_MIN_ROWS
    return setting


def remove_packed_rows(lake: Lake, stage: TrainingStage) -> None:
    """Empty `packed_rows/<stage>`; training then reads in place. `mvl gc` frees the bytes."""
    table = lake.get_table(f"packed_rows/{stage}")
    if table.count():
        table.delete("true")


def count_kept_rows(table: TableReader, plan: TableReader) -> int:
    """Return how many rows in the table are the beginning of the plan; 0 if any of them is another.

    A planned id is the digest of the plan's inputs, the position, and the text and image ids of the row.
    """
    n_kept = 0
    packed, planned = (_iter_planned_ids(reader) for reader in (table, plan))
    for planned_id in packed:
        if planned_id != next(planned, None):
            return 0
        n_kept += 1
    return n_kept


def _iter_shards(
    lake: Lake, stage: TrainingStage, plan: TableReader, book: AddressBook, origin: RowOrigin, first_position: int
) -> Iterator[RowShard]:
    n_rows = plan.count()
    plan_schema = pa.schema([plan.schema.field(name) for name in _PLAN_COLUMNS])
    for start in range(first_position, n_rows, SHARD_ROWS):
        stop = min(start + SHARD_ROWS, n_rows)
        planned_rows = pa.Table.from_pylist(list(plan.iter_range(start, stop, _PLAN_COLUMNS)), plan_schema)
        yield RowShard(lake.address, stage, start, planned_rows, book.read(start, stop), origin)


def write_shard(shard: RowShard) -> WrittenShard:
    """Write the rows of a shard as fragments that nobody sees yet. Memory holds their text and a group of images."""
    lake = Lake(shard.lake_address)
    table: Table = lake.get_table(f"packed_rows/{shard.stage}")
    n_image_bytes = 0

    def iter_batches() -> Iterator[pa.Table]:
        nonlocal n_image_bytes
        for rows in _iter_row_groups(lake.snapshot(), shard):
            n_image_bytes += sum(len(row["image_bytes"]) for row in rows)
            yield build_packed_table(rows)

    return WrittenShard(shard.start, table.write_fragments(iter_batches()), n_image_bytes)


def _iter_row_groups(lake: Lake, shard: RowShard) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows as rows of the table, in groups whose images fit into memory."""
    rows = _read_contents(lake, shard)
    images_by_row = _list_images(shard, rows)
    start = 0
    for stop in iter_group_ends(sum(image["size"] for image in images) for images in images_by_row):
        image_addresses = [image["address"] for images in images_by_row[start:stop] for image in images]
        image_data = read_located_images(lake, shard.addresses, image_addresses)
        yield [
            {
                **row,
                "stored_image_ids": [image["image_id"] for image in images],
                "stored_image_sizes": [image["size"] for image in images],
                "image_bytes": b"".join(image_data[image["address"]] for image in images),
                "plan_version": shard.origin.plan_version,
                "plan_table_version": shard.origin.plan_table_version,
                "run_id": shard.origin.run_id,
            }
            for row, images in zip(rows[start:stop], images_by_row[start:stop], strict=True)
        ]
        start = stop


def _read_contents(lake: Lake, shard: RowShard) -> list[dict[str, Any]]:
    """Return the rows of the plan with their content."""
    contents = [{name: row[name] for name in _CONTENT_COLUMNS} for row in read_located_rows(lake, shard.addresses)]
    planned_rows = shard.planned_rows.to_pylist()
    if [content["row_id"] for content in contents] != [row["row_id"] for row in planned_rows]:
        raise _build_stale_plan_error(shard.stage, f"rows from position {shard.start} are not in the lake")
    return [row | content for row, content in zip(planned_rows, contents, strict=True)]


def _list_images(shard: RowShard, rows: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the images that each row shows, each once, as rows of `RowAddresses.images`."""
    located = {(image["part"], image["image_id"]): image for image in shard.addresses.images.to_pylist()}
    images_by_row = []
    for row in rows:
        image_ids = dict.fromkeys(shard.origin.frame_limits.select_image_ids(row))
        if missing_ids := [image_id for image_id in image_ids if (row["position"], image_id) not in located]:
            raise _build_stale_plan_error(shard.stage, f"image {missing_ids[0]} is not in the lake")
        images_by_row.append([located[row["position"], image_id] for image_id in image_ids])
    return images_by_row


def _iter_planned_ids(reader: TableReader) -> Iterator[str]:
    for batch in reader.scan(["planned_id"], batch_size=65_536):
        yield from batch.column(0).to_pylist()


def _build_stale_plan_error(stage: str, problem: str) -> MvlError:
    return MvlError(f"pack_plan/{stage}: {problem}", hint=f"materialise pack_plan/{stage} again")
