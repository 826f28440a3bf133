"""Planning of a stage's packs: which mixture rows share a sequence, decided once before training from exact counts.

Packs are filled within shards of consecutive mixture rows (a mixture is shuffled already, so a shard is a random sample
of it), which bounds memory. Bin packing takes long samples first, so the packs of a shard are shuffled again: otherwise
a step would hold samples of one length. No torch.
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

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.errors import MvlError
from mvl_assets.execution.executor import Executor
from mvl_assets.lake.lake import Lake
from mvl_assets.stages import PACK_PLAN
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.bin_packing import pack_bins
from mvl_training.data.mixture_stats import MixtureStats, ShareStats
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.processing import SampleProcessor, compute_plan_hash, load_tokenizer
from mvl_training.data.token_counts import CountedChunk, PackableSample, RejectedMixtureRow, count_mixture
from mvl_training.recipe import Recipe

SHARD_ROWS = 1 << 18
"""Rows packed together. More would not fill packs better: 8k packs are full to 0.990 with 30,000 rows already."""

TILE_LIMIT_FACTOR = 8
"""A pack's tile limit, as a multiple of the tiles whose features would just fill it: bounds the vision tower's memory.
Images of many tiles are shrunk to few tokens, so a limit near 1 would leave packs of them half empty."""

REPORTED_WORLD_SIZES = (8, 32, 128)
"""Numbers of ranks whose load balance is reported, besides the recipe's own."""


@dataclass(frozen=True, slots=True)
class RankLoad:
    """How evenly a number of ranks is loaded.

    Attributes:
        world_size: Number of ranks.
        grad_accum_steps: Packs of a rank in a step.
        token_efficiency: `BatchOrder.compute_straggler_efficiency` by tokens.
        tile_efficiency: The same by tiles.
    """

    world_size: int
    grad_accum_steps: int
    token_efficiency: float
    tile_efficiency: float


@dataclass(frozen=True, slots=True)
class PackPlanReport:
    """Result of planning a stage.

    Attributes:
        stage: The training stage.
        n_samples: Samples packed.
        n_packs: Packs.
        fill_ratio: Tokens / (packs x `max_seq_len`).
        n_tokens: Tokens of all packs.
        n_loss_tokens: Tokens that the loss is taken on.
        n_tiles: Vision tiles.
        rejects_by_error: Number of rejected rows by error class.
        rank_loads: Load balance by number of ranks, the recipe's own number first.
        shares: Token counts by category and by modality.
        visual_share_percentiles: Percentiles of the share of visual tokens in a pack.
        data_version: Data version of the table.
        duration_s: Seconds that planning took.
    """

    stage: str
    n_samples: int
    n_packs: int
    fill_ratio: float
    n_tokens: int
    n_loss_tokens: int
    n_tiles: int
    rejects_by_error: dict[str, int] = field(default_factory=dict)
    rank_loads: list[RankLoad] = field(default_factory=list)
    shares: list[ShareStats] = field(default_factory=list)
    visual_share_percentiles: dict[str, float] = field(default_factory=dict)
    data_version: str = ""
    duration_s: float = 0.0


def build_pack_plan(
    lake: Lake,
    stage: TrainingStage,
    recipe: Recipe,
    *,
    run_id: str,
    executor: Executor | None = None,
    progress_callback: Callable[[int, int], None] | None = None,
) -> PackPlanReport:
    """Count every row of `mixture/<stage>` exactly, pack, and publish `pack_plan/<stage>` in one commit.

    Deterministic: equal mixture, recipe and tokenizer give an equal data version. Rows that cannot be trained on (too
    long, markers that do not match) are counted in the report and written to the table `rejects`.

    Args:
        lake: Lake with the mixture; it gets the plan.
        stage: The training stage.
        recipe: Says how the stage tokenises, tiles and packs.
        run_id: Run that the rows name.
        executor: Counts the tokens of a mixture that is not small; default: all cores of this machine.
        progress_callback: Called with (rows counted, rows in total).

    Raises:
        MvlError: The mixture is missing, or nothing in it can be used.
    """
    started_at = time.monotonic()
    mixture = lake.get_table(f"mixture/{stage}")
    if not mixture.exists():
        raise MvlError(f"there is no mixture/{stage} to plan", hint=f"materialise mixture/{stage} first")
    tokenizer = load_tokenizer(recipe)
    processor = SampleProcessor.for_stage(recipe, stage, tokenizer)
    planner = _PackPlanner(stage, processor, compute_plan_hash(recipe, stage, tokenizer), recipe.seed)
    plan = lake.get_table(f"pack_plan/{stage}")
    chunks = _iter_with_progress(
        count_mixture(lake, stage, recipe, executor=executor), mixture.count(), progress_callback
    )
    published = plan.publish(planner.iter_tables(chunks, plan.spec.columns, run_id))
    rejects_table = lake.get_table("rejects")
    reject_rows = [_build_reject(stage, row, run_id) for row in planner.rejects]
    rejects_table.publish(
        [pa.Table.from_pylist(reject_rows, schema=rejects_table.spec.columns)],
        partition_key=_build_partition_key(stage),
    )
    totals, rejects_by_error = planner.totals, Counter(row.error for row in planner.rejects)
    if not totals["packs"]:
        error_summary = ", ".join(f"{n} {e}" for e, n in rejects_by_error.most_common()) or "it has no rows"
        raise MvlError(f"mixture/{stage} holds nothing to train on: {error_summary}")
    return PackPlanReport(
        stage=stage,
        n_samples=totals["samples"],
        n_packs=totals["packs"],
        fill_ratio=totals["tokens"] / (totals["packs"] * processor.max_seq_len),
        n_tokens=totals["tokens"],
        n_loss_tokens=totals["loss_tokens"],
        n_tiles=totals["tiles"],
        rejects_by_error=dict(rejects_by_error),
        rank_loads=_compute_rank_loads(PackPlan(lake, stage), recipe, stage),
        shares=planner.mixture_stats.compute_shares(),
        visual_share_percentiles=planner.mixture_stats.compute_visual_share_percentiles(),
        data_version=published.data_version,
        duration_s=time.monotonic() - started_at,
    )


