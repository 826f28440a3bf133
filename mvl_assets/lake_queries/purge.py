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

from mvl_assets.common.digest import digest_hex
from mvl_assets.lake import sql
from mvl_assets.lake.compaction import delete_keys, forget, rewrite, with_deleted
from mvl_assets.lake.durable import local_path
from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.lease import lease_for
from mvl_assets.lake.locks import taking_out
from mvl_assets.lake.table import Table
from mvl_assets.lake.table_sizes import inventory
from mvl_assets.lake_queries.image_refs import pictures_of, stored_sizes
from mvl_assets.lake_queries.tombstones import remember, said_hash

ANSWERS, EVALUATION = "answers/", "evaluation"
ABOUT_EVALUATION = f"{ANSWERS}{EVALUATION}/"
# Beside the answers these tables hold more of a sample than ids and numbers: their old bytes have to go, too.
TELLING = ("samples", "images", "rejects", "rewritten/", f"{EVALUATION}/")
BATCH = 8192
SHORTEST = 6


@dataclass(frozen=True, slots=True)
class Plan:
    """What a purge would take out: rows by table (those that lose any), pictures and their bytes.

    `shared` pictures stay because other samples use them. `copies` are samples that go with the named ones because they
    say exactly the same; `elsewhere` are equal samples of other sources (source and id), which stay. `stages` are those
    whose mixture or pack plan loses rows. `unclaimed` counts answers of the source that no row refers to (first tries,
    earlier prompts), so that nobody knows whether they are about the samples.
    """

    rows: dict[str, int]
    pictures: int
    picture_bytes: int
    shared: int
    copies: int
    elsewhere: list[tuple[str, str]]
    stages: list[str]
    unclaimed: int


def samples_named(lake: Lake, prefixes: Iterable[str]) -> dict[str, list[str]]:
    """Full sample ids by source, of ids or their beginnings; samples that were purged before are found as well.

    Raises `LakeError` when one names no sample, or more than one.
    """
    found: dict[str, list[str]] = {}
    for prefix in (p.strip().lower() for p in prefixes):
        if len(prefix) < SHORTEST or set(prefix) - set("0123456789abcdef"):
            raise LakeError(f"{prefix!r} is no id", hint=f"give at least {SHORTEST} characters of a sample's id")
        condition = f"sample_id LIKE {sql.literal(prefix + '%')}"
        tables = (lake.table(name) for name in ("samples", "purged"))
        named = {(r["source"], r["sample_id"]) for t in tables for r in t.rows(["source", "sample_id"], condition)}
        if len(named) != 1:
            raise LakeError(
                f"{'more than one' if named else 'no'} sample has an id that begins with {prefix}",
                hint="`mvl trace ID` shows the sample behind any row",
            )
        ((source, sample_id),) = named
        found.setdefault(source, []).append(sample_id)
    return found


