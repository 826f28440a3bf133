"""The pack plan of a stage: which mixture rows share a sequence, decided before training, exactly and for good.

Belongs here: counting rows, best-fit packing, the table `pack_plan/<stage>`, and reading it back. Does not: pixels and
tensors (`batches`). No torch: a plan is made in the process that asks for it.

Packing is best-fit decreasing within shards of consecutive mixture rows (a mixture is shuffled already, so a shard is a
random sample of it). Best-fit sorts by length; the packs of a shard are therefore shuffled again, or a step would hold
samples of one length.
"""

from __future__ import annotations

import random
import time
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mvl_assets.errors import MvlError
from mvl_assets.lake import views
from mvl_assets.lake.digest import digest_hex
from mvl_assets.lake.lake import Lake
from mvl_assets.media.picture import standard_size
from mvl_training.conversation import Unusable
from mvl_training.processing import Counts, SampleProcessor, load_tokens, plan_hash
from mvl_training.recipe import Recipe, StageName

SHARD = 1 << 18
"""Rows packed together. Larger fills better by little: 0.96 at 4,096 rows, 0.97 at a million (8k packs)."""

READ = 256
"""Rows whose pictures' sizes are looked up together."""

TILE_ALLOWANCE = 8
"""A pack's tile limit, as a multiple of the tiles whose features would just fill it: bounds the vision tower's memory.
Pictures of many tiles are shrunk to few tokens, so a limit near 1 would leave packs of them half empty."""


@dataclass(frozen=True, slots=True)
class PackReport:
    """What planning a stage did. `fill` = tokens / (packs * length); `rejected` counts rows by reason."""

    stage: str
    samples: int
    packs: int
    fill: float
    tokens: int
    targets: int
    tiles: int
    rejected: dict[str, int] = field(default_factory=dict)
    data_version: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Member:
    """A sample to pack."""

    row_id: str
    counts: Counts


@dataclass(frozen=True, slots=True)
class Pack:
    """Samples that share a sequence, in order."""

    pack_id: str
    position: int
    row_ids: tuple[str, ...]
    n_tokens: int
    n_tiles: int
    n_targets: int
    lengths: tuple[int, ...]


def plan_stage(
    lake: Lake,
    stage: StageName,
    recipe: Recipe,
    *,
    run_id: str,
    progress: Callable[[int, int], None] | None = None,
) -> PackReport:
    """Count every row of `mixture/<stage>` exactly, pack, and publish `pack_plan/<stage>` in one commit.

    Deterministic: equal mixture, recipe and tokenizer give an equal `data_version`. Rows that cannot be trained on
    (too long, markers that do not match) are counted in `rejected` and named in the table `rejects`. `progress` is
    told (rows counted, rows in all). Raises MvlError when the mixture is missing or nothing in it can be used.
    """
    started = time.monotonic()
    mixture = lake.table(f"mixture/{stage}")
    if not mixture.exists():
        raise MvlError(f"there is no mixture/{stage} to plan", hint=f"materialise mixture/{stage} first")
    tokens = load_tokens(recipe)
    processor = SampleProcessor.for_stage(recipe, stage, tokens)
    identity = plan_hash(recipe, stage, tokens)
    planner = _Planner(lake, stage, processor, identity, recipe.seed, mixture.count(), progress)
    published = lake.table(f"pack_plan/{stage}").publish(planner.tables(run_id))
    rejects = pa.Table.from_pylist(
        [{**r, "run_id": run_id} for r in planner.rejects], schema=_content_schema(lake.table("rejects").schema)
    )
    lake.table("rejects").publish([rejects], where=_part(stage))
    totals = planner.totals
    if not totals["packs"]:
        reasons = ", ".join(f"{n} {e}" for e, n in planner.reasons.most_common()) or "it has no rows"
        raise MvlError(f"mixture/{stage} holds nothing to train on: {reasons}")
    return PackReport(
        stage=stage,
        samples=totals["samples"],
        packs=totals["packs"],
        fill=totals["tokens"] / (totals["packs"] * processor.length),
        tokens=totals["tokens"],
        targets=totals["targets"],
        tiles=totals["tiles"],
        rejected=dict(planner.reasons),
        data_version=published.data_version,
        seconds=time.monotonic() - started,
    )


def pack(members: Sequence[Member], length: int, max_tiles: int) -> list[list[Member]]:
    """Best-fit decreasing: each sample, longest first, goes to the fullest pack it still fits in.

    No pack exceeds `length` tokens, nor `max_tiles` tiles unless one sample alone does. O(n log n) for n samples whose
    tiles fit; ties are broken by the order of `members`, so equal input gives equal packs.
    """
    order = sorted(range(len(members)), key=lambda i: (-members[i].counts.tokens, i))
    packs: list[list[Member]] = []
    tiles: list[int] = []
    open_packs: list[tuple[int, int]] = []  # (room in tokens, pack), sorted
    for index in order:
        member = members[index]
        need = member.counts
        spot = bisect_left(open_packs, (need.tokens, -1))
        while spot < len(open_packs) and tiles[open_packs[spot][1]] + need.tiles > max_tiles:
            spot += 1
        if spot < len(open_packs):
            room, chosen = open_packs.pop(spot)
        else:
            room, chosen = length, len(packs)
            packs.append([])
            tiles.append(0)
        packs[chosen].append(member)
        tiles[chosen] += need.tiles
        room -= need.tokens
        # A pack without room for anything is closed: the list stays short.
        if room >= 16 and tiles[chosen] < max_tiles:
            insort(open_packs, (room, chosen))
    return packs


