"""Removing a source, or some samples of one, from every table, and their bytes from the disk.

The order of the steps is the recovery plan. First a tombstone is written, so that the data cannot come back; then the
rows derived from it go, answers first; images and the samples themselves go last, because everything else is found
through them. Every step looks up what is left to do, so a purge that was killed is simply run again.

Exports and checkpoints are outside the lake: see `cli/purge.py`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa

from mvl_assets.lake.durability.compaction import (
    compact_fragments,
    delete_keys,
    expire_versions,
    find_fragments_with_deletions,
)
from mvl_assets.lake.durability.lease import create_lease
from mvl_assets.lake.durability.locks import acquire_removal_lock
from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table import Table
from mvl_assets.lake.table_sizes import measure_table_sizes
from mvl_assets.lake_queries.removal.id_prefix import build_prefix_filter
from mvl_assets.lake_queries.removal.image_refs import iter_image_sizes
from mvl_assets.lake_queries.removal.purge_answers import ANSWERS_PREFIX, BATCHES_PREFIX, AnswerScope, may_be_about
from mvl_assets.lake_queries.removal.purge_scope import BATCH_SIZE, EVALUATION_FAMILY, PACKED_ROWS_FAMILY, PurgeScope
from mvl_assets.lake_queries.removal.tombstones import add_tombstones, compute_unlicensed_content_hash

# Besides the answers, these tables hold more of a sample than ids and numbers: their old bytes have to go, too.
PACKED_ROWS_PREFIX = f"{PACKED_ROWS_FAMILY}/"
CONTENT_TABLES = (
    "samples",
    "images",
    "rejects",
    "rewritten/",
    PACKED_ROWS_PREFIX,
    f"{EVALUATION_FAMILY}/",
    "curation/benchmark_index",
)
# Of these, the lock of the images keeps other writers out.
LOCKED_TABLES = ("samples", "images")


@dataclass(frozen=True, slots=True)
class PurgePlan:
    """The rows, images and answers that a purge would remove.

    Attributes:
        row_counts: Rows by table, for tables that lose any.
        n_images: Images to remove.
        image_bytes: Their bytes.
        n_shared_images: Images that stay because other samples use them.
        n_copies: Samples removed with the named ones because their content is the same.
        duplicates_elsewhere: (source, sample id) of equal samples of other sources, which stay.
        affected_stages: Training stages, of arms of studies too, whose mixture or pack plan loses rows.
        n_orphan_answers: Answers of the source that no row refers to, so that their sample is unknown.
    """

    row_counts: dict[str, int]
    n_images: int
    image_bytes: int
    n_shared_images: int
    n_copies: int
    duplicates_elsewhere: list[tuple[str, str]]
    affected_stages: list[str]
    n_orphan_answers: int


def resolve_sample_ids(lake: Lake, prefixes: Iterable[str]) -> dict[str, list[str]]:
    """Return full sample ids by source for ids or their prefixes; purged samples are found as well.

    Raises:
        LakeError: A prefix matches no sample, or more than one.
    """
    sample_ids_by_source: dict[str, list[str]] = {}
    for prefix in (p.strip().lower() for p in prefixes):
        condition = build_prefix_filter("sample_id", prefix)
        matches = {
            (row["source"], row["sample_id"])
            for name in ("samples", "tombstones")
            for row in lake.get_table(name).iter_rows(["source", "sample_id"], condition)
        }
        if len(matches) != 1:
            raise LakeError(
                f"{'more than one' if matches else 'no'} sample has an id that begins with {prefix}",
                hint="`mvl trace ID` shows the sample of any row",
            )
        ((source, sample_id),) = matches
        sample_ids_by_source.setdefault(source, []).append(sample_id)
    return sample_ids_by_source


class Purge:
    """Removal of one source (`sample_ids` is None), or of some samples of it. Only `run` changes anything.

    Attributes:
        source: Slug of the source.
        scope: The rows and images concerned, as of the first look-up.
    """

    def __init__(self, lake: Lake, source: str, sample_ids: Collection[str] | None = None) -> None:
        lake = lake.get_pipeline_lake()
        self.source = source
        self.scope = PurgeScope(lake, source, sample_ids)
        self._lake = lake
        self._answers = AnswerScope(self.scope)

    def plan(self) -> PurgePlan:
        """Compute what `run` would remove now."""
        scope = self.scope
        mixture_tables = self._lake.list_tables_with_arms("mixture")
        filters = {
            **scope.delete_filters,
            **dict.fromkeys(mixture_tables, scope.build_filter("mixture")),
            "samples": scope.build_filter("samples"),
        }
        row_counts = {name: self._lake.get_table(name).count(condition) for name, condition in filters.items()}
        pack_plans = [f"pack_plan/{stage}" for stage in scope.packed_stages]
        row_counts |= {name: self._lake.get_table(name).count() for name in (*pack_plans, *scope.packed_tables)}
        row_counts |= {name: self._answers.count(name) for name in self._answers.table_names}
        image_sizes = list(iter_image_sizes(self._lake, self.source, scope.exclusive_image_ids))
        mixed_stages = {name.split("/", 1)[1] for name in mixture_tables if row_counts[name]}
        return PurgePlan(
            row_counts={name: n for name, n in sorted(row_counts.items()) if n},
            n_images=len(image_sizes),
            image_bytes=sum(image_sizes),
            n_shared_images=len(scope.image_ids) - len(scope.exclusive_image_ids),
            n_copies=len(scope.sample_ids - scope.requested_ids),
            duplicates_elsewhere=scope.list_duplicates_elsewhere(),
            affected_stages=sorted({*scope.packed_stages, *mixed_stages}),
            n_orphan_answers=sum(len(self._answers.find_orphans(name)) for name in self._answers.table_names),
        )

    def run(
        self,
        *,
        keep_bytes: bool = False,
        include_orphan_answers: bool = False,
        before_delete: Callable[[], None] = lambda: None,
    ) -> PurgePlan:
        """Remove everything.

        The bytes go at once, and with them the older versions of the tables that held them: a process that reads one of
        those versions fails and has to start again.

        Args:
            keep_bytes: Leave bytes and older versions for another run.
            include_orphan_answers: Also remove the source's answers that no row refers to.
            before_delete: Called before anything is deleted, once no other process can remove rows: for files outside
                the lake that are found through it.

        Returns:
            The plan of what remains: nothing, unless another process wrote in the meantime.

        Raises:
            LeaseHeld: Another process ingests or materialises packs, or holds the lease of the source's answers, or of
                any answers if bytes are to be removed.
        """
        with ExitStack() as stack:
            stack.enter_context(acquire_removal_lock(self._lake))
            for name in measure_table_sizes(self._lake):
                is_log = name.startswith(ANSWERS_PREFIX) and (not keep_bytes or may_be_about(name, self.source))
                if is_log or name.startswith(PACKED_ROWS_PREFIX):
                    stack.enter_context(create_lease(self._lake.get_table(name)))
            before_delete()
            # Looked up again: the lake may have changed between `plan` and taking the locks.
            purge = self._reload(self.scope.requested_ids)
            purge._execute(keep_bytes=keep_bytes, include_orphan_answers=include_orphan_answers)
        return purge._reload(purge.scope.sample_ids).plan()

    def _reload(self, sample_ids: Collection[str]) -> Purge:
        return Purge(self._lake, self.source, None if self.scope.is_whole_source else sample_ids)

    def _execute(self, *, keep_bytes: bool, include_orphan_answers: bool) -> None:
        # Looked up before the rows that lead to them are deleted.
        delete_filters = self.scope.delete_filters
        image_ids = self.scope.exclusive_image_ids
        sample_filter = self.scope.build_filter("samples")
        packed_tables = self.scope.packed_tables
        self._write_tombstones()
        self._delete_answers(include_orphan_answers)
        for stage in self.scope.packed_stages:  # a plan is made for all rows at once, so it goes as a whole
            self._lake.get_table(f"pack_plan/{stage}").publish(())
        for name in packed_tables:
            self._delete_rows(name, "true")
        for name in self._lake.list_tables_with_arms("mixture"):
            self._drop_from_mixture(name)
        for name, condition in delete_filters.items():
            self._delete_rows(name, condition)
        delete_keys(self._lake.images.table, image_ids, self.source)
        self._delete_rows("samples", sample_filter)
        if not keep_bytes:
            self._reclaim_bytes()

    def _write_tombstones(self) -> None:
        sample_ids = self.scope.sample_ids
        entries: set[tuple[str | None, str | None]] = {(None, None)}
        if not self.scope.is_whole_source:
            content_entries = {
                (row["sample_id"], compute_unlicensed_content_hash(row)) for row in self.scope.iter_versions(sample_ids)
            }
            id_only_entries = {(sample_id, None) for sample_id in sample_ids - {entry[0] for entry in content_entries}}
            entries = {*content_entries, *id_only_entries}
        add_tombstones(self._lake, self.source, entries)

    def _delete_answers(self, include_orphans: bool) -> None:
        for name in self._answers.table_names:
            if self._answers.is_dropped_entirely(name):
                self._delete_rows(name, "true")
            else:
                orphan_keys = self._answers.find_orphans(name) if include_orphans else ()
                delete_keys(self._lake.get_table(name), IdSet([self._answers.request_keys, orphan_keys]))
        # What is in batches is about samples of the source that nothing tells apart; of them all it is forgotten.
        if self.scope.is_whole_source:
            for name in measure_table_sizes(self._lake):
                if name.startswith(BATCHES_PREFIX) and may_be_about(name, self.source):
                    self._delete_rows(name, "true")

    def _drop_from_mixture(self, name: str) -> None:
        """Publish a mixture without the samples; its readers count on positions without gaps."""
        table = self._lake.get_table(name)
        delete_filter = self.scope.build_filter("mixture")
        if table.count(delete_filter):
            table.publish(_iter_renumbered(table, f"NOT ({delete_filter})"))

    def _delete_rows(self, name: str, condition: str) -> None:
        table = self._lake.get_table(name)
        if table.count(condition):
            table.delete(condition)

    def _reclaim_bytes(self) -> None:
        for name in measure_table_sizes(self._lake):
            is_own_log = name.startswith(ANSWERS_PREFIX) and may_be_about(name, self.source)
            has_lease = is_own_log or name.startswith(PACKED_ROWS_PREFIX)
            if has_lease or name.startswith(CONTENT_TABLES):
                table = self._lake.get_table(name)
                compact_fragments(table, find_fragments_with_deletions(table))
                expire_versions(table, dt.timedelta(0), is_only_writer=has_lease or name in LOCKED_TABLES)


def _iter_renumbered(table: Table, condition: str) -> Iterator[pa.Table]:
    """Yield the rows that match, in their order, with positions from 0."""
    position = 0
    column_names = table.spec.columns.names
    for batch in table.scan(column_names, condition, BATCH_SIZE):
        positions = pa.array(range(position, position + len(batch)), pa.int64())
        position += len(batch)
        yield pa.table(batch).set_column(column_names.index("position"), "position", positions)