class Purge:
    """One source (`sample_ids` is None), or some samples of it. Making one and `plan` only look; `run` acts."""

    def __init__(self, lake: Lake, source: str, sample_ids: Collection[str] | None = None) -> None:
        self.lake = lake
        self.source = source
        self._whole = sample_ids is None
        self._named = frozenset(sample_ids or ())

    def plan(self) -> Plan:
        rows = {name: self.lake.table(name).count(condition) for name, condition in self._conditions.items()}
        rows |= {name: self.lake.table(name).count(self._own_in("mixture")) for name in self._mixtures}
        rows["samples"] = self.lake.table("samples").count(self._own_in("samples"))
        rows |= {f"pack_plan/{stage}": self.lake.table(f"pack_plan/{stage}").count() for stage in self._packed}
        for name in self._answer_tables:
            whole = self._goes_whole(name)
            rows[name] = self.lake.table(name).count() if whole else len(self.lake.index(name).locate(self._keys))
        pictures = list(stored_sizes(self.lake, self.pictures))
        return Plan(
            rows={name: n for name, n in sorted(rows.items()) if n},
            pictures=len(pictures),
            picture_bytes=sum(pictures),
            shared=len(self._pictures) - len(self.pictures),
            copies=len(self._ids - self._named),
            elsewhere=self._elsewhere(),
            stages=sorted({*self._packed, *(m.split("/", 1)[1] for m in self._mixtures if rows[m])}),
            unclaimed=sum(len(self._unclaimed(name)) for name in self._answer_tables),
        )

    def run(
        self, *, keep_bytes: bool = False, unclaimed: bool = False, first: Callable[[], None] = lambda: None
    ) -> Plan:
        """Takes everything out, on request with the answers that no row refers to, and returns what is left: nothing,
        unless another process wrote meanwhile. `first` is called before anything goes, once this is the only process
        that takes rows out: for what lies beside the lake and is found through it.

        The bytes go at once, and with them the older versions of the tables that held them: whoever is reading one of
        those fails and has to start again. `keep_bytes` leaves both for another run. Raises `LeaseHeld` while another
        process takes rows in, or holds the lease of answers: the source's own, or any where bytes are to go.
        """
        with ExitStack() as stack:
            stack.enter_context(taking_out(self.lake))
            everywhere = not keep_bytes and local_path(self.lake.root) is not None
            for name in inventory(self.lake):
                if name.startswith(ANSWERS) and (everywhere or self._is_own(name)):
                    stack.enter_context(lease_for(self.lake.table(name)))
            first()
            # Looked up anew: what `plan` found may have changed before the locks were taken.
            now = self._again(self._named)
            now._take_out(keep_bytes=keep_bytes, unclaimed=unclaimed)
        return now._again(now._ids).plan()

    def _again(self, sample_ids: Collection[str]) -> Purge:
        return Purge(self.lake, self.source, None if self._whole else sample_ids)

    # -- which rows ------------------------------------------------------------------------------------------------

    @cached_property
    def _ids(self) -> frozenset[str]:
        """The named samples and their exact copies in the same source: the same data under another name."""
        alike = self.lake.table("samples").rows(["sample_id"], self._alike)
        hashes = self._hashes
        copies = self._versions({r["sample_id"] for r in alike})
        return self._named | {r["sample_id"] for r in copies if r["content_hash"] in hashes}

    @cached_property
    def _hashes(self) -> frozenset[str]:
        return frozenset(r["content_hash"] for r in self._versions(self._named))

    @cached_property
    def _alike(self) -> str:
        """The condition for versions of the source's samples that say what the named ones do."""
        return f"{sql.equals('source', self.source)} AND {sql.within('content_hash', self._hashes)}"

    def _own_in(self, family: str) -> str:
        """The condition for the rows that go from a family of tables whose rows are about one version of a sample.

        A row without a name that has moved left its words in an earlier version of what stands in its place now.
        """
        if self._whole:
            return self._own
        if family == "samples":
            return f"({self._own}) OR ({self._alike})"
        column, ids = ("rewrite_id", self._left[1]) if family == "judged" else ("version_id", self._left[0])
        return f"({self._own}) OR {sql.within(column, ids)}"

    @cached_property
    def _left(self) -> tuple[set[str], set[str]]:
        """Versions of other samples that say what the named ones do, and the rewrites of these."""
        elsewhere = f"{self._alike} AND NOT ({self._own})"
        versions = {r["version_id"] for r in self.lake.table("samples").rows(["version_id"], elsewhere)}
        names = self.lake.names("rewritten") if versions else []
        about = sql.within("version_id", versions)
        return versions, {r["rewrite_id"] for n in names for r in self.lake.table(n).rows(["rewrite_id"], about)}

    def _versions(self, ids: Collection[str]) -> Iterator[dict]:
        """The versions of samples that say something; of samples to which their source gives no name the newest alone,
        because other rows stood in their places before."""
        columns = ["sample_id", "native_id", "revision", "content_hash", "conversations", "image_ids", "video"]
        condition = f"{sql.within('sample_id', ids)} AND NOT withdrawn"
        table = self.lake.table("samples")
        newest: dict[str, int] = {}
        for row in table.rows(["sample_id", "revision"], condition):
            newest[row["sample_id"]] = max(row["revision"], newest.get(row["sample_id"], 0))
        for row in table.rows(columns, condition):
            if row["native_id"] is not None or row["revision"] == newest[row["sample_id"]]:
                yield row

    @cached_property
    def _own(self) -> str:
        """The condition for rows that carry source and sample id."""
        return sql.equals("source", self.source) if self._whole else sql.within("sample_id", self._ids)

    @property
    def _mixtures(self) -> list[str]:
        return self.lake.names("mixture")

    @cached_property
    def _conditions(self) -> dict[str, str]:
        """What is deleted by a condition, by table."""
        names = self.lake.names
        rejects = self._own if self._whole else sql.within("row_key", self._row_keys())
        column, gone = ("kept_source", [self.source]) if self._whole else ("kept_sample_id", self._ids)
        return {
            "rejects": rejects,
            **{name: self._asked(name) for name in names(EVALUATION)},
            **{name: self._own_in(f) for f in ("judged", "rewritten", "category") for name in names(f)},
            # A copy in another source that was left out in favour of a purged sample is no duplicate any more.
            "curation/duplicates": f"{self._own} OR {sql.within(column, gone)}",
            "curation/contamination": self._own,
        }

    def _row_keys(self) -> set[str]:
        """What rejects may call the samples: their own ids, and those of their rewrites and rows of mixtures."""
        keys = set(self._ids)
        for family, column in (("rewritten", "rewrite_id"), ("mixture", "row_id")):
            for name in self.lake.names(family):
                keys.update(r[column] for r in self.lake.table(name).rows([column], self._own_in(family)))
        return keys

    def _asked(self, name: str) -> str:
        """The rows of an evaluation that ask about the samples: a question's id is a digest of sample and words."""
        if self._whole:
            return self._own
        seen = {(r["sample_id"], tuple(r["image_ids"] or ())) for r in self._versions(self._ids)}
        columns = ["result_id", "question_id", "question", "expected"]
        found = [
            row["result_id"]
            for row in self.lake.table(name).rows(columns, sql.equals("source", self.source))
            for key, pictures in seen
            if row["question_id"] == digest_hex("question", key, pictures, row["question"], row["expected"])
        ]
        return sql.within("result_id", found)

    @cached_property
    def _packed(self) -> list[str]:
        """Stages whose pack plan holds rows of the samples. A plan is made for all rows at once, so it goes whole."""
        found = []
        for name in self._mixtures:
            stage = name.split("/", 1)[1]
            gone = IdSet(
                b.column(0).to_pylist() for b in self.lake.table(name).scan(["row_id"], self._own_in("mixture"), BATCH)
            )
            packs = self.lake.table(f"pack_plan/{stage}").scan(["row_ids"], None, BATCH) if len(gone) else ()
            if any(gone.has(pc.list_flatten(b.column(0)).to_pylist()).any() for b in packs):
                found.append(stage)
        return found

    def _elsewhere(self) -> list[tuple[str, str]]:
        if self._whole:
            return []
        columns = ["source", "sample_id", "kept_source", "kept_sample_id"]
        rows = list(self.lake.table("curation/duplicates").rows(columns, self._conditions["curation/duplicates"]))
        pairs = {(r["source"], r["sample_id"]) for r in rows} | {(r["kept_source"], r["kept_sample_id"]) for r in rows}
        return sorted(pair for pair in pairs if pair[1] not in self._ids)

    # -- answers ---------------------------------------------------------------------------------------------------

    def _is_own(self, name: str) -> bool:
        """Whether a table of answers may hold some about the source: its own, and those of asking checkpoints."""
        return name.startswith(ABOUT_EVALUATION) or name.rsplit("/", 1)[1] == self.source

    @cached_property
    def _answer_tables(self) -> list[str]:
        """The source's answers, and those of checkpoints that were asked about the samples."""
        asked = {
            f"{ABOUT_EVALUATION}{row['checkpoint']}"
            for name in self.lake.names(EVALUATION)
            for row in self.lake.table(name).rows(["checkpoint"], self._conditions[name])
        }
        stored = [name for name in inventory(self.lake) if name.startswith(ANSWERS) and self._is_own(name)]
        return [name for name in stored if name in asked or not name.startswith(ABOUT_EVALUATION)]

    def _goes_whole(self, name: str) -> bool:
        """A checkpoint's answers cost little and do not say whom they are about, so they go together."""
        return self._whole or name.startswith(ABOUT_EVALUATION)

    @cached_property
    def _keys(self) -> set[str]:
        """The request keys of the samples alone: an answer that another sample of the source shares stays."""
        keys = {key for batch in self._claimed() for key in batch}
        for batch in self._claimed(others=True):
            keys.difference_update(batch)
        return keys

    def _unclaimed(self, name: str) -> IdSet:
        if self._goes_whole(name):
            return IdSet(())
        stored = IdSet(b.column(0).to_pylist() for b in self.lake.table(name).scan(["request_key"], None, BATCH))
        return stored.without(chain(self._claimed(), self._claimed(others=True)))

    def _claimed(self, *, others: bool = False) -> Iterator[list[str]]:
        """The request keys that rows about the samples refer to, or those about all others of the source."""

        def among(condition: str) -> str:
            return f"{sql.equals('source', self.source)} AND NOT ({condition})" if others else f"({condition})"

        asked = "request_key IS NOT NULL"
        for name in self.lake.names("rewritten"):
            rows = f"{among(self._own_in('rewritten'))} AND {asked}"
            for batch in self.lake.table(name).scan(["request_key"], rows, BATCH):
                yield batch.column(0).to_pylist()
        for name in self.lake.names("judged"):
            for row in self.lake.table(name).rows(
                ["verdicts", "second_verdicts"], among(self._own_in("judged")), BATCH
            ):
                yield [v["request_key"] for said in row.values() for v in said or ()]
        rejects = f"{among(self._conditions['rejects'])} AND {asked}"
        for batch in self.lake.table("rejects").scan(["request_key"], rejects, BATCH):
            yield batch.column(0).to_pylist()

    # -- pictures --------------------------------------------------------------------------------------------------

    @cached_property
    def pictures(self) -> IdSet:
        """Those that no other sample uses."""
        return self._pictures.without(pictures_of(self.lake, f"NOT ({self._own_in('samples')})"))

    @cached_property
    def _pictures(self) -> IdSet:
        return IdSet(pictures_of(self.lake, self._own_in("samples")))

    # -- steps -----------------------------------------------------------------------------------------------------

    def _take_out(self, *, keep_bytes: bool, unclaimed: bool) -> None:
        # Before the rows go that tell them.
        conditions, pictures, versions = self._conditions, self.pictures, self._own_in("samples")
        self._remember()
        self._delete_answers(unclaimed)
        for stage in self._packed:
            self.lake.table(f"pack_plan/{stage}").publish(())
        for name in self._mixtures:
            self._thin_out(name)
        for name, condition in conditions.items():
            self._delete(name, condition)
        delete_keys(self.lake.images.table, pictures)
        self._delete("samples", versions)
        if not keep_bytes:
            self._erase()

    def _remember(self) -> None:
        said = {(r["sample_id"], said_hash(r)) for r in self._versions(self._ids)}
        silent = {(sample_id, None) for sample_id in self._ids - {sample_id for sample_id, _ in said}}
        remember(self.lake, self.source, [(None, None)] if self._whole else said | silent)

    def _delete_answers(self, unclaimed: bool) -> None:
        for name in self._answer_tables:
            if self._goes_whole(name):
                self._delete(name, "true")
            else:
                more = self._unclaimed(name) if unclaimed else ()
                delete_keys(self.lake.table(name), IdSet([self._keys, more]))

    def _thin_out(self, name: str) -> None:
        """Publishes a mixture without the samples; its readers count on positions without gaps."""
        table = self.lake.table(name)
        gone = self._own_in("mixture")
        if table.count(gone):
            table.publish(_numbered(table, f"NOT ({gone})"))

    def _delete(self, name: str, condition: str) -> None:
        table = self.lake.table(name)
        if table.count(condition):
            table.delete(condition)

    def _erase(self) -> None:
        guarded = ("samples", "images") if local_path(self.lake.root) is not None else ()
        for name in inventory(self.lake):
            leased = name.startswith(ANSWERS) and self._is_own(name)
            if leased or name.startswith(TELLING):
                table = self.lake.table(name)
                rewrite(table, with_deleted(table))
                forget(table, dt.timedelta(0), alone=leased or name in guarded)


def _numbered(table: Table, condition: str) -> Iterator[pa.Table]:
    """The rows that match, in their order, with positions from 0."""
    position = 0
    names = [n for n in table.schema.names if n != "row_hash"]
    for batch in table.scan(names, condition, BATCH):
        places = pa.array(range(position, position + len(batch)), pa.int64())
        position += len(batch)
        yield pa.table(batch).set_column(names.index("position"), "position", places)
