"""Materialising packs: the rows, texts and image bytes of a pack plan, written once in the order of training.

The packs are written in shards, each one fragment of the table, and committed in order: what is in the table is always
the beginning of one plan, so a run that was killed goes on with the next shard. The shards are tasks of the executor.
No torch, no tokenizer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.errors import MvlError
from mvl_assets.execution.executor import Executor
from mvl_assets.execution.result_order import iter_in_order
from mvl_assets.lake.durability.lease import create_lease
from mvl_assets.lake.fragments import UncommittedFragments
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.training_tables import PACKED_ROW_LIST
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
from mvl_training.data.packed_rows import PackedRows
from mvl_training.data.raw_packs import iter_group_ends, select_image_ids

SHARD_PACKS = 512
"""Packs of a shard: 0.4 to 2 GB with the paper's images, and 3,000 shards for twelve million rows."""

COMMIT_INTERVAL_S = 30.0
"""How much finished work a kill may lose. A commit per shard would leave a gigabyte of manifests for twelve million
rows, because each lists all fragments."""

MATERIALIZE_MIN_ROWS = 1_000_000
"""Rows of a mixture from which packs are materialised unless the profile says otherwise. Below it the indexes of a rank
take less than 100 MB and a few seconds, and the images need not lie on the disk twice."""

PACKED_ROW_NAMES = tuple(field.name for field in PACKED_ROW_LIST.value_type)
_PLAN_COLUMNS = ("pack_id", "position", "row_ids", "lengths", "n_tokens", "n_tiles", "n_loss_tokens")


@dataclass(frozen=True, slots=True)
class MaterializeReport:
    """Result of materialising a stage.

    Attributes:
        stage: The training stage.
        n_packs: Packs of the plan.
        n_kept_packs: Packs that were there already.
        n_samples: Samples of the plan.
        n_image_bytes: Bytes of images that were written.
        data_version: Data version of the plan.
        duration_s: Seconds it took.
    """

    stage: str
    n_packs: int
    n_kept_packs: int
    n_samples: int
    n_image_bytes: int
    data_version: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class PackOrigin:
    """What all packs of a run have in common.

    Attributes:
        max_frames: Frames taken from a video.
        plan_version: Data version of the plan.
        plan_table_version: Version of its table.
        run_id: Run that the rows name.
    """

    max_frames: int
    plan_version: str
    plan_table_version: int
    run_id: str


@dataclass(frozen=True, slots=True)
class PackShard:
    """The task of writing consecutive packs.

    Attributes:
        lake_root: Root of the lake.
        stage: The training stage.
        start: Position of the first pack.
        packs: Rows of the plan.
        n_samples_before: Samples of the plan before the first pack.
        addresses: Where the content of the packs is.
        origin: Where the packs come from.
    """

    lake_root: str
    stage: TrainingStage
    start: int
    packs: pa.Table
    n_samples_before: int
    addresses: RowAddresses
    origin: PackOrigin

    def __str__(self) -> str:
        return f"packed_rows/{self.stage} from pack {self.start}"


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """A shard that is on disk but not committed yet."""

    start: int
    fragments: UncommittedFragments
    n_image_bytes: int

    @property
    def stop(self) -> int:
        """Position after the last pack."""
        return self.start + self.fragments.n_rows


def materialize_packs(
    lake: Lake,
    stage: TrainingStage,
    executor: Executor,
    *,
    max_frames: int,
    run_id: str,
    progress_callback: Callable[[int, int], None] | None = None,
) -> MaterializeReport:
    """Write the packs of `pack_plan/<stage>` to `packed_rows/<stage>`, those that are missing.

    Packs of another plan are removed first. May be killed at any time and run again.

    Args:
        lake: The lake.
        stage: The training stage.
        executor: Runs the shards.
        max_frames: Frames that the stage takes from a video; no others are written.
        run_id: Run that the rows name.
        progress_callback: Called with (packs committed, packs in total).

    Raises:
        MvlError: There is no plan, or the lake lacks a row or image of it.
        LeaseHeld: Another process is writing the same packs.
    """
    started_at = time.monotonic()
    plan_table = lake.get_table(f"pack_plan/{stage}")
    if not plan_table.count():
        raise MvlError(f"there is no pack_plan/{stage}", hint=f"materialise pack_plan/{stage} first")
    plan = plan_table.snapshot()
    plan.require_known_keys()
    plan_version, n_packs = plan.compute_data_version(), plan.count()
    table = lake.get_table(f"packed_rows/{stage}")
    table.create()
    n_image_bytes = 0
    with create_lease(table) as lease:
        n_kept = count_kept_packs(table, plan)
        if n_kept < table.count():
            table.delete("true")
        if n_kept < n_packs:
            with open_pack_addresses(lake, stage, plan, n_kept) as book:
                book.require_complete()
                n_samples = PackedRows(stage, table.snapshot()).count_samples() if n_kept else 0
                origin = PackOrigin(max_frames, plan_version, plan.version, run_id)
                shards = _iter_shards(lake, stage, plan, book, origin, n_kept, n_samples)
                pending: list[WrittenShard] = []
                committed_at = time.monotonic()
                with closing(executor.run(write_shard, shards)) as written:
                    for shard in iter_in_order(written, lambda shard: (shard.start, shard.stop), n_kept):
                        pending.append(shard)
                        if shard.stop == n_packs or time.monotonic() - committed_at >= COMMIT_INTERVAL_S:
                            lease.renew()
                            table.append_fragments([shard.fragments for shard in pending])
                            n_image_bytes += sum(shard.n_image_bytes for shard in pending)
                            pending, committed_at = [], time.monotonic()
                            if progress_callback is not None:
                                progress_callback(shard.stop, n_packs)
    return MaterializeReport(
        stage,
        n_packs,
        n_kept,
        PackedRows(stage, table.snapshot()).count_samples(),
        n_image_bytes,
        plan_version,
        time.monotonic() - started_at,
    )


