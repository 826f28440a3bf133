"""How well a judge tells good pairs from bad ones, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from mvl_assets.judging.keep import compute_min_p_yes
from mvl_assets.judging.probes.contrast_pairs import ContrastPair
from mvl_assets.judging.verdict import Verdict

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class JudgeResponse:
    """The response to one pair: whether it is Yes to every criterion, the lowest P(yes), and each verdict."""

    all_yes: bool
    p_yes: float | None
    verdicts: dict[str, bool]

    @classmethod
    def from_verdicts(cls, verdicts: Sequence[Verdict]) -> JudgeResponse:
        """Return the response that a judge's verdicts on all criteria make."""
        return cls(
            all(verdict.is_yes for verdict in verdicts),
            compute_min_p_yes(verdicts),
            {verdict.criterion: verdict.is_yes for verdict in verdicts},
        )

    def accepts(self, min_p_yes: float) -> bool:
        """Return whether the pair would be kept: Yes to every criterion, each with at least this P(yes)."""
        return self.all_yes and (min_p_yes == 0 or (self.p_yes is not None and self.p_yes >= min_p_yes))


@dataclass(frozen=True, slots=True)
class PairResult:
    """The responses to a good and a bad pair; None where there is no verdict."""

    pair: ContrastPair
    good: JudgeResponse | None
    bad: JudgeResponse | None


@dataclass(frozen=True, slots=True)
class Share:
    """A share of `n` items, with Wilson's interval (1927) at 95 %; None of nothing."""

    count: int
    n: int

    @property
    def value(self) -> float | None:
        return self.count / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        if not self.n:
            return None
        z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
        share = self.count / self.n
        centre = (share + z * z / (2 * self.n)) / (1 + z * z / self.n)
        margin = z / (1 + z * z / self.n) * math.sqrt(share * (1 - share) / self.n + z * z / (4 * self.n * self.n))
        return max(0.0, centre - margin), min(1.0, centre + margin)


@dataclass(frozen=True, slots=True)
class ProbeScore:
    """Counts over some contrast pairs. A judge that always says the same has no more detection than false alarm.

    Attributes:
        n_pairs: Contrast pairs.
        n_unanswered: Those that lack a verdict; the shares leave them out.
        detection: Bad pairs that are not accepted.
        false_alarm: Good pairs that are not accepted.
        ranked: Contrast pairs whose good pair has the higher P(yes), of those whose P(yes) is known.
    """

    n_pairs: int
    n_unanswered: int
    detection: Share
    false_alarm: Share
    ranked: Share


@dataclass(frozen=True, slots=True)
class ThresholdScore:
    """What a threshold of P(yes) accepts of contrast pairs whose P(yes) is known.

    Attributes:
        min_p_yes: The threshold; the verdicts have to be Yes, too.
        detection: Bad pairs that are not accepted.
        false_alarm: Good pairs that are not accepted.
        good: Good pairs, of those accepted; good and bad pairs are as many.
    """

    min_p_yes: float
    detection: Share
    false_alarm: Share
    good: Share


THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def compute_threshold_scores(
    results: Sequence[PairResult], further_thresholds: Sequence[float] = ()
) -> list[ThresholdScore]:
    """Return the scores at `THRESHOLDS` and at further ones, such as the keep rule's; none where no P(yes) is known."""
    known = [
        (result.good, result.bad)
        for result in results
        if result.good and result.bad and None not in (result.good.p_yes, result.bad.p_yes)
    ]
    scores = []
    for threshold in sorted({*THRESHOLDS, *further_thresholds} if known else ()):
        n_good = sum(good.accepts(threshold) for good, _ in known)
        n_bad = sum(bad.accepts(threshold) for _, bad in known)
        scores.append(
            ThresholdScore(
                threshold,
                detection=Share(len(known) - n_bad, len(known)),
                false_alarm=Share(len(known) - n_good, len(known)),
                good=Share(n_good, n_good + n_bad),
            )
        )
    return scores


def compute_probe_score(results: Sequence[PairResult], min_p_yes: float = 0.0) -> ProbeScore:
    """Return the counts over some contrast pairs.

    Args:
        results: The responses.
        min_p_yes: The P(yes) that an accepted pair needs for every criterion, besides the verdict Yes.
    """
    answered = [(result.good, result.bad) for result in results if result.good and result.bad]
    ranks = [good.p_yes > bad.p_yes for good, bad in answered if good.p_yes is not None and bad.p_yes is not None]
    return ProbeScore(
        n_pairs=len(results),
        n_unanswered=len(results) - len(answered),
        detection=Share(sum(not bad.accepts(min_p_yes) for _, bad in answered), len(answered)),
        false_alarm=Share(sum(not good.accepts(min_p_yes) for good, _ in answered), len(answered)),
        ranked=Share(sum(ranks), len(ranks)),
    )
