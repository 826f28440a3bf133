"""Cohen's kappa: agreement of two raters beyond what their shares of Yes would give by chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Confusion:
    """Confusion matrix of two raters who judged the same items.

    Attributes:
        both_yes: Items that both say Yes to.
        first_only: Items that only the first says Yes to.
        second_only: Items that only the second says Yes to.
        both_no: Items that both say No to.
    """

    both_yes: int = 0
    first_only: int = 0
    second_only: int = 0
    both_no: int = 0

    @property
    def n(self) -> int:
        """How many items there are."""
        return self.both_yes + self.first_only + self.second_only + self.both_no

    @property
    def observed_agreement(self) -> float | None:
        """The share of items judged alike; None without items."""
        return (self.both_yes + self.both_no) / self.n if self.n else None

    @property
    def kappa(self) -> float | None:
        """(observed - chance) / (1 - chance), Cohen 1960.

        None without items, or where both say only Yes or only No, so that agreement by chance is certain.
        """
        if not self.n or self._chance_agreement == 1:
            return None
        assert self.observed_agreement is not None
        return (self.observed_agreement - self._chance_agreement) / (1 - self._chance_agreement)

    @property
    def standard_error(self) -> float | None:
        """The standard error of `kappa` for large n: sqrt(p (1 - p) / n) / (1 - chance)."""
        if self.kappa is None or self.observed_agreement is None:
            return None
        return math.sqrt(self.observed_agreement * (1 - self.observed_agreement) / self.n) / (
            1 - self._chance_agreement
        )

    @property
    def f1(self) -> float | None:
        """F1 of the first rater's Yes, where the second is right; None when neither ever says Yes."""
        n_yes = 2 * self.both_yes + self.first_only + self.second_only
        return 2 * self.both_yes / n_yes if n_yes else None

    @property
    def _chance_agreement(self) -> float:
        first_yes_rate, second_yes_rate = (
            (self.both_yes + self.first_only) / self.n,
            (self.both_yes + self.second_only) / self.n,
        )
        return first_yes_rate * second_yes_rate + (1 - first_yes_rate) * (1 - second_yes_rate)


def compute_confusion(pairs: Iterable[tuple[bool, bool]]) -> Confusion:
    """Return the counts of (first rater's, second rater's) verdicts."""
    counts = Counter(pairs)
    return Confusion(counts[True, True], counts[True, False], counts[False, True], counts[False, False])
