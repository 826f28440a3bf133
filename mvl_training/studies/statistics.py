"""Differences between arms with both kinds of noise: which questions were asked, and which seeds were drawn.

Questions are paired and resampled by image or film, as `mvl compare` does it; their differences are averaged over seeds
first. Seeds are paired, too: arms with one seed have the same order of rows and initial weights. The spread of their
differences, over the root of their number, scales draws of Student's t. The interval is that of the sum of both draws.
Both contain what question and seed do together, so it is rather too wide than too narrow. p-values are of the same sum
if neither arm were better, and adjusted by Holm's method over all arms and benchmarks of the report.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mvl_training.evaluation import paired_statistics
from mvl_training.evaluation.paired_statistics import compute_flip_p_value, compute_interval, compute_stratified_mean
from mvl_training.evaluation.question_scores import QuestionScore

LEVEL = 0.05
MAX_SEEDS = 1000
Z_975 = statistics.NormalDist().inv_cdf(1 - LEVEL / 2)
OVERALL = "mean of all"

QuestionScores = Mapping[str, QuestionScore]
"""Scores by question."""


@dataclass(frozen=True, slots=True)
class Difference:
    """An arm compared with the baseline on one benchmark, or on the mean of all.

    Attributes:
        n_questions: Questions that both were asked with every seed.
        n_clusters: Images or films that they are about.
        n_seeds: Seeds that both have.
        difference: Arm minus baseline, in points of 100.
        ci_low: Lower end of its 95 % interval; with one seed that of the questions alone.
        ci_high: Upper end.
        seed_spread: Standard deviation of the difference over seeds; None with one.
        p_value: Two-sided; None with one seed.
        adjusted_p_value: The same after Holm; None with one seed.
        seeds_to_settle: Seeds with which a difference of this size would be outside the noise; None where no number of
            seeds is enough, because these questions are too few.
    """

    benchmark: str
    arm: str
    n_questions: int
    n_clusters: int
    n_seeds: int
    difference: float
    ci_low: float
    ci_high: float
    seed_spread: float | None
    p_value: float | None
    adjusted_p_value: float | None = None
    seeds_to_settle: int | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the difference is outside the noise."""
        return self.adjusted_p_value is not None and self.adjusted_p_value < LEVEL


@dataclass(frozen=True, slots=True)
class ArmPairs:
    """The paired differences of an arm and the baseline on a benchmark.

    Attributes:
        means: Difference by seed.
        resampled: Draws of the difference with other questions, averaged over seeds.
        flipped: Draws of it if neither were better.
    """

    n_questions: int
    n_clusters: int
    means: Mapping[int, float]
    resampled: np.ndarray
    flipped: np.ndarray


def pair_arms(
    benchmark: str, arm_scores: Mapping[int, QuestionScores], baseline_scores: Mapping[int, QuestionScores]
) -> ArmPairs | None:
    """Pair the scores of an arm with those of the baseline; None if they have no seed or no question in common.

    Args:
        benchmark: Its name.
        arm_scores: Scores by seed and question; strata and clusters are those of the first seed.
        baseline_scores: Those of the baseline.
    """
    seeds = sorted(arm_scores.keys() & baseline_scores.keys())
    all_scores = [scores[seed] for seed in seeds for scores in (arm_scores, baseline_scores)]
    questions = sorted(set.intersection(*(set(scores) for scores in all_scores))) if all_scores else []
    if not questions:
        return None
    differences = np.array(
        [[arm_scores[seed][q].score - baseline_scores[seed][q].score for q in questions] for seed in seeds]
    )
    strata = [all_scores[0][q].stratum for q in questions]
    clusters = [all_scores[0][q].cluster or q for q in questions]
    by_question = differences.mean(axis=0)
    resampled, flipped = (
        draw(by_question, strata=strata, clusters=clusters, seed_name=benchmark)
        for draw in (paired_statistics.resample_differences, paired_statistics.flip_differences)
    )
    return ArmPairs(
        n_questions=len(questions),
        n_clusters=len(set(clusters)),
        means={seed: compute_stratified_mean(row, strata) for seed, row in zip(seeds, differences, strict=True)},
        resampled=resampled,
        flipped=flipped,
    )


def compare_arms(benchmark: str, arm: str, pairs: Sequence[ArmPairs]) -> Difference:
    """Return the difference on a benchmark, or of the mean over several, with its interval."""
    seeds = sorted(set.intersection(*(set(part.means) for part in pairs)))
    by_seed = [statistics.fmean(part.means[seed] for part in pairs) for seed in seeds]
    mean = statistics.fmean(by_seed)
    spread = statistics.stdev(by_seed) if len(seeds) > 1 else None
    resampled = np.mean([part.resampled for part in pairs], axis=0)
    flipped = np.mean([part.flipped for part in pairs], axis=0)
    noise = np.zeros_like(resampled)
    if spread is not None:
        rng = np.random.default_rng((paired_statistics.SEED, len(seeds)))
        noise = spread / math.sqrt(len(seeds)) * rng.standard_t(len(seeds) - 1, size=len(noise))
    low, high = compute_interval(resampled + noise)
    return Difference(
        benchmark=benchmark,
        arm=arm,
        n_questions=sum(part.n_questions for part in pairs),
        n_clusters=sum(part.n_clusters for part in pairs),
        n_seeds=len(seeds),
        difference=100 * mean,
        ci_low=100 * low,
        ci_high=100 * high,
        seed_spread=None if spread is None else 100 * spread,
        p_value=None if spread is None else compute_flip_p_value(mean, flipped + noise),
        seeds_to_settle=None if spread is None else count_seeds_to_settle(mean, float(resampled.var()), spread),
    )


def adjust_differences(differences: Sequence[Difference]) -> list[Difference]:
    """Return the differences with p-values adjusted by Holm's method over all of them that have one."""
    p_values = [difference.p_value for difference in differences if difference.p_value is not None]
    adjusted = iter(paired_statistics.adjust_p_values(p_values))
    return [replace(d, adjusted_p_value=None if d.p_value is None else next(adjusted)) for d in differences]


def count_seeds_to_settle(difference: float, question_variance: float, spread: float) -> int | None:
    """Return the smallest number of seeds with which the interval of a difference of this size leaves out 0.

    None where the noise of the questions alone is too large, or more than `MAX_SEEDS` would be needed.
    """
    question_width = Z_975 * math.sqrt(question_variance)
    if abs(difference) <= question_width:
        return None
    for n_seeds in range(2, MAX_SEEDS + 1):
        seed_width = compute_t_quantile(n_seeds - 1) * spread / math.sqrt(n_seeds)
        if math.hypot(question_width, seed_width) < abs(difference):
            return n_seeds
    return None


def compute_t_quantile(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t: exact for 1 and 2 degrees, else within 1 % (Cornish and Fisher)."""
    p, z = 1 - LEVEL / 2, Z_975
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )
