"""Taking a source, or some samples of one, out of every table, and their bytes off the disk.

The order of the steps is the recovery plan. First it is written down that the data may not come back; then goes what
was made of it, the answers first; its pictures and the samples themselves go last, because everything else is found
through them. Every step finds by looking what is left to do, so a purge that was killed is simply run again.

Belongs here: the tables. Does not: exports and checkpoints, which lie beside the lake.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake import sql
from mvl_assets.lake.compaction import compact_fragments, delete_keys, expire_versions, find_fragments_with_deletions
from mvl_assets.lake.durable import resolve_local_path
from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.lease import create_lease
from mvl_assets.lake.locks import acquire_removal_lock
from mvl_assets.lake.table import Table
from mvl_assets.lake.table_sizes import measure_table_sizes
from mvl_assets.lake_queries.image_refs import iter_image_sizes, iter_referenced_image_ids
from mvl_assets.lake_queries.tombstones import add_tombstones, compute_unlicensed_content_hash

ANSWERS_PREFIX, EVALUATION_FAMILY = "answers/", "evaluation"
EVALUATION_ANSWERS_PREFIX = f"{ANSWERS_PREFIX}{EVALUATION_FAMILY}/"
# Beside the answers these tables hold more of a sample than ids and numbers: their old bytes have to go, too.
CONTENT_TABLES = ("samples", "images", "rejects", "rewritten/", f"{EVALUATION_FAMILY}/")
BATCH_SIZE = 8192
MIN_ID_PREFIX_LENGTH = 6


@dataclass(frozen=True, slots=True)
class PurgePlan:
    """What a purge would take out: rows by table (those that lose any), pictures and their bytes.

    `n_shared_images` pictures stay because other samples use them. `n_copies` are samples that go with the named ones because they
    say exactly the same; `duplicates_elsewhere` are equal samples of other sources (source and id), which stay. `affected_stages` are those
    whose mixture or pack plan loses rows. `n_orphan_answers` counts answers of the source that no row refers to (first tries,
    earlier prompts), so that nobody knows whether they are about the samples.
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
    """Full sample ids by source, of ids or their beginnings; samples that were purged before are found as well.

    Raises `LakeError` when one names no sample, or more than one.
    """
    sample_ids_by_source: dict[str, list[str]] = {}
    for prefix in (p.strip().lower() for p in prefixes):
        if len(prefix) < MIN_ID_PREFIX_LENGTH or set(prefix) - set("0123456789abcdef"):
            raise LakeError(
                f"{prefix!r} is no id", hint=f"give at least {MIN_ID_PREFIX_LENGTH} characters of a sample's id"
            )
        condition = f"sample_id LIKE {sql.format_literal(prefix + '%')}"
        tables = (lake.get_table(name) for name in ("samples", "tombstones"))
        matches = {
            (row["source"], row["sample_id"])
            for table in tables
            for row in table.iter_rows(["source", "sample_id"], condition)
        }
        if len(matches) != 1:
            raise LakeError(
                f"{'more than one' if matches else 'no'} sample has an id that begins with {prefix}",
                hint="`mvl trace ID` shows the sample behind any row",
            )
        ((source, sample_id),) = matches
        sample_ids_by_source.setdefault(source, []).append(sample_id)
    return sample_ids_by_source


class Purge:
    """One source (`sample_ids` is None), or some samples of it. Making one and `plan` only look; `run` acts."""

    def __init__(self, lake: Lake, source: str, sample_ids: Collection[str] | None = None) -> None:
        self.lake = lake
        self.source = source
        self._is_whole_source = sample_ids is None
        self._requested_ids = frozenset(sample_ids or ())

    def plan(self) -> PurgePlan:
        row_counts = {
            name: self.lake.get_table(name).count(condition) for name, condition in self._delete_filters.items()
        }
        row_counts |= {
            name: self.lake.get_table(name).count(self._build_filter("mixture")) for name in self._mixture_tables
        }
        row_counts["samples"] = self.lake.get_table("samples").count(self._build_filter("samples"))
        row_counts |= {
            f"pack_plan/{stage}": self.lake.get_table(f"pack_plan/{stage}").count() for stage in self._packed_stages
        }
        for name in self._answer_tables:
            is_dropped_entirely = self._is_dropped_entirely(name)
            row_counts[name] = (
                self.lake.get_table(name).count()
                if is_dropped_entirely
                else len(self.lake.get_index(name).find_existing(self._request_keys))
            )
        image_sizes = list(iter_image_sizes(self.lake, self.exclusive_image_ids))
        return PurgePlan(
            row_counts={name: n for name, n in sorted(row_counts.items()) if n},
            n_images=len(image_sizes),
            image_bytes=sum(image_sizes),
            n_shared_images=len(self._image_ids) - len(self.exclusive_image_ids),
            n_copies=len(self._sample_ids - self._requested_ids),
            duplicates_elsewhere=self._list_duplicates_elsewhere(),
            affected_stages=sorted(
                {*self._packed_stages, *(m.split("/", 1)[1] for m in self._mixture_tables if row_counts[m])}
            ),
            n_orphan_answers=sum(len(self._find_orphan_answers(name)) for name in self._answer_tables),
        )

    def run(
        self,
        *,
        keep_bytes: bool = False,
        include_orphan_answers: bool = False,
        before_delete: Callable[[], None] = lambda: None,
    ) -> PurgePlan:
        """Takes everything out, on request with the answers that no row refers to, and returns what is left: nothing,
        unless another process wrote meanwhile. `before_delete` is called before anything goes, once this is the only process
        that takes rows out: for what lies beside the lake and is found through it.

        The bytes go at once, and with them the older versions of the tables that held them: whoever is reading one of
        those fails and has to start again. `keep_bytes` leaves both for another run. Raises `LeaseHeld` while another
        process takes rows in, or holds the lease of answers: the source's own, or any where bytes are to go.
        """
        with ExitStack() as stack:
            stack.enter_context(acquire_removal_lock(self.lake))
            reclaims_all_tables = not keep_bytes and resolve_local_path(self.lake.root) is not None
            for name in measure_table_sizes(self.lake):
                if name.startswith(ANSWERS_PREFIX) and (reclaims_all_tables or self._is_about_source(name)):
                    stack.enter_context(create_lease(self.lake.get_table(name)))
            before_delete()
            # Looked up anew: what `plan` found may have changed before the locks were taken.
            purge = self._reload(self._requested_ids)
            purge._execute(keep_bytes=keep_bytes, include_orphan_answers=include_orphan_answers)
        return purge._reload(purge._sample_ids).plan()

    def _reload(self, sample_ids: Collection[str]) -> Purge:
        return Purge(self.lake, self.source, None if self._is_whole_source else sample_ids)

    # -- which rows ------------------------------------------------------------------------------------------------

    @cached_property
    def _sample_ids(self) -> frozenset[str]:
        """The named samples and their exact copies in the same source: the same data under another name."""
        same_content_rows = self.lake.get_table("samples").iter_rows(["sample_id"], self._same_content_filter)
        hashes = self._content_hashes
        copies = self._iter_versions({r["sample_id"] for r in same_content_rows})
        return self._requested_ids | {r["sample_id"] for r in copies if r["content_hash"] in hashes}

    @cached_property
    def _content_hashes(self) -> frozenset[str]:
        return frozenset(r["content_hash"] for r in self._iter_versions(self._requested_ids))

    @cached_property
    def _same_content_filter(self) -> str:
        """The condition for versions of the source's samples that say what the named ones do."""
        return f"{sql.equals('source', self.source)} AND {sql.is_in('content_hash', self._content_hashes)}"

    def _build_filter(self, family: str) -> str:
        """The condition for the rows that go from a family of tables whose rows are about one version of a sample.

        A row without a name that has moved left its words in an earlier version of what stands in its place now.
        """
        if self._is_whole_source:
            return self._source_filter
        if family == "samples":
            return f"({self._source_filter}) OR ({self._same_content_filter})"
        column, ids = (
            ("rewrite_id", self._copies_elsewhere[1])
            if family == "judged"
            else ("version_id", self._copies_elsewhere[0])
        )
        return f"({self._source_filter}) OR {sql.is_in(column, ids)}"

    @cached_property
    def _copies_elsewhere(self) -> tuple[set[str], set[str]]:
        """Versions of other samples that say what the named ones do, and the rewrites of these."""
        other_samples_filter = f"{self._same_content_filter} AND NOT ({self._source_filter})"
        version_ids = {
            r["version_id"] for r in self.lake.get_table("samples").iter_rows(["version_id"], other_samples_filter)
        }
        table_names = self.lake.list_tables("rewritten") if version_ids else []
        version_filter = sql.is_in("version_id", version_ids)
        return version_ids, {
            r["rewrite_id"]
            for n in table_names
            for r in self.lake.get_table(n).iter_rows(["rewrite_id"], version_filter)
        }

    def _iter_versions(self, sample_ids: Collection[str]) -> Iterator[dict]:
        """The versions of samples that say something; of samples to which their source gives no name the newest alone,
        because other rows stood in their places before."""
        columns = ["sample_id", "native_id", "revision", "content_hash", "conversations", "image_ids", "video"]
        condition = f"{sql.is_in('sample_id', sample_ids)} AND NOT withdrawn"
        table = self.lake.get_table("samples")
        newest_revisions: dict[str, int] = {}
        for row in table.iter_rows(["sample_id", "revision"], condition):
            newest_revisions[row["sample_id"]] = max(row["revision"], newest_revisions.get(row["sample_id"], 0))
        for row in table.iter_rows(columns, condition):
            if row["native_id"] is not None or row["revision"] == newest_revisions[row["sample_id"]]:
                yield row

    @cached_property
    def _source_filter(self) -> str:
        """The condition for rows that carry source and sample id."""
        return sql.equals("source", self.source) if self._is_whole_source else sql.is_in("sample_id", self._sample_ids)

    @property
    def _mixture_tables(self) -> list[str]:
        return self.lake.list_tables("mixture")

    @cached_property
    def _delete_filters(self) -> dict[str, str]:
        """What is deleted by a condition, by table."""
        list_tables = self.lake.list_tables
        reject_filter = self._source_filter if self._is_whole_source else sql.is_in("row_key", self._collect_row_keys())
        column, kept_values = (
            ("canonical_source", [self.source]) if self._is_whole_source else ("canonical_sample_id", self._sample_ids)
        )
        return {
            "rejects": reject_filter,
            **{name: self._build_evaluation_filter(name) for name in list_tables(EVALUATION_FAMILY)},
            **{name: self._build_filter(f) for f in ("judged", "rewritten", "category") for name in list_tables(f)},
            # A copy in another source that was left out in favour of a purged sample is no duplicate any more.
            "curation/duplicates": f"{self._source_filter} OR {sql.is_in(column, kept_values)}",
            "curation/contamination": self._source_filter,
        }

    def _collect_row_keys(self) -> set[str]:
        """What rejects may call the samples: their own ids, and those of their rewrites and rows of mixtures."""
        keys = set(self._sample_ids)
        for family, column in (("rewritten", "rewrite_id"), ("mixture", "row_id")):
            for name in self.lake.list_tables(family):
                keys.update(
                    r[column] for r in self.lake.get_table(name).iter_rows([column], self._build_filter(family))
                )
        return keys

    def _build_evaluation_filter(self, name: str) -> str:
        """The rows of an evaluation that ask about the samples: a question's id is a digest of sample and words."""
        if self._is_whole_source:
            return self._source_filter
        sample_images = {(r["sample_id"], tuple(r["image_ids"] or ())) for r in self._iter_versions(self._sample_ids)}
        columns = ["result_id", "question_id", "question", "reference"]
        result_ids = [
            row["result_id"]
            for row in self.lake.get_table(name).iter_rows(columns, sql.equals("source", self.source))
            for sample_id, image_ids in sample_images
            if row["question_id"] == compute_digest("question", sample_id, image_ids, row["question"], row["reference"])
        ]
        return sql.is_in("result_id", result_ids)

    @cached_property
    def _packed_stages(self) -> list[str]:
        """Stages whose pack plan holds rows of the samples. A plan is made for all rows at once, so it goes whole."""
        stages = []
        for name in self._mixture_tables:
            stage = name.split("/", 1)[1]
            row_ids = IdSet(
                b.column(0).to_pylist()
                for b in self.lake.get_table(name).scan(["row_id"], self._build_filter("mixture"), BATCH_SIZE)
            )
            packs = (
                self.lake.get_table(f"pack_plan/{stage}").scan(["row_ids"], None, BATCH_SIZE) if len(row_ids) else ()
            )
            if any(row_ids.contains(pc.list_flatten(b.column(0)).to_pylist()).any() for b in packs):
                stages.append(stage)
        return stages

    def _list_duplicates_elsewhere(self) -> list[tuple[str, str]]:
        if self._is_whole_source:
            return []
        columns = ["source", "sample_id", "canonical_source", "canonical_sample_id"]
        rows = list(
            self.lake.get_table("curation/duplicates").iter_rows(columns, self._delete_filters["curation/duplicates"])
        )
        pairs = {(r["source"], r["sample_id"]) for r in rows} | {
            (r["canonical_source"], r["canonical_sample_id"]) for r in rows
        }
        return sorted(pair for pair in pairs if pair[1] not in self._sample_ids)

    # -- answers ---------------------------------------------------------------------------------------------------

    def _is_about_source(self, name: str) -> bool:
        """Whether a table of answers may hold some about the source: its own, and those of asking checkpoints."""
        return name.startswith(EVALUATION_ANSWERS_PREFIX) or name.rsplit("/", 1)[1] == self.source

    @cached_property
    def _answer_tables(self) -> list[str]:
        """The source's answers, and those of checkpoints that were asked about the samples."""
        evaluation_tables = {
            f"{EVALUATION_ANSWERS_PREFIX}{row['checkpoint']}"
            for name in self.lake.list_tables(EVALUATION_FAMILY)
            for row in self.lake.get_table(name).iter_rows(["checkpoint"], self._delete_filters[name])
        }
        answer_tables = [
            name
            for name in measure_table_sizes(self.lake)
            if name.startswith(ANSWERS_PREFIX) and self._is_about_source(name)
        ]
        return [
            name
            for name in answer_tables
            if name in evaluation_tables or not name.startswith(EVALUATION_ANSWERS_PREFIX)
        ]

    def _is_dropped_entirely(self, name: str) -> bool:
        """A checkpoint's answers cost little and do not say whom they are about, so they go together."""
        return self._is_whole_source or name.startswith(EVALUATION_ANSWERS_PREFIX)

    @cached_property
    def _request_keys(self) -> set[str]:
        """The request keys of the samples alone: an answer that another sample of the source shares stays."""
        keys = {key for batch in self._iter_referenced_keys() for key in batch}
        for batch in self._iter_referenced_keys(of_other_samples=True):
            keys.difference_update(batch)
        return keys

    def _find_orphan_answers(self, name: str) -> IdSet:
        if self._is_dropped_entirely(name):
            return IdSet(())
        stored_keys = IdSet(
            b.column(0).to_pylist() for b in self.lake.get_table(name).scan(["request_key"], None, BATCH_SIZE)
        )
        return stored_keys.difference(
            chain(self._iter_referenced_keys(), self._iter_referenced_keys(of_other_samples=True))
        )

    def _iter_referenced_keys(self, *, of_other_samples: bool = False) -> Iterator[list[str]]:
        """The request keys that rows about the samples refer to, or those about all others of the source."""

        def build_row_filter(condition: str) -> str:
            return (
                f"{sql.equals('source', self.source)} AND NOT ({condition})" if of_other_samples else f"({condition})"
            )

        has_request_filter = "request_key IS NOT NULL"
        for name in self.lake.list_tables("rewritten"):
            row_filter = f"{build_row_filter(self._build_filter('rewritten'))} AND {has_request_filter}"
            for batch in self.lake.get_table(name).scan(["request_key"], row_filter, BATCH_SIZE):
                yield batch.column(0).to_pylist()
        for name in self.lake.list_tables("judged"):
            for row in self.lake.get_table(name).iter_rows(
                ["verdicts", "second_verdicts"], build_row_filter(self._build_filter("judged")), BATCH_SIZE
            ):
                yield [verdict["request_key"] for verdicts in row.values() for verdict in verdicts or ()]
        reject_filter = f"{build_row_filter(self._delete_filters['rejects'])} AND {has_request_filter}"
        for batch in self.lake.get_table("rejects").scan(["request_key"], reject_filter, BATCH_SIZE):
            yield batch.column(0).to_pylist()

    # -- pictures --------------------------------------------------------------------------------------------------

    @cached_property
    def exclusive_image_ids(self) -> IdSet:
        """Those that no other sample uses."""
        return self._image_ids.difference(
            iter_referenced_image_ids(self.lake, f"NOT ({self._build_filter('samples')})")
        )

    @cached_property
    def _image_ids(self) -> IdSet:
        return IdSet(iter_referenced_image_ids(self.lake, self._build_filter("samples")))

    # -- steps -----------------------------------------------------------------------------------------------------

    def _execute(self, *, keep_bytes: bool, include_orphan_answers: bool) -> None:
        # Before the rows go that tell them.
        delete_filters, image_ids, sample_filter = (
            self._delete_filters,
            self.exclusive_image_ids,
            self._build_filter("samples"),
        )
        self._write_tombstones()
        self._delete_answers(include_orphan_answers)
        for stage in self._packed_stages:
            self.lake.get_table(f"pack_plan/{stage}").publish(())
        for name in self._mixture_tables:
            self._drop_from_mixture(name)
        for name, condition in delete_filters.items():
            self._delete_rows(name, condition)
        delete_keys(self.lake.images.table, image_ids)
        self._delete_rows("samples", sample_filter)
        if not keep_bytes:
            self._reclaim_bytes()

    def _write_tombstones(self) -> None:
        content_entries = {
            (r["sample_id"], compute_unlicensed_content_hash(r)) for r in self._iter_versions(self._sample_ids)
        }
        id_only_entries = {
            (sample_id, None) for sample_id in self._sample_ids - {sample_id for sample_id, _ in content_entries}
        }
        add_tombstones(
            self.lake, self.source, [(None, None)] if self._is_whole_source else content_entries | id_only_entries
        )

    def _delete_answers(self, include_orphan_answers: bool) -> None:
        for name in self._answer_tables:
            if self._is_dropped_entirely(name):
                self._delete_rows(name, "true")
            else:
                orphan_keys = self._find_orphan_answers(name) if include_orphan_answers else ()
                delete_keys(self.lake.get_table(name), IdSet([self._request_keys, orphan_keys]))

    def _drop_from_mixture(self, name: str) -> None:
        """Publishes a mixture without the samples; its readers count on positions without gaps."""
        table = self.lake.get_table(name)
        delete_filter = self._build_filter("mixture")
        if table.count(delete_filter):
            table.publish(_iter_renumbered(table, f"NOT ({delete_filter})"))

    def _delete_rows(self, name: str, condition: str) -> None:
        table = self.lake.get_table(name)
        if table.count(condition):
            table.delete(condition)

    def _reclaim_bytes(self) -> None:
        locked_tables = ("samples", "images") if resolve_local_path(self.lake.root) is not None else ()
        for name in measure_table_sizes(self.lake):
            has_lease = name.startswith(ANSWERS_PREFIX) and self._is_about_source(name)
            if has_lease or name.startswith(CONTENT_TABLES):
                table = self.lake.get_table(name)
                compact_fragments(table, find_fragments_with_deletions(table))
                expire_versions(table, dt.timedelta(0), is_only_writer=has_lease or name in locked_tables)


def _iter_renumbered(table: Table, condition: str) -> Iterator[pa.Table]:
    """The rows that match, in their order, with positions from 0."""
    position = 0
    column_names = [n for n in table.schema.names if n != "row_hash"]
    for batch in table.scan(column_names, condition, BATCH_SIZE):
        positions = pa.array(range(position, position + len(batch)), pa.int64())
        position += len(batch)
        yield pa.table(batch).set_column(column_names.index("position"), "position", positions)
