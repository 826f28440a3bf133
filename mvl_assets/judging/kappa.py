"""Cohen's kappa: agreement of two raters beyond what their shares of Yes would give by chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Confusion:
    """How two raters judged the same `n` items. `both` and `neither` agree; `first` counts those only the first one
    says Yes to."""

    both: int = 0
    first: int = 0
    second: int = 0
    neither: int = 0

    @property
    def n(self) -> int:
        return self.both + self.first + self.second + self.neither

    @property
    def share(self) -> float | None:
        """Of items judged alike; None without items."""
        return (self.both + self.neither) / self.n if self.n else None

    @property
    def kappa(self) -> float | None:
        """(observed - chance) / (1 - chance), Cohen 1960; None without items, or where both say only Yes or only No,
        so that agreement by chance is certain."""
        if not self.n or self._chance == 1:
            return None
        assert self.share is not None
        return (self.share - self._chance) / (1 - self._chance)

    @property
    def standard_error(self) -> float | None:
        """Of `kappa`, for large n: sqrt(p (1 - p) / n) / (1 - chance)."""
        if self.kappa is None or self.share is None:
            return None
        return math.sqrt(self.share * (1 - self.share) / self.n) / (1 - self._chance)

    @property
    def f1(self) -> float | None:
        """Of the first rater's Yes, where the second is right; None when neither ever says Yes."""
        said = 2 * self.both + self.first + self.second
        return 2 * self.both / said if said else None

    @property
    def _chance(self) -> float:
        first, second = (self.both + self.first) / self.n, (self.both + self.second) / self.n
        return first * second + (1 - first) * (1 - second)


def confusion(pairs: Iterable[tuple[bool, bool]]) -> Confusion:
    """Of (first rater's, second rater's) verdicts."""
    counts = Counter(pairs)
    return Confusion(counts[True, True], counts[True, False], counts[False, True], counts[False, False])
