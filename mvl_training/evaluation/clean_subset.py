"""Scores on the clean subset of a benchmark: the questions that no training row of the checkpoint touches.

Which items are touched is found from the lineage (checkpoint, pack plan, mixture, sample) and the hits of
`curation/contamination`, and is stored by checkpoint version, so that it is known when the plan has been replaced. A
checkpoint has read the rows of the stages before it, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.training_stages import TRAINING_STAGES, TrainingStage
from mvl_assets.config.contamination_rules import HIT_KINDS, ContaminationRules
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings
from mvl_assets.lake import sql
from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.training_tables import TOUCHED_ITEMS
from mvl_assets.lake_queries.benchmarks.touched_items import iter_touched_items
from mvl_training.runs.training_run import (
    Checkpoint,
    StageError,
    load_current_checkpoint,
    read_json,
)
from mvl_training.trainer.run_files import PROVENANCE_FILE, RESULT_FILE

HELD_OUT_KINDS = ("near_duplicate", "shared_image")
"""Kinds of hits on the lake's own held-out questions, which taint these whatever the profile says of benchmarks."""


@dataclass(frozen=True, slots=True)
class TouchedItems:
    """What the training rows of a checkpoint touch.

    Attributes:
        n_rows: The training rows that were looked at.
        kinds: The strongest kind of hit, by item.
    """

    n_rows: int
    kinds: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CleanScore:
    """Mean question scores of a benchmark, from 0 to 100: of all questions, and of those that nothing touches.

    Attributes:
        benchmark: Its name.
        n_questions: Questions with a score whose item is in the lake.
        n_clean: Those of them that no training row touches.
        n_unknown: Questions with a score whose item is not in the lake; no part of the other figures.
        kind_counts: Touched questions by kind of hit.
        score: Mean over the questions; of several tasks the mean of their means.
        clean_score: The same over the clean ones; None if there are none.
        clean_stderr: Its standard error.
    """

    benchmark: str
    n_questions: int
    n_clean: int
    n_unknown: int
    kind_counts: Mapping[str, int]
    score: float | None
    clean_score: float | None
    clean_stderr: float | None


def record_touched_items(
    lake: Lake, checkpoint: Checkpoint, rules: ContaminationRules, *, run_id: str
) -> TouchedItems | None:
    """Find and store what the training rows of a checkpoint touch; return what is known of it.

    Where the lineage is gone, because a plan or an earlier checkpoint was replaced, what was stored before is returned;
    None if that is nothing.
    """
    try:
        stages = [link.stage for link in list_lineage(lake, checkpoint)]
        taints = [kind for kind in HIT_KINDS if kind in rules.taints or kind in HELD_OUT_KINDS]
        tables = (_add_columns(table, checkpoint.version, run_id) for table in iter_touched_items(lake, stages, taints))
        lake.get_table(TOUCHED_ITEMS.name).publish(tables, checkpoint.version)
    except (StageError, LakeError):
        return read_touched_items(lake, checkpoint.version)
    return read_touched_items(lake, checkpoint.version)


def record_current_touches(lake: Lake, stage: TrainingStage) -> TouchedItems | None:
    """Do so for the current checkpoint of a stage, by the rules of the profile in use."""
    rules = load_profile(load_settings().profile).contamination
    return record_touched_items(lake, load_current_checkpoint(stage), rules, run_id="compare")


def read_touched_items(lake: Lake, version: str) -> TouchedItems | None:
    """Return what is stored of a checkpoint; None if its training rows were never looked at."""
    kinds: dict[str, str] = {}
    n_rows = None
    rows = lake.get_table(TOUCHED_ITEMS.name).iter_rows(["item_id", "kind", "n_rows"], partition_key=version)
    for row in rows:
        if row["item_id"] is None:
            n_rows = row["n_rows"]
        else:
            kinds[row["item_id"]] = row["kind"]
    return None if n_rows is None else TouchedItems(n_rows, kinds)


def list_lineage(lake: Lake, checkpoint: Checkpoint) -> list[Checkpoint]:
    """Return the checkpoint and those before it, whose pack plans are as they were when these were trained.

    Raises:
        StageError: A plan was replaced since, or an earlier checkpoint is not the one that training began with.
    """
    chain = [checkpoint]
    while True:
        current = chain[-1]
        result = read_json(current.output_dir / RESULT_FILE)
        if lake.get_table(f"pack_plan/{current.stage}").compute_data_version() != result["plan_version"]:
            raise StageError(f"pack_plan/{current.stage} was replaced after the checkpoint was trained")
        if result["initial_weights"] is None:
            return chain
        chain.append(_find_previous(current, result["initial_weights"]))


