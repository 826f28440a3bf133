"""Trainings and studies for the page `/training` of `mvl view`, which has no part in training itself."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.view.diagrams import Interval, Points
from mvl_assets.view.training_page import StudySummary, TrainingCurve, TrainingOverview
from mvl_training.studies.record import list_started_studies, require_record
from mvl_training.studies.results import (
    StudyReport,
    build_difference_row,
    build_report,
    build_score_row,
    describe_budget,
    describe_outcome,
    read_scores,
)
from mvl_training.trainer.run_files import METRICS_FILE, RESULT_FILE

MAX_CURVES, MAX_POINTS = 12, 300


def read_training_overview(lake: Lake) -> TrainingOverview:
    """Return the newest trainings, and all studies that were started."""
    return TrainingOverview(list(iter_curves()), [_read_study(lake, name) for name in list_started_studies()])


def iter_curves() -> Iterator[TrainingCurve]:
    """Yield the curves of the newest `MAX_CURVES` trainings, newest first."""
    paths = load_settings().checkpoints_dir.glob(f"*/*/{METRICS_FILE}")
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)[:MAX_CURVES]:
        losses: list[tuple[float, float]] = []
        held_out: list[tuple[float, float]] = []
        for line in _iter_lines(path):
            for points, name in ((losses, "loss"), (held_out, "held_out_loss")):
                value = line.get(name)
                if value is not None and math.isfinite(value):
                    points.append((line["step"], value))
        if losses:
            state = "finished" if (path.parent / RESULT_FILE).is_file() else "not finished"
            yield TrainingCurve(
                f"{path.parent.parent.name} {path.parent.name}",
                f"{int(losses[-1][0]):,} steps, {state}",
                {"loss": compute_means(losses), "held-out loss": compute_means(held_out)},
            )


def compute_means(points: Points) -> Points:
    """Return at most `MAX_POINTS` points: means of neighbours, at the step of the last of them."""
    size = -(-len(points) // MAX_POINTS)
    groups = (points[start : start + size] for start in range(0, len(points), size)) if points else ()
    return [(group[-1][0], math.fsum(y for _, y in group) / len(group)) for group in groups]


def summarize_report(report: StudyReport) -> StudySummary:
    """Return the report of a study as a page shows it."""
    study = report.study
    notes = [study.description.strip(), f"Baseline: {study.baseline_arm}. {describe_budget(study)}"]
    notes += [describe_outcome(study, difference) for difference in report.differences]
    if report.missing:
        notes.append(f"Not evaluated yet: {', '.join(arm_id.path for arm_id in report.missing)}.")
    intervals: dict[str, list[Interval]] = {}
    for d in report.differences:
        interval = Interval(d.arm, d.ci_low, d.difference, d.ci_high, d.is_settled)
        intervals.setdefault(f"{d.benchmark}: points above {study.baseline_arm}, 95 %", []).append(interval)
    return StudySummary(
        study.name,
        [note for note in notes if note],
        {
            "Scores from 0 to 100: mean over seeds, and their standard deviation": [
                build_score_row(score) for score in report.scores
            ],
            f"Difference from {study.baseline_arm}, in points": [build_difference_row(d) for d in report.differences],
            "The same over questions that no training row of any arm touches": [
                build_difference_row(d) for d in report.clean_differences
            ],
        },
        intervals,
    )


def _read_study(lake: Lake, name: str) -> StudySummary:
    try:
        study = require_record(name).study
        return summarize_report(build_report(study, read_scores(lake, study)))
    except MvlError as error:  # one study that cannot be read must not hide the others
        return StudySummary(name, [f"It cannot be read: {error.message}"], {}, {})


def _iter_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the steps that were written; a last line cut short by a kill is left out."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                return
