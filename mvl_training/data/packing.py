"""The pack plan of a stage: which mixture rows share a sequence, decided before training, exactly and for good.

Belongs here: the table `pack_plan/<stage>` and the report on it. Does not: counting (`counting`), which samples share a
pack (`filling`), reading the plan back (`pack_plan`). No torch.

Packs are filled within shards of consecutive mixture rows (a mixture is shuffled already, so a shard is a random sample
of it), which bounds memory. Filling takes long samples first; the packs of a shard are therefore shuffled again, or a
step would hold samples of one length.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa

from mvl_assets.common.digest import digest_hex
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.data.batch_order import Order
from mvl_training.data.bin_packing import pack
from mvl_training.data.mixture_stats import Balance, Share
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.processing import SampleProcessor, load_tokens, plan_hash
from mvl_training.data.token_counts import Counted, Member, Refused, count_mixture
from mvl_training.recipe import Recipe, StageName

SHARD = 1 << 18
"""Rows packed together. More would not fill better: 8k packs are full to 0.990 at 30,000 rows already."""

TILE_ALLOWANCE = 8
"""A pack's tile limit, as a multiple of the tiles whose features would just fill it: bounds the vision tower's memory.
Pictures of many tiles are shrunk to few tokens, so a limit near 1 would leave packs of them half empty."""


RANKS = (8, 32, 128)
"""Numbers of ranks that a report says the load of, beside the recipe's own."""


@dataclass(frozen=True, slots=True)
class Load:
    """How evenly this many ranks are loaded (`Order.evenness`), each with `micro_steps` packs in a step."""

    ranks: int
    micro_steps: int
    tokens: float
    tiles: float


@dataclass(frozen=True, slots=True)
class PackReport:
    """What planning a stage did. `fill` = tokens / (packs * length); `rejected` counts rows by reason. `loads` begins
    with the recipe's own number of ranks; `visual_share` is that of a pack's tokens, for some of its percentiles."""

    stage: str
    samples: int
    packs: int
    fill: float
    tokens: int
    targets: int
    tiles: int
    rejected: dict[str, int] = field(default_factory=dict)
    loads: list[Load] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    visual_share: dict[str, float] = field(default_factory=dict)
    data_version: str = ""
    seconds: float = 0.0


def plan_stage(
    lake: Lake,
    stage: StageName,
    recipe: Recipe,
    *,
    run_id: str,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PackReport:
    """Count every row of `mixture/<stage>` exactly, pack, and publish `pack_plan/<stage>` in one commit.

    Deterministic: equal mixture, recipe and tokenizer give an equal `data_version`. Rows that cannot be trained on
    (too long, markers that do not match) are counted in `rejected` and named in the table `rejects`. `processes`
    count, by default as many as there are cores when the mixture is large; `progress` is told (rows counted, rows in
    all). Raises MvlError when the mixture is missing or nothing in it can be used.
    """
    started = time.monotonic()
    mixture = lake.table(f"mixture/{stage}")
    if not mixture.exists():
        raise MvlError(f"there is no mixture/{stage} to plan", hint=f"materialise mixture/{stage} first")
    tokens = load_tokens(recipe)
    processor = SampleProcessor.for_stage(recipe, stage, tokens)
    planner = _Planner(stage, processor, plan_hash(recipe, stage, tokens), recipe.seed)
    plan = lake.table(f"pack_plan/{stage}")
    counted = _told(count_mixture(lake, stage, recipe, processes=processes), mixture.count(), progress)
    published = plan.publish(planner.tables(counted, _content_schema(plan.schema), run_id))
    rejects = lake.table("rejects")
    refused = [_reject(stage, row, run_id) for row in planner.refused]
    rejects.publish([pa.Table.from_pylist(refused, schema=_content_schema(rejects.schema))], where=_part(stage))
    totals, reasons = planner.totals, Counter(row.error for row in planner.refused)
    if not totals["packs"]:
        why = ", ".join(f"{n} {e}" for e, n in reasons.most_common()) or "it has no rows"
        raise MvlError(f"mixture/{stage} holds nothing to train on: {why}")
    return PackReport(
        stage=stage,
        samples=totals["samples"],
        packs=totals["packs"],
        fill=totals["tokens"] / (totals["packs"] * processor.length),
        tokens=totals["tokens"],
        targets=totals["targets"],
        tiles=totals["tiles"],
        rejected=dict(reasons),
        loads=_loads(PackPlan(lake, stage), recipe, stage),
        shares=planner.balance.shares(),
        visual_share=planner.balance.visual_share_of_packs(),
        data_version=published.data_version,
        seconds=time.monotonic() - started,
    )


class _Planner:
    """Streams counts into packs; holds one shard of them."""

    def __init__(self, stage: StageName, processor: SampleProcessor, identity: str, seed: int) -> None:
        self.stage = stage
        self.processor = processor
        self.identity = identity
        self.seed = seed
        self.refused: list[Refused] = []
        self.totals: Counter[str] = Counter()
        self.balance = Balance()

    def tables(self, counted: Iterable[Counted], schema: pa.Schema, run_id: str) -> Iterator[pa.Table]:
        """The plan's rows, a shard at a time."""
        length = self.processor.length
        for shard, members in enumerate(_shards(self._members(counted))):
            packs = pack(members, length, max_tiles(length, self.processor.grid.side))
            self.balance.see(packs)
            random.Random(f"{self.seed}/{shard}").shuffle(packs)
            rows = [self._row(position, p, run_id) for position, p in enumerate(packs, self.totals["packs"])]
            self.totals["packs"] += len(packs)
            yield pa.Table.from_pylist(rows, schema=schema)

    def _members(self, counted: Iterable[Counted]) -> Iterator[Member]:
        for part in counted:
            self.refused += part.refused
            yield from part.members

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


def _reject(stage: StageName, row: Refused, run_id: str) -> dict[str, Any]:
    """A refused row as the table `rejects` has it."""
    return {
        "reject_id": digest_hex(_part(stage), row.row_id, row.error),
        "part": _part(stage),
        "stage": "pack_plan",
        "source": row.source,
        "row_key": row.row_id,
        "error": row.error,
        "message": row.message,
        "file": None,
        "position": row.position,
        "attempts": 1,
        "request_key": None,
        "run_id": run_id,
    }


def _loads(plan: PackPlan, recipe: Recipe, stage: StageName) -> list[Load]:
    order = Order.of(plan, recipe.stage(stage).batch, recipe.seed)
    return [
        Load(
            ranks,
            order.micro_steps(ranks),
            tokens=order.evenness(plan.n_tokens, ranks),
            tiles=order.evenness(plan.n_tiles, ranks),
        )
        for ranks in dict.fromkeys((recipe.processes, *RANKS))
    ]


def max_tiles(length: int, side: int) -> int:
    """The most tiles that samples may bring into one pack of `length` tokens (one sample alone may bring more)."""
    return max(8, TILE_ALLOWANCE * length // side**2)


def _part(stage: str) -> str:
    return f"pack_plan/{stage}"


def _content_schema(schema: pa.Schema) -> pa.Schema:
    """Without `row_hash`, which publishing adds."""
    return pa.schema([f for f in schema if f.name != "row_hash"])


def _shards(members: Iterator[Member]) -> Iterator[list[Member]]:
    while shard := list(islice(members, SHARD)):
        yield shard


def _told(counted: Iterable[Counted], rows: int, progress: Callable[[int, int], None] | None) -> Iterator[Counted]:
    """The same, telling how far it is."""
    done = 0
    for part in counted:
        done += len(part.members) + len(part.refused)
        if progress is not None:
            progress(done, rows)
        yield part
