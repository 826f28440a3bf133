"""A panel of judges: what it decides about each criterion, and how its judges agree.

A judge that gave no verdict counts as No with P(yes) 0, so a pair is never kept because a judge was silent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import mean, median_low

from mvl_assets.config.profile import PanelRule
from mvl_assets.judging.kappa import Confusion
from mvl_assets.judging.verdict import Verdict

ALL_CRITERIA = "all"
"""In the place of a criterion: Yes to every one."""

VerdictPattern = tuple[bool | None, ...]
"""What the judges of a panel say, in its order; None for a judge without a verdict."""


@dataclass(frozen=True, slots=True)
class PanelAgreement:
    """How the judges of a panel agree on a criterion.

    Attributes:
        by_pair: Each two judges, by their positions in the panel.
    """

    by_pair: Mapping[tuple[int, int], Confusion]

    @property
    def n(self) -> int:
        """The most items that two judges have in common."""
        return max((confusion.n for confusion in self.by_pair.values()), default=0)

    @property
    def observed_agreement(self) -> float | None:
        """The mean share judged alike over pairs of judges; None without items."""
        return _compute_mean([confusion.observed_agreement for confusion in self.by_pair.values()])

    @property
    def kappa(self) -> float | None:
        """Light's kappa (1971): the mean of Cohen's over pairs of judges, of those where it is defined."""
        return _compute_mean([confusion.kappa for confusion in self.by_pair.values()])


def combine_verdicts(verdicts_by_judge: Sequence[Sequence[Verdict] | None], rule: PanelRule) -> list[Verdict]:
    """Return the panel's verdict on each criterion; that of a panel of one is its own.

    | rule | Yes | P(yes) |
    |---|---|---|
    | mean | P(yes) above 0.5 | the mean |
    | majority | more than half say Yes | the median, the lower of two |
    | unanimous | all say Yes | the lowest |

    P(yes) is not known if it is not of one judge that gave a verdict; the mean then takes 1 for Yes and 0 for No.

    Args:
        verdicts_by_judge: Each judge's verdicts, one per criterion in the same order; of the first, which is never
            None, the panel's verdicts have the criterion and the request.
        rule: How the panel decides.
    """
    first_verdicts = verdicts_by_judge[0]
    assert first_verdicts is not None
    if len(verdicts_by_judge) == 1:
        return list(first_verdicts)
    return [
        _combine_criterion(
            first, [None if verdicts is None else verdicts[position] for verdicts in verdicts_by_judge], rule
        )
        for position, first in enumerate(first_verdicts)
    ]


def _combine_criterion(first: Verdict, verdicts: Sequence[Verdict | None], rule: PanelRule) -> Verdict:
    n_yes = sum(verdict is not None and verdict.is_yes for verdict in verdicts)
    known = [0.0 if verdict is None else verdict.p_yes for verdict in verdicts]
    probabilities = [p for p in known if p is not None]
    is_known = len(probabilities) == len(verdicts)
    p_yes: float | None
    if rule == "mean":
        votes = [
            float(verdict is not None and verdict.is_yes) if p is None else p
            for verdict, p in zip(verdicts, known, strict=True)
        ]
        is_yes, p_yes = mean(votes) > 0.5, mean(probabilities) if is_known else None
    elif rule == "majority":
        is_yes, p_yes = 2 * n_yes > len(verdicts), median_low(probabilities) if is_known else None
    else:
        is_yes, p_yes = n_yes == len(verdicts), min(probabilities) if is_known else None
    return replace(first, is_yes=is_yes, p_yes=p_yes)


def compute_panel_agreement(patterns: Mapping[VerdictPattern, int]) -> PanelAgreement:
    """Return the agreement over items, counted by what the judges say of them."""
    n_judges = max((len(pattern) for pattern in patterns), default=0)
    by_pair = {}
    for first, second in combinations(range(n_judges), 2):
        counts: Counter[tuple[bool, bool]] = Counter()
        for pattern, n in patterns.items():
            a, b = pattern[first], pattern[second]
            if a is not None and b is not None:
                counts[a, b] += n
        by_pair[first, second] = Confusion(
            counts[True, True], counts[True, False], counts[False, True], counts[False, False]
        )
    return PanelAgreement(by_pair)


def _compute_mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return mean(defined) if defined else None