def is_materialized(lake: Lake, stage: TrainingStage, setting: Literal["auto"] | bool) -> bool:
    """Return whether the packs of a stage are to be materialised, by the profile's `materialize_packs`."""
    if setting == "auto":
        return lake.get_table(f"mixture/{stage}").count() >= MATERIALIZE_MIN_ROWS
    return setting


def remove_packed_rows(lake: Lake, stage: TrainingStage) -> None:
    """Empty `packed_rows/<stage>`; training then reads in place. `mvl gc` frees the bytes."""
    table = lake.get_table(f"packed_rows/{stage}")
    if table.count():
        table.delete("true")


def count_kept_packs(table: TableReader, plan: TableReader) -> int:
    """Return how many packs in the table are the beginning of the plan; 0 if any of them is another.

    A pack id is the digest of the plan's inputs, the position, and all text and image ids of the pack.
    """
    n_kept = 0
    packed, planned = (_iter_pack_ids(reader) for reader in (table, plan))
    for pack_id in packed:
        if pack_id != next(planned, None):
            return 0
        n_kept += 1
    return n_kept


def _iter_shards(
    lake: Lake,
    stage: TrainingStage,
    plan: TableReader,
    book: AddressBook,
    origin: PackOrigin,
    first_pack: int,
    n_samples_before: int,
) -> Iterator[PackShard]:
    n_packs = plan.count()
    plan_schema = pa.schema([plan.schema.field(name) for name in _PLAN_COLUMNS])
    for start in range(first_pack, n_packs, SHARD_PACKS):
        stop = min(start + SHARD_PACKS, n_packs)
        packs = pa.Table.from_pylist(list(plan.iter_range(start, stop, _PLAN_COLUMNS)), plan_schema)
        yield PackShard(lake.root, stage, start, packs, n_samples_before, book.read(start, stop), origin)
        n_samples_before += len(pc.list_flatten(packs.column("row_ids")))


def write_shard(shard: PackShard) -> WrittenShard:
    """Write the packs of a shard as fragments that nobody sees yet. Memory holds their text and a group of images."""
    lake = Lake(shard.lake_root)
    table: Table = lake.get_table(f"packed_rows/{shard.stage}")
    n_image_bytes = 0

    def iter_batches() -> Iterator[pa.Table]:
        nonlocal n_image_bytes
        for rows in _iter_row_groups(lake.snapshot(), shard):
            n_image_bytes += sum(len(row["image_bytes"]) for row in rows)
            yield build_packed_table(rows)

    return WrittenShard(shard.start, table.write_fragments(iter_batches()), n_image_bytes)


@dataclass(frozen=True, slots=True)
class _PackContent:
    """A planned pack, its rows, and the images that they show, as rows of `RowAddresses.images`."""

    pack: dict[str, Any]
    rows: list[dict[str, Any]]
    images: list[dict[str, Any]]


def _iter_row_groups(lake: Lake, shard: PackShard) -> Iterator[list[dict[str, Any]]]:
    """Yield the packs as rows of the table, in groups whose images fit into memory."""
    contents = _read_contents(lake, shard)
    n_samples_before, start = shard.n_samples_before, 0
    for stop in iter_group_ends(sum(image["size"] for image in content.images) for content in contents):
        image_addresses = [image["address"] for content in contents[start:stop] for image in content.images]
        image_data = read_located_images(lake, shard.addresses, image_addresses)
        group = []
        for content in contents[start:stop]:
            group.append(
                {
                    **content.pack,
                    "rows": content.rows,
                    "image_ids": [image["image_id"] for image in content.images],
                    "image_sizes": [image["size"] for image in content.images],
                    "image_bytes": b"".join(image_data[image["address"]] for image in content.images),
                    "n_samples": len(content.rows),
                    "n_samples_before": n_samples_before,
                    "plan_version": shard.origin.plan_version,
                    "plan_table_version": shard.origin.plan_table_version,
                    "run_id": shard.origin.run_id,
                }
            )
            n_samples_before += len(content.rows)
        yield group
        start = stop


def _read_contents(lake: Lake, shard: PackShard) -> list[_PackContent]:
    contents = [_PackContent(pack, [], []) for pack in shard.packs.to_pylist()]
    for row in read_located_rows(lake, shard.addresses):
        contents[row["part"] - shard.start].rows.append({name: row[name] for name in PACKED_ROW_NAMES})
    images = {(image["part"], image["image_id"]): image for image in shard.addresses.images.to_pylist()}
    for position, content in enumerate(contents, shard.start):
        if [row["row_id"] for row in content.rows] != content.pack["row_ids"]:
            raise _build_stale_plan_error(shard.stage, f"rows of pack {position} are not in the lake")
        image_ids = (i for row in content.rows for i in select_image_ids(row, shard.origin.max_frames))
        for image_id in dict.fromkeys(image_ids):
            if (position, image_id) not in images:
                raise _build_stale_plan_error(shard.stage, f"image {image_id} is not in the lake")
            content.images.append(images[position, image_id])
    return contents


def _iter_pack_ids(reader: TableReader) -> Iterator[str]:
    for batch in reader.scan(["pack_id"], batch_size=65_536):
        yield from batch.column(0).to_pylist()


def _build_stale_plan_error(stage: str, problem: str) -> MvlError:
    return MvlError(f"pack_plan/{stage}: {problem}", hint=f"materialise pack_plan/{stage} again")
