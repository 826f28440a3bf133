"""Trainings and studies as a page shows them: curves of the loss, and tables of what studies measured.

The lake knows nothing of training: who starts the server hands over what reads this (`PageOptions.read_training`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mvl_assets.view.diagrams import Interval, Points, draw_intervals, draw_lines


@dataclass(frozen=True, slots=True)
class TrainingCurve:
    """The loss of one training.

    Attributes:
        heading: Stage and folder of the training.
        note: Its state in a sentence.
        lines: Points by the name of their line.
    """

    heading: str
    note: str
    lines: Mapping[str, Points]


@dataclass(frozen=True, slots=True)
class StudySummary:
    """What a study measured.

    Attributes:
        name: Its name.
        notes: Sentences: what it asks, its budget, what is settled, what is missing.
        tables: Rows by heading.
        intervals: Differences from the baseline, by benchmark.
    """

    name: str
    notes: Sequence[str]
    tables: Mapping[str, Sequence[Mapping[str, object]]]
    intervals: Mapping[str, Sequence[Interval]]


@dataclass(frozen=True, slots=True)
class TrainingOverview:
    """The newest trainings, and all studies."""

    curves: Sequence[TrainingCurve]
    studies: Sequence[StudySummary]


@dataclass(frozen=True, slots=True)
class TrainingPage:
    """An overview with its pictures."""

    curves: list[tuple[TrainingCurve, Markup]]
    studies: list[tuple[StudySummary, list[Markup]]]


def draw_training_page(overview: TrainingOverview) -> TrainingPage:
    """Return what the page shows."""
    return TrainingPage(
        [(curve, Markup(draw_lines(curve.heading, curve.lines))) for curve in overview.curves],  # noqa: S704 - escaped
        [
            (study, [Markup(draw_intervals(*item)) for item in study.intervals.items()])  # noqa: S704 - escaped
            for study in overview.studies
        ],
    )