def _find_previous(checkpoint: Checkpoint, initial_weights: Mapping[str, Any]) -> Checkpoint:
    """Return the current checkpoint of an earlier stage that has these weights."""
    for stage in reversed(TRAINING_STAGES[: TRAINING_STAGES.index(checkpoint.stage)]):
        with suppress(StageError):
            previous = load_current_checkpoint(stage)
            provenance = json.loads((previous.export_dir / PROVENANCE_FILE).read_text(encoding="utf-8"))
            if initial_weights == {"run": provenance["run_hash"], "step": provenance["step"]}:
                return previous
    raise StageError(f"checkpoint/{checkpoint.stage} began with a checkpoint that was replaced since")


def compute_clean_score(
    lake: Lake, benchmark: str, version: str, settings_hash: str, touched: TouchedItems
) -> CleanScore | None:
    """Return the scores of a benchmark as a checkpoint answered it; None if no item of it is in the lake."""
    condition = (
        f"{sql.equals('checkpoint_version', version)} AND {sql.equals('benchmark', benchmark)}"
        f" AND {sql.equals('settings_hash', settings_hash)} AND score IS NOT NULL"
    )
    answers = lake.get_table("evaluation_benchmark_answers").iter_rows(["task", "doc_id", "score"], condition)
    scores = {(row["task"], row["doc_id"]): row["score"] for row in answers}
    items = read_item_ids(lake, sorted({task for task, _ in scores}))
    known = {question: score for question, score in scores.items() if question in items}
    if not known:
        return None
    clean = {question: score for question, score in known.items() if items[question] not in touched.kinds}
    kinds = [touched.kinds[items[question]] for question in known.keys() - clean.keys()]
    return CleanScore(
        benchmark=benchmark,
        n_questions=len(known),
        n_clean=len(clean),
        n_unknown=len(scores) - len(known),
        kind_counts={kind: kinds.count(kind) for kind in HIT_KINDS if kind in kinds},
        score=_compute_mean(known),
        clean_score=_compute_mean(clean),
        clean_stderr=_compute_stderr(list(clean.values())),
    )


def read_item_ids(lake: Lake, tasks: Sequence[str]) -> dict[tuple[str, int], str]:
    """Return the items of tasks by task and number of the question."""
    if not tasks:
        return {}
    rows = lake.get_table("curation/benchmark_items").iter_rows(
        ["task", "doc_id", "item_id"], sql.is_in("task", list(tasks))
    )
    return {(row["task"], row["doc_id"]): row["item_id"] for row in rows}


def render_clean_score(clean: CleanScore | None, touched: TouchedItems | None) -> str:
    """Return a sentence in Markdown: the clean score, how many questions it has, and what touches the others."""
    if touched is None:
        return "Clean subset: not known, because the plans that the checkpoint was trained by have been replaced."
    if clean is None:
        return "Clean subset: not known, because the items of the benchmark are not in the lake (`benchmarks/*`)."
    kinds = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in clean.kind_counts.items())
    stderr = "" if clean.clean_stderr is None else f" ± {clean.clean_stderr:.1f}"
    score = "no score" if clean.clean_score is None else f"**{clean.clean_score:.1f}{stderr}**"
    unknown = f" {clean.n_unknown} questions have no item in the lake." if clean.n_unknown else ""
    return (
        f"Clean subset: {score} on {clean.n_clean} of {clean.n_questions} questions, {clean.score or 0:.1f} on all of"
        f" them (means of question scores). Training rows touch {clean.n_questions - clean.n_clean}"
        f"{f': {kinds}' if kinds else ''}.{unknown}"
    )


def _compute_mean(scores: Mapping[tuple[str, int], float]) -> float | None:
    by_task: dict[str, list[float]] = {}
    for (task, _), score in scores.items():
        by_task.setdefault(task, []).append(score)
    means = [math.fsum(values) / len(values) for values in by_task.values()]
    return 100 * math.fsum(means) / len(means) if means else None


def _compute_stderr(scores: Sequence[float]) -> float | None:
    if len(scores) < 2:
        return None
    mean = math.fsum(scores) / len(scores)
    variance = math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1)
    return 100 * math.sqrt(variance / len(scores))


def _add_columns(table: pa.Table, version: str, run_id: str) -> pa.Table:
    ids = [compute_digest("touched", version, item_id) for item_id in table["item_id"].to_pylist()]
    return pa.table(
        {
            **{name: table[name] for name in ("item_id", "source", "kind", "n_rows")},
            "touched_id": ids,
            "checkpoint_version": [version] * len(ids),
            "run_id": [run_id] * len(ids),
        }
    ).select(TOUCHED_ITEMS.columns.names)
