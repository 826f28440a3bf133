"""Finds the stored answers that a purge concerns, through the request keys that derived rows refer to."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import chain

from mvl_assets.lake import sql
from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.table_sizes import measure_table_sizes
from mvl_assets.lake_queries.lineage import list_request_keys
from mvl_assets.lake_queries.removal.purge_scope import BATCH_SIZE, EVALUATION_FAMILY, PurgeScope

ANSWERS_PREFIX, BATCHES_PREFIX = "answers/", "batches/"
EVALUATION_ANSWERS_PREFIX = f"{ANSWERS_PREFIX}{EVALUATION_FAMILY}/"
_HAS_REQUEST = "request_key IS NOT NULL"


def may_be_about(table_name: str, source: str) -> bool:
    """Return whether answers are of the source or a shard of it, or of a checkpoint, which may concern any source."""
    # answers/{stage}/{source}, and answers/{stage}/{source}/{shard} for a source that is divided
    return table_name.startswith(EVALUATION_ANSWERS_PREFIX) or table_name.split("/")[2] == source


class AnswerScope:
    """The answers that belong to a `PurgeScope`."""

    def __init__(self, scope: PurgeScope) -> None:
        self._scope = scope
        self._lake = scope.lake

    @cached_property
    def table_names(self) -> list[str]:
        """The source's tables of answers, and those of checkpoints that were asked about the samples."""
        evaluated_checkpoints = {
            f"{EVALUATION_ANSWERS_PREFIX}{row['checkpoint']}"
            for name in self._lake.list_tables_with_arms(EVALUATION_FAMILY)
            for row in self._lake.get_table(name).iter_rows(["checkpoint"], self._scope.delete_filters[name])
        }
        return [
            name
            for name in measure_table_sizes(self._lake)
            if name.startswith(ANSWERS_PREFIX)
            and may_be_about(name, self._scope.source)
            and (name in evaluated_checkpoints or not name.startswith(EVALUATION_ANSWERS_PREFIX))
        ]

    def is_dropped_entirely(self, table_name: str) -> bool:
        """Return whether all answers of a table are deleted.

        A checkpoint's answers are: they cost little, and do not record which sample they are about.
        """
        return self._scope.is_whole_source or table_name.startswith(EVALUATION_ANSWERS_PREFIX)

    def count(self, table_name: str) -> int:
        """Count the answers to delete from a table, without orphans."""
        if self.is_dropped_entirely(table_name):
            return self._lake.get_table(table_name).count()
        return len(self._lake.get_index(table_name).find_existing(self.request_keys))

    @cached_property
    def request_keys(self) -> set[str]:
        """The request keys of the samples alone: an answer that another sample of the source shares stays."""
        keys = {key for batch in self._iter_referenced_keys() for key in batch}
        for batch in self._iter_referenced_keys(of_other_samples=True):
            keys.difference_update(batch)
        return keys

    def find_orphans(self, table_name: str) -> IdSet:
        """Return the answers that no row refers to (first tries, earlier prompts): their sample is unknown."""
        if self.is_dropped_entirely(table_name):
            return IdSet(())
        stored_batches = self._lake.get_table(table_name).scan(["request_key"], None, BATCH_SIZE)
        return IdSet(batch.column(0).to_pylist() for batch in stored_batches).difference(
            chain(self._iter_referenced_keys(), self._iter_referenced_keys(of_other_samples=True))
        )

    def _iter_referenced_keys(self, *, of_other_samples: bool = False) -> Iterator[list[str]]:
        """Yield the request keys in rows about the samples, or in those about all others of the source."""
        for name in [*self._lake.list_tables("rewritten"), *self._lake.list_tables("scored")]:
            row_filter = self._select(self._scope.build_filter(name.split("/")[0]), of_other_samples)
            table = self._lake.get_table(name)
            for batch in table.scan(["request_key"], f"{row_filter} AND {_HAS_REQUEST}", BATCH_SIZE):
                yield batch.column(0).to_pylist()
        for name in self._lake.list_tables("judged"):
            row_filter = self._select(self._scope.build_filter("judged"), of_other_samples)
            table = self._lake.get_table(name)
            for row in table.iter_rows(["verdicts", "panel"], row_filter, BATCH_SIZE):
                yield list_request_keys(row)
        row_filter = self._select(self._scope.delete_filters["rejects"], of_other_samples)
        rejects = self._lake.get_table("rejects")
        for batch in rejects.scan(["request_key"], f"{row_filter} AND {_HAS_REQUEST}", BATCH_SIZE):
            yield batch.column(0).to_pylist()

    def _select(self, condition: str, of_other_samples: bool) -> str:
        """Restrict a condition for the samples, or turn it into one for all other samples of the source."""
        return (
            f"{sql.equals('source', self._scope.source)} AND NOT ({condition})"
            if of_other_samples
            else f"({condition})"
        )