class _PackPlanner:
    """Turns a stream of counts into packs; holds one shard at a time."""

    def __init__(self, stage: TrainingStage, processor: SampleProcessor, identity_hash: str, seed: int) -> None:
        self.stage = stage
        self.processor = processor
        self.identity_hash = identity_hash
        self.seed = seed
        self.rejects: list[RejectedMixtureRow] = []
        self.totals: Counter[str] = Counter()
        self.mixture_stats = MixtureStats()

    def iter_tables(self, chunks: Iterable[CountedChunk], schema: pa.Schema, run_id: str) -> Iterator[pa.Table]:
        """Yield the plan's rows, a shard at a time."""
        max_seq_len = self.processor.max_seq_len
        for shard_index, samples in enumerate(_iter_shards(self._iter_samples(chunks))):
            packs = pack_bins(
                samples, max_seq_len, compute_max_tiles(max_seq_len, self.processor.grid.patches_per_side)
            )
            self.mixture_stats.update(packs)
            random.Random(f"{self.seed}/{shard_index}").shuffle(packs)
            rows = [
                self._build_row(position, pack, run_id) for position, pack in enumerate(packs, self.totals["packs"])
            ]
            self.totals["packs"] += len(packs)
            yield pa.Table.from_pylist(rows, schema=schema)

    def _iter_samples(self, chunks: Iterable[CountedChunk]) -> Iterator[PackableSample]:
        for chunk in chunks:
            self.rejects += chunk.rejects
            yield from chunk.samples

    def _build_row(self, position: int, samples: Sequence[PackableSample], run_id: str) -> dict[str, Any]:
        row_ids = [sample.row_id for sample in samples]
        row: dict[str, Any] = {
            "pack_id": compute_digest(
                self.identity_hash, position, row_ids, [sample.cost.content_hash for sample in samples]
            ),
            "position": position,
            "row_ids": row_ids,
            "n_tokens": sum(sample.cost.n_tokens for sample in samples),
            "n_tiles": sum(sample.cost.n_tiles for sample in samples),
            "n_loss_tokens": sum(sample.cost.n_loss_tokens for sample in samples),
            "lengths": [sample.cost.n_tokens for sample in samples],
            "run_id": run_id,
        }
        self.totals.update(
            samples=len(row_ids), tokens=row["n_tokens"], tiles=row["n_tiles"], loss_tokens=row["n_loss_tokens"]
        )
        return row


def _build_reject(stage: TrainingStage, rejected_row: RejectedMixtureRow, run_id: str) -> dict[str, Any]:
    """Return a rejected row as a row of the table `rejects`."""
    return {
        "reject_id": compute_digest(_build_partition_key(stage), rejected_row.row_id, rejected_row.error),
        "partition_key": _build_partition_key(stage),
        "stage": PACK_PLAN.name,
        "source": rejected_row.source,
        "row_key": rejected_row.row_id,
        "error": rejected_row.error,
        "message": rejected_row.message,
        "file": None,
        "position": rejected_row.position,
        "attempts": 1,
        "request_key": None,
        "run_id": run_id,
    }


def _compute_rank_loads(plan: PackPlan, recipe: Recipe, stage: TrainingStage) -> list[RankLoad]:
    batch_order = BatchOrder.from_plan(plan, recipe.get_stage(stage).global_batch_size, recipe.seed)
    return [
        RankLoad(
            world_size,
            batch_order.count_grad_accum_steps(world_size),
            token_efficiency=batch_order.compute_straggler_efficiency(plan.n_tokens, world_size),
            tile_efficiency=batch_order.compute_straggler_efficiency(plan.n_tiles, world_size),
        )
        for world_size in dict.fromkeys((recipe.nproc_per_node, *REPORTED_WORLD_SIZES))
    ]


def compute_max_tiles(max_seq_len: int, patches_per_side: int) -> int:
    """Return the most tiles of a pack of `max_seq_len` tokens; one sample alone may have more."""
    return max(8, TILE_LIMIT_FACTOR * max_seq_len // patches_per_side**2)


def _build_partition_key(stage: str) -> str:
    return f"pack_plan/{stage}"


def _iter_shards(samples: Iterator[PackableSample]) -> Iterator[list[PackableSample]]:
    while shard := list(islice(samples, SHARD_ROWS)):
        yield shard


def _iter_with_progress(
    chunks: Iterable[CountedChunk], n_rows: int, progress_callback: Callable[[int, int], None] | None
) -> Iterator[CountedChunk]:
    """Yield the same chunks, and call `progress_callback` for each."""
    n_counted = 0
    for chunk in chunks:
        n_counted += len(chunk.samples) + len(chunk.rejects)
        if progress_callback is not None:
            progress_callback(n_counted, n_rows)
        yield chunk