class _Planner:
    """Streams a mixture into packs; holds one shard of counts."""

    def __init__(
        self,
        lake: Lake,
        stage: StageName,
        processor: SampleProcessor,
        identity: str,
        seed: int,
        rows: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.lake = lake
        self.stage = stage
        self.processor = processor
        self.identity = identity
        self.seed = seed
        self.rows = rows
        self.progress = progress
        self.rejects: list[dict[str, Any]] = []
        self.reasons: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()

    def tables(self, run_id: str) -> Iterator[pa.Table]:
        schema = _content_schema(self.lake.table(f"pack_plan/{self.stage}").schema)
        length = self.processor.length
        for shard, members in enumerate(_chunks(self._members(), SHARD)):
            packs = pack(members, length, max_tiles(length, self.processor.grid.side))
            random.Random(f"{self.seed}/{shard}").shuffle(packs)
            rows = [self._row(position, p, run_id) for position, p in enumerate(packs, self.totals["packs"])]
            self.totals["packs"] += len(packs)
            yield pa.Table.from_pylist(rows, schema=schema)

    def _row(self, position: int, members: Sequence[Member], run_id: str) -> dict[str, Any]:
        ids = [m.row_id for m in members]
        row: dict[str, Any] = {
            "pack_id": digest_hex(self.identity, position, ids, [m.counts.content for m in members]),
            "position": position,
            "row_ids": ids,
            "n_tokens": sum(m.counts.tokens for m in members),
            "n_tiles": sum(m.counts.tiles for m in members),
            "n_targets": sum(m.counts.targets for m in members),
            "lengths": [m.counts.tokens for m in members],
            "run_id": run_id,
        }
        self.totals.update(samples=len(ids), tokens=row["n_tokens"], tiles=row["n_tiles"], targets=row["n_targets"])
        return row

    def _members(self) -> Iterator[Member]:
        done = 0
        for rows in _chunks(views.mixture_rows(self.lake, self.stage), READ):
            sizes = self._sizes(rows)
            for row in rows:
                try:
                    yield Member(row["row_id"], self.processor.count(row, sizes))
                except Unusable as error:
                    self._reject(row, error.error, error.message)
            done += len(rows)
            if self.progress is not None:
                self.progress(done, self.rows)

    def _sizes(self, rows: Sequence[dict[str, Any]]) -> dict[str, tuple[int, int]]:
        """Standardised (width, height) of the rows' pictures, by id."""
        wanted = {i for row in rows for i in self.processor.used_pictures(row)}
        known = self.lake.images.describe(wanted)
        return {name: standard_size(info.width, info.height).canvas for name, info in known.items()}

    def _reject(self, row: dict[str, Any], error: str, message: str) -> None:
        self.reasons[error] += 1
        part = _part(self.stage)
        self.rejects.append(
            {
                "reject_id": digest_hex(part, row["row_id"], error),
                "part": part,
                "stage": "pack_plan",
                "source": row["source"],
                "row_key": row["row_id"],
                "error": error,
                "message": message,
                "file": None,
                "position": row["position"],
                "attempts": 1,
                "request_key": None,
            }
        )


def max_tiles(length: int, side: int) -> int:
    """The most tiles that samples may bring into one pack of `length` tokens (one sample alone may bring more)."""
    return max(8, TILE_ALLOWANCE * length // side**2)


@dataclass(frozen=True, slots=True)
class PlanTotals:
    """What a stage's plan adds up to."""

    samples: int
    tokens: int
    tiles: int


def plan_totals(lake: Lake, stage: StageName) -> PlanTotals | None:
    """The totals of the stage's plan, None when there is none."""
    table = lake.table(f"pack_plan/{stage}")
    samples = tokens = tiles = 0
    if table.exists():
        for batch in table.scan(["lengths", "n_tokens", "n_tiles"]):
            samples += len(pc.list_flatten(batch.column("lengths")))
            tokens += pc.sum(batch.column("n_tokens")).as_py() or 0
            tiles += pc.sum(batch.column("n_tiles")).as_py() or 0
    return PlanTotals(samples, tokens, tiles) if samples else None


def read_packs(lake: Lake, stage: StageName) -> list[Pack]:
    """The stage's plan in order. Raises MvlError when there is none."""
    table = lake.table(f"pack_plan/{stage}")
    if not table.exists():
        raise MvlError(f"there is no pack_plan/{stage}", hint=f"materialise pack_plan/{stage} first")
    names = ["pack_id", "position", "row_ids", "n_tokens", "n_tiles", "n_targets", "lengths"]
    packs = [
        Pack(**{**row, "row_ids": tuple(row["row_ids"]), "lengths": tuple(row["lengths"])})
        for row in table.rows(names, batch_size=4096)
    ]
    packs.sort(key=lambda p: p.position)
    return packs


def _part(stage: str) -> str:
    return f"pack_plan/{stage}"


def _content_schema(schema: pa.Schema) -> pa.Schema:
    """Without `row_hash`, which publishing adds."""
    return pa.schema([f for f in schema if f.name != "row_hash"])


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
