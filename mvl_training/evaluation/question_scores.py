"""The scores that checkpoints got question by question, as the lake has them: of benchmarks and held-out questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_training.evaluation.benchmarks.benchmark_run import ANSWERS_TABLE
from mvl_training.evaluation.benchmarks.paper_protocol import DEFAULT_PROTOCOL, Protocol
from mvl_training.evaluation.clean_subset import read_item_ids
from mvl_training.evaluation.held_out import suite


class ScoreKey(NamedTuple):
    """How questions were asked whose scores may be compared one by one.

    Attributes:
        benchmark: Its name; the held-out questions count as a benchmark.
        protocol: By which it was asked; None for the held-out questions, which are asked in one way.
        settings_hash: Hash of all settings, the protocol included.
    """

    benchmark: str
    protocol: Protocol | None
    settings_hash: str


@dataclass(frozen=True, slots=True)
class QuestionScore:
    """Score of one question, mostly from 0 to 1.

    Attributes:
        score: The score.
        stratum: Part of the benchmark that its score is a mean over, such as a task.
        cluster: What the question is about, such as a video; empty: nothing that another question is about, too.
    """

    score: float
    stratum: str = ""
    cluster: str = ""


def read_question_scores(
    lake: Lake, version: str, benchmarks: Sequence[str] | None, item_ids: dict[str, str]
) -> dict[ScoreKey, dict[str, QuestionScore]]:
    """Return a checkpoint version's scores by question, for each way of asking; keys contain the hash of a task's code.

    Whether a server answered held-out questions or this project's code makes no difference.

    Args:
        lake: The lake.
        version: The checkpoint version.
        benchmarks: Names of benchmarks; None for all.
        item_ids: Takes the item of each question, as far as it is in the lake.
    """
    scores = _read_benchmark_questions(lake, version, benchmarks, item_ids)
    if not benchmarks or suite.SUITE in benchmarks:
        columns = ["settings_hash", "question_id", "sample_id", "correct"]
        for row in lake.get_table(suite.TABLE).iter_rows(columns, sql.equals("checkpoint_version", version)):
            item_ids[row["question_id"]] = row["sample_id"]
            key = ScoreKey(suite.SUITE, None, row["settings_hash"])
            scores.setdefault(key, {})[row["question_id"]] = QuestionScore(float(row["correct"]))
    return scores


def _read_benchmark_questions(
    lake: Lake, version: str, benchmarks: Sequence[str] | None, item_ids: dict[str, str]
) -> dict[ScoreKey, dict[str, QuestionScore]]:
    row_filter = f"{sql.equals('checkpoint_version', version)} AND score IS NOT NULL"
    if benchmarks:
        row_filter += f" AND {sql.is_in('benchmark', list(benchmarks))}"
    columns = [
        "benchmark",
        "protocol",
        "settings_hash",
        "task",
        "task_hash",
        "question_id",
        "doc_id",
        "cluster",
        "stratum",
        "score",
    ]
    scores: dict[ScoreKey, dict[str, QuestionScore]] = {}
    rows = list(lake.get_table(ANSWERS_TABLE).iter_rows(columns, row_filter))
    items = read_item_ids(lake, sorted({row["task"] for row in rows}))
    for row in rows:
        question_key = f"{row['task']} {row['task_hash']} {row['doc_id']} {row['question_id']}"
        if (row["task"], row["doc_id"]) in items:
            item_ids[question_key] = items[row["task"], row["doc_id"]]
        # Rows from before there were two have none.
        key = ScoreKey(row["benchmark"], row["protocol"] or DEFAULT_PROTOCOL, row["settings_hash"])
        question_score = QuestionScore(row["score"], f"{row['task']} {row['stratum'] or ''}", row["cluster"] or "")
        scores.setdefault(key, {})[question_key] = question_score
    return scores
