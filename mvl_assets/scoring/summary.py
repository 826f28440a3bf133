"""What the scores of a source say: means before and after rewriting, the difference, and a recommendation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mvl_assets.lake.table_reader import TableReader
from mvl_assets.scoring.answer_kinds import ANSWER_KINDS
from mvl_assets.scoring.score import ORIGINAL_KIND, REWRITTEN_KIND
from mvl_assets.scoring.scores import MEASURES

_COLUMNS = ["sample_id", "source", "kind", "answer_chars", "answer_kind", *MEASURES]
# Fewer samples say nothing, and a difference counts from two standard errors on.
MIN_SAMPLES, MIN_STANDARD_ERRORS = 30, 2.0


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """A measure before and after rewriting, over samples with both scores.

    Attributes:
        original: Mean over the originals.
        rewritten: Mean over the rewrites.
        difference: Mean difference within samples, rewritten minus original.
        standard_error: Of the difference; None for fewer than two samples.
    """

    original: float
    rewritten: float
    difference: float
    standard_error: float | None

    @property
    def is_lower(self) -> bool:
        """Whether rewriting lowered the measure by more than chance would."""
        return self._is_beyond_chance(-self.difference)

    @property
    def is_higher(self) -> bool:
        """Whether rewriting raised the measure by more than chance would."""
        return self._is_beyond_chance(self.difference)

    def _is_beyond_chance(self, difference: float) -> bool:
        return self.standard_error is not None and difference > MIN_STANDARD_ERRORS * self.standard_error


@dataclass(frozen=True, slots=True)
class ScoreSummary:
    """The scores of a source.

    Attributes:
        n_samples: Samples whose original and rewrite both have scores.
        changes: By measure; empty without such samples.
        lengths: Characters of the answers of each conversation, by kind of row.
        answer_kinds: Conversations by the form of their first answer, by kind of row.
    """

    n_samples: int
    changes: Mapping[str, ScoreChange]
    lengths: Mapping[str, list[int]]
    answer_kinds: Mapping[str, Counter[str]]

    @property
    def recommendation(self) -> str:
        """Whether to take the rewrites or the originals, and why."""
        return suggest_rows(self.n_samples, self.changes)


def summarize_scores(table: TableReader, source: str | None = None) -> dict[str, ScoreSummary]:
    """Return the summary of each source in a `scored` table, or of one source. Memory holds a few numbers a row."""
    rows_by_source: dict[str, list[dict[str, Any]]] = {}
    for row in table.iter_rows(_COLUMNS, partition_key=source):
        rows_by_source.setdefault(row["source"], []).append(row)
    return {slug: _summarize(rows) for slug, rows in sorted(rows_by_source.items())}


def _summarize(rows: list[dict[str, Any]]) -> ScoreSummary:
    rows_by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in (ORIGINAL_KIND, REWRITTEN_KIND)}
    originals, rewrites = ({row["sample_id"]: row for row in rows} for rows in rows_by_kind.values())
    both = [(originals[sample_id], rewrites[sample_id]) for sample_id in originals if sample_id in rewrites]
    return ScoreSummary(
        n_samples=len(both),
        changes={name: _compute_change([(a[name], b[name]) for a, b in both]) for name in MEASURES} if both else {},
        lengths={kind: [row["answer_chars"] for row in rows] for kind, rows in rows_by_kind.items()},
        answer_kinds={
            kind: Counter(dict.fromkeys(ANSWER_KINDS, 0)) + Counter(row["answer_kind"] for row in rows)
            for kind, rows in rows_by_kind.items()
        },
    )


def _compute_change(pairs: list[tuple[int, int]]) -> ScoreChange:
    n = len(pairs)
    differences = [after - before for before, after in pairs]
    mean = sum(differences) / n
    standard_error = None
    if n > 1:
        standard_error = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1) / n)
    return ScoreChange(sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n, mean, standard_error)


def suggest_rows(n_samples: int, changes: Mapping[str, ScoreChange]) -> str:
    """Return whether to take the rewrites or the originals of a source, and why.

    A loss of relevance outweighs a gain of content: a rich answer about something else teaches the wrong thing.
    """
    if n_samples < MIN_SAMPLES:
        return f"too few samples to say ({n_samples} of {MIN_SAMPLES})"
    content, relevance = changes["content"], changes["relevance"]
    if relevance.is_lower:
        also = ", though it raises content" if content.is_higher else ""
        return f"take the originals: rewriting lowers relevance by {-relevance.difference:.2f}{also}"
    if content.is_lower:
        return f"take the originals: rewriting lowers content by {-content.difference:.2f}"
    if content.is_higher or relevance.is_higher:
        gains = [f"{name} by {changes[name].difference:.2f}" for name in MEASURES if changes[name].is_higher]
        return f"take the rewrites: rewriting raises {' and '.join(gains)}"
    return "no difference beyond chance: the scores do not decide"
