"""What was paid for: one Lance table of raw answers per stage and source, written as they come in.

The table is the checkpoint. An answer that `append` has returned for survives a kill of the process and, on a local
disk, a power cut; pending work is whatever `find_answered` does not name. Rows are never changed: rewrites and verdicts are
derived from them and can be derived again for nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from types import TracebackType

import pyarrow as pa

from mvl_assets.lake.durable import resolve_local_path
from mvl_assets.lake.errors import LakeError, translate_disk_errors
from mvl_assets.lake.key_index import KeyIndex
from mvl_assets.lake.lease import ConfigLease, FileLease, create_lease
from mvl_assets.lake.malloc import create_small_session, release_freed_blocks
from mvl_assets.lake.schema import ANSWERS, Answer
from mvl_assets.lake.table import MAX_RETRIES, Table

# A commit reads the whole key column and one small file per fragment: fold fragments before they add up. Fragments of
# this size hold a few seconds of a fast run; little is rewritten, and held in memory, to fill one.
COMMITS_PER_COMPACTION = 20
ROWS_PER_FRAGMENT = 10_000


class AnswerLog:
    """Reading needs nothing; writing needs `with log:`, which takes the partition's lease."""

    def __init__(self, table: Table, stage: str, source: str) -> None:
        self.table = table
        self.stage = stage
        self.source = source
        table.session = create_small_session()
        self._index = KeyIndex(table)
        self._stack: ExitStack | None = None
        self._lease: FileLease | ConfigLease | None = None
        self._n_commits = 0

    # -- reading ---------------------------------------------------------------------------------------------------

    def count(self) -> int:
        return self.table.count()

    def find_answered(self, request_keys: Iterable[str]) -> set[str]:
        """Those of `request_keys` that have an answer."""
        return self._index.find_existing(list(request_keys))

    def get(self, request_keys: Iterable[str], columns: Sequence[str] | None = None) -> dict[str, dict]:
        """The stored answers of `request_keys`, by key."""
        return self._index.read_rows(list(request_keys), columns)

    def scan(self, columns: Sequence[str] | None = None, filter: str | None = None) -> Iterator[pa.RecordBatch]:
        yield from self.table.scan(columns, filter)

    # -- writing ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> AnswerLog:
        """Takes the lease (raises `LeaseHeld`), mends a torn newest version and folds what a kill left behind."""
        release_freed_blocks()
        with translate_disk_errors(self.table.uri), ExitStack() as stack:
            if resolve_local_path(self.table.uri) is None:
                self.table.create()  # its lease lives inside the table
            lease = create_lease(self.table)
            stack.enter_context(lease)
            self.table.create()
            self.table.sync()
            n_small_fragments = sum(f.physical_rows < ROWS_PER_FRAGMENT for f in self.table.open().get_fragments())
            if n_small_fragments > COMMITS_PER_COMPACTION:
                self.maintain()
            self._stack, self._lease = stack.pop_all(), lease
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._stack is not None
        self._stack.close()
        self._stack = self._lease = None

    def renew(self) -> None:
        """Keeps the lease, also where there is nothing to append for long. Raises `LeaseHeld` when it is lost."""
        if self._lease is not None:
            with translate_disk_errors(self.table.uri):
                self._lease.renew()

    def append(self, answers: Sequence[Answer]) -> int:
        """Stores answers durably in one commit and returns how many were new; equal keys keep the first answer."""
        if self._lease is None:
            raise LakeError(f"{self.table.uri}: append needs the lease", hint="use `with log:`")
        unique_answers = list({a.request_key: a for a in reversed(answers)}.values())
        if not unique_answers:
            return 0
        with translate_disk_errors(self.table.uri):
            self._lease.renew()
            stats = (
                self.table.open_writable()
                .merge_insert("request_key")
                .when_not_matched_insert_all()
                .use_index(False)
                .conflict_retries(MAX_RETRIES)
                .execute(pa.Table.from_pylist([asdict(a) for a in unique_answers], schema=ANSWERS.schema))
            )
            self.table.sync()
        self._n_commits += 1
        if self._n_commits % COMMITS_PER_COMPACTION == 0:
            self.maintain()
        return stats["num_inserted_rows"]

    def maintain(self) -> None:
        """Folds small fragments and drops old versions; safe at any time for the holder of the lease."""
        dataset = self.table.open_writable()
        with translate_disk_errors(self.table.uri), self._index.keep_during_compaction():
            # The default target of a million rows would rewrite the big fragment every time.
            dataset.optimize.compact_files(target_rows_per_fragment=ROWS_PER_FRAGMENT)
            self.table.sync()  # before the files it replaces can go
            dataset.cleanup_old_versions(older_than=dt.timedelta(0), retain_versions=5)
