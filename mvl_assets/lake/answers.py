"""Raw answers of model servers: one Lance table per stage and source, written as the answers arrive.

The table is the checkpoint of a stage. An answer for which `append` has returned survives a kill of the process and, on
a local disk, a power cut; pending work is what `find_answered` does not return. Rows never change: rewrites and
verdicts are derived from them and can be derived again for free.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from types import TracebackType

import lance
import pyarrow as pa

from mvl_assets.common.digest import KEY_SCHEME
from mvl_assets.common.malloc import release_freed_blocks
from mvl_assets.lake.batch_journal import BatchJournal
from mvl_assets.lake.durability.lease import ConfigLease, FileLease, create_lease
from mvl_assets.lake.errors import LakeError, translate_disk_errors
from mvl_assets.lake.fragments import FRAGMENT_BITS, UncommittedFragments, list_data_files
from mvl_assets.lake.key_index import KeyIndex
from mvl_assets.lake.schemas.data_tables import ANSWERS
from mvl_assets.lake.schemas.rows import Answer
from mvl_assets.lake.schemas.table_spec import KEY_SCHEME_COLUMN
from mvl_assets.lake.storage import resolve_local_path
from mvl_assets.lake.table import Table

# A commit leaves a small fragment, and every fragment costs each later commit and look-up a little. So small ones are
# joined every now and then: little is rewritten, and held in memory, to fill one. A long log is joined once more.
COMMITS_PER_COMPACTION = 20
ROWS_PER_FRAGMENT = 10_000
MAX_FRAGMENTS = 64
ROWS_PER_LARGE_FRAGMENT = 1 << 20
# Only the key column is read, and the manifest of one version takes tens of kilobytes.
CACHE_BYTES = 4 << 20


class AnswerLog:
    """Answers of one stage and source. Reading needs nothing; writing needs `with log:`, which takes the lease.

    Attributes:
        table: The table `answers/{stage}/{source}`.
        stage: Pipeline stage that asked.
        source: Slug of the source, or whatever else the stage's answers are divided by.
        batches: The requests that a server has in batches.
    """

    def __init__(self, table: Table, stage: str, source: str, batches: BatchJournal) -> None:
        self.table = table
        self.stage = stage
        self.source = source
        self.batches = batches
        table.session = _create_small_session()
        self._index = KeyIndex(table)
        self._stack: ExitStack | None = None
        self._lease: FileLease | ConfigLease | None = None
        self._n_commits = 0
        self._are_keys_known = False

    # -- reading ---------------------------------------------------------------------------------------------------

    def count(self) -> int:
        """Count the stored answers."""
        return self.table.count()

    def find_answered(self, request_keys: Iterable[str]) -> set[str]:
        """Return those of the keys that have an answer.

        Raises:
            UnknownKeyScheme: Keys of stored answers were made by another scheme, so it is unknown which requests they
                answer. Without the error all requests would be sent, and paid for, again.
        """
        self._require_known_keys()
        return self._index.find_existing(list(request_keys))

    def get(self, request_keys: Iterable[str], columns: Sequence[str] | None = None) -> dict[str, dict]:
        """Return the stored answers by key, with all columns or only these. Raises as `find_answered` does."""
        self._require_known_keys()
        return self._index.read_rows(list(request_keys), columns)

    def scan(self, columns: Sequence[str] | None = None, filter: str | None = None) -> Iterator[pa.RecordBatch]:
        """Yield all answers, or those that match the SQL condition."""
        yield from self.table.scan(columns, filter)

    def _require_known_keys(self) -> None:
        # Once: what is appended from now on has the scheme of this program.
        if not self._are_keys_known:
            self.table.require_known_keys()
            self._are_keys_known = True

    # -- writing ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> AnswerLog:
        """Take the lease, repair a torn newest version, and compact what a killed run has left.

        Raises:
            LeaseHeld: Another process writes the same answers.
        """
        release_freed_blocks()
        with translate_disk_errors(self.table.uri), ExitStack() as stack:
            if resolve_local_path(self.table.uri) is None:
                self.table.create()  # the lease is stored inside the table
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
        """Keep the lease while there is nothing to append. Raises `LeaseHeld` if it was lost."""
        if self._lease is not None:
            with translate_disk_errors(self.table.uri):
                self._lease.renew()

    def append(self, answers: Sequence[Answer]) -> int:
        """Store answers durably in one commit, and return how many were new; of equal keys the first answer stays.

        Raises:
            LakeError: The log is not open for writing (`with log:`), or the disk is full.
        """
        if self._lease is None:
            raise LakeError(f"{self.table.uri}: append needs the lease", hint="use `with log:`")
        unique_answers = list({a.request_key: a for a in reversed(answers)}.values())
        read_version = self.table.version
        stored_keys = self._index.find_existing([a.request_key for a in unique_answers])
        new_answers = [answer for answer in unique_answers if answer.request_key not in stored_keys]
        if not new_answers:
            return 0
        with translate_disk_errors(self.table.uri):
            self._lease.renew()
            written = self.table.write_fragments([_build_answer_table(new_answers)])
            self.table.append_fragments([written])
            # An append compares no keys: the holder of the lease is the only writer. But on an object store a process
            # that was suspended may have lost the lease without noticing, and another one have stored the same.
            if self.table.version != read_version + 1:
                new_answers = self._drop_repeated(written, new_answers)
                self._lease.renew()
        self._n_commits += 1
        if self._n_commits % COMMITS_PER_COMPACTION == 0:
            self.maintain()
        return len(new_answers)

    def _drop_repeated(self, written: UncommittedFragments, answers: Sequence[Answer]) -> list[Answer]:
        """Remove the answers just appended that another writer had stored by then; return the others."""
        own_files = set(list_data_files(written.to_lance()))
        dataset = self.table.open()
        own = [f for f in dataset.get_fragments() if own_files.issuperset(list_data_files([f.metadata]))]
        own_ids = {fragment.fragment_id for fragment in own}
        key_addresses = self._index.load_key_addresses()
        assert key_addresses is not None
        addresses = key_addresses.lookup([answer.request_key for answer in answers])
        first = [a for a in answers if addresses[a.request_key] >> FRAGMENT_BITS in own_ids]
        if len(first) < len(answers):
            self.table.exchange_fragments(own, [self.table.write_fragments([_build_answer_table(first)])])
        return first

    def maintain(self) -> None:
        """Compact small fragments and drop old versions; safe at any time for the holder of the lease."""
        dataset = self.table.open_writable()
        is_long = len(dataset.get_fragments()) > MAX_FRAGMENTS + COMMITS_PER_COMPACTION
        with translate_disk_errors(self.table.uri):
            # A large target would rewrite the largest fragment every time.
            dataset.optimize.compact_files(
                target_rows_per_fragment=ROWS_PER_LARGE_FRAGMENT if is_long else ROWS_PER_FRAGMENT
            )
            self.table.sync()  # before the files it replaces can go
            dataset.cleanup_old_versions(older_than=dt.timedelta(0), retain_versions=5)


def _build_answer_table(answers: Sequence[Answer]) -> pa.Table:
    rows = [{**asdict(answer), KEY_SCHEME_COLUMN: KEY_SCHEME} for answer in answers]
    return pa.Table.from_pylist(rows, schema=ANSWERS.schema)


def _create_small_session() -> lance.Session:
    """Create small caches, for a commit every second: Lance's default ones keep the data of a thousand versions."""
    return lance.Session(metadata_cache_size_bytes=CACHE_BYTES, index_cache_size_bytes=CACHE_BYTES)
