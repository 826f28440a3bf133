"""Planning of a stage: the samples that can be trained on, in the order of training, with their exact counts.

The order is that of the mixture, which is shuffled already, so a step takes consecutive rows. Which samples share a
sequence depends on the number of ranks, and is computed from the counts when a step begins (`step_packs`). No torch.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
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
from mvl_training.data.mixture_stats import MixtureStats, ShareStats
from mvl_training.data.processing import compute_plan_hash, load_tokenizer
from mvl_training.data.token_counts import CountedChunk, CountedSample, RejectedMixtureRow, count_mixture
from mvl_training.recipe import Recipe

SHARD_ROWS = 1 << 16
"""Rows in memory at a time."""


@dataclass(frozen=True, slots=True)
class PackPlanReport:
    """Result of planning a stage.

    Attributes:
        stage: The training stage.
        n_samples: Samples.
        n_tokens: Tokens of all samples.
        n_loss_tokens: Tokens that the loss is taken on.
        n_tiles: Vision tiles.
        rejects_by_error: Number of rejected rows by error class.
        shares: Token counts by category and by modality.
        visual_share_percentiles: Percentiles of the share of visual tokens in a sample.
        data_version: Data version of the table.
        duration_s: Seconds that planning took.
    """

    stage: str
    n_samples: int
    n_tokens: int
    n_loss_tokens: int
    n_tiles: int
    rejects_by_error: dict[str, int] = field(default_factory=dict)
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
    """Count every row of `mixture/<stage>` exactly and publish `pack_plan/<stage>` in one commit.

    Deterministic: equal mixture, recipe and tokenizer give an equal data version. Rows that cannot be trained on (too
    long, markers that do not match) are counted in the report and written to the table `rejects`.

    Args:
        lake: Lake with the mixture; it gets the plan.
        stage: The training stage.
        recipe: Says how the stage tokenises and tiles.
        run_id: Run that the rows name.
        executor: Counts the tokens of a mixture that is not small; default: all cores of this machine.
        progress_callback: Called with (rows counted, rows in total).

    Raises:
        MvlError: The mixture is missing, or nothing in it can be used.
    """
    mixture = lake.get_table(f"mixture/{stage}")
    if not mixture.exists():
        raise MvlError(f"there is no mixture/{stage} to plan", hint=f"materialise mixture/{stage} first")
    plan_hash = compute_plan_hash(recipe, stage, load_tokenizer(recipe))
    chunks = _iter_with_progress(
        count_mixture(lake, stage, recipe, executor=executor), mixture.count(), progress_callback
    )
    return publish_pack_plan(lake, stage, plan_hash, chunks, run_id=run_id)


def publish_pack_plan(
    lake: Lake, stage: TrainingStage, plan_hash: str, chunks: Iterable[CountedChunk], *, run_id: str
) -> PackPlanReport:
    """Publish counted rows as `pack_plan/<stage>` in one commit, and the rejected ones in the table `rejects`.

    Args:
        lake: Lake that gets the plan.
        stage: The training stage.
        plan_hash: Digest of what the counts depend on besides the rows.
        chunks: The rows in the order of the mixture.
        run_id: Run that the rows name.

    Raises:
        MvlError: None of the rows can be used.
    """
    started_at = time.monotonic()
    planner = _Planner(plan_hash)
    plan = lake.get_table(f"pack_plan/{stage}")
    published = plan.publish(planner.iter_tables(chunks, plan.spec.columns, run_id))
    rejects_table = lake.get_table("rejects")
    partition_key = lake.resolve_name(f"pack_plan/{stage}")
    reject_rows = [_build_reject(partition_key, row, run_id) for row in planner.rejects]
    rejects_table.publish(
        [pa.Table.from_pylist(reject_rows, schema=rejects_table.spec.columns)],
        partition_key=partition_key,
    )
    totals, rejects_by_error = planner.totals, Counter(row.error for row in planner.rejects)
    if not totals["samples"]:
        error_summary = ", ".join(f"{n} {e}" for e, n in rejects_by_error.most_common()) or (
            f"it has no rows; give it some (`mixture: {stage}` of the profile), or leave the stage out of the recipe"
        )
        raise MvlError(f"mixture/{stage} holds nothing to train on: {error_summary}")
    return PackPlanReport(
        stage=stage,
        n_samples=totals["samples"],
        n_tokens=totals["n_tokens"],
        n_loss_tokens=totals["n_loss_tokens"],
        n_tiles=totals["n_tiles"],
        rejects_by_error=dict(rejects_by_error),
        shares=planner.mixture_stats.compute_shares(),
        visual_share_percentiles=planner.mixture_stats.compute_visual_share_percentiles(),
        data_version=published.data_version,
        duration_s=time.monotonic() - started_at,
    )


class _Planner:
    """Turns a stream of counts into rows of the plan; holds one shard at a time."""

    def __init__(self, identity_hash: str) -> None:
        self.identity_hash = identity_hash
        self.rejects: list[RejectedMixtureRow] = []
        self.totals: Counter[str] = Counter()
        self.mixture_stats = MixtureStats()

    def iter_tables(self, chunks: Iterable[CountedChunk], schema: pa.Schema, run_id: str) -> Iterator[pa.Table]:
        """Yield the plan's rows, a shard at a time."""
        samples = self._iter_samples(chunks)
        while shard := list(islice(samples, SHARD_ROWS)):
            self.mixture_stats.update(shard)
            rows = [
                self._build_row(position, sample, run_id)
                for position, sample in enumerate(shard, self.totals["samples"])
            ]
            for name in ("n_tokens", "n_tiles", "n_loss_tokens"):
                self.totals[name] += sum(row[name] for row in rows)
            self.totals["samples"] += len(rows)
            yield pa.Table.from_pylist(rows, schema=schema)

    def _iter_samples(self, chunks: Iterable[CountedChunk]) -> Iterator[CountedSample]:
        for chunk in chunks:
            self.rejects += chunk.rejects
            yield from chunk.samples

    def _build_row(self, position: int, sample: CountedSample, run_id: str) -> dict[str, Any]:
        return {
            "planned_id": compute_digest(self.identity_hash, position, sample.row_id, sample.cost.content_hash),
            "position": position,
            "row_id": sample.row_id,
            "n_tokens": sample.cost.n_tokens,
            "n_tiles": sample.cost.n_tiles,
            "n_loss_tokens": sample.cost.n_loss_tokens,
            "run_id": run_id,
        }


def _build_reject(partition_key: str, rejected_row: RejectedMixtureRow, run_id: str) -> dict[str, Any]:
    """Return a rejected row as a row of the table `rejects`."""
    return {
        "reject_id": compute_digest(partition_key, rejected_row.row_id, rejected_row.error),
        "partition_key": partition_key,
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
