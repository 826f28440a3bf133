"""Statistics of a difference between two sets of scores of the same questions.

Most of the noise is common to both, because the questions are the same; pairing removes it from the difference. What is
compared is the mean score, or where a benchmark takes the mean of means (of its tasks, of categories), that; its parts
are `strata`. Questions about one video or image are no independent evidence: they are one cluster, and clusters are
what is resampled and whose signs are flipped (E. Miller, arXiv 2411.00640).

All functions are deterministic for the same `seed_name`; different names give independent draws.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

SEED = 20241206
N_RESAMPLES = 10_000
# Resamples in memory at a time.
RESAMPLE_CHUNK = 500

# Numbers that are equal in exact arithmetic may differ by rounding.
TIE_TOLERANCE = 1e-9


def compute_stratified_mean(values: np.ndarray, strata: Sequence[str] | None = None) -> float:
    """Return the mean over strata of their means; without strata the mean."""
    return float(np.mean([values[indices].mean() for indices in _iter_groups(strata, len(values))]))


def resample_differences(
    differences: np.ndarray,
    *,
    strata: Sequence[str] | None = None,
    clusters: Sequence[str] | None = None,
    seed_name: str = "",
) -> np.ndarray:
    """Return `N_RESAMPLES` bootstrap draws of the (stratified) mean difference; clusters are drawn within strata.

    Args:
        differences: Second minus first score, by question.
        strata: Part of the benchmark that each question belongs to; None: the benchmark is one.
        clusters: What each question is about; None: every question is a cluster of its own.
        seed_name: Names the draws.
    """
    rng = np.random.default_rng((SEED, zlib.crc32(seed_name.encode())))
    groups = list(_iter_groups(strata, len(differences)))
    draws = np.zeros(N_RESAMPLES)
    for indices in groups:
        sums, sizes = _sum_clusters(differences[indices], None if clusters is None else [clusters[i] for i in indices])
        # A draw is how often each distinct pair of sum and size was taken.
        distinct, counts = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
        for start in range(0, N_RESAMPLES, RESAMPLE_CHUNK):
            taken = rng.multinomial(len(sums), counts / len(sums), size=RESAMPLE_CHUNK)
            draws[start : start + RESAMPLE_CHUNK] += (taken @ distinct[0]) / (taken @ distinct[1])
    return draws / len(groups)


def compute_interval(draws: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of bootstrap draws."""
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def flip_differences(
    differences: np.ndarray,
    *,
    strata: Sequence[str] | None = None,
    clusters: Sequence[str] | None = None,
    seed_name: str = "",
) -> np.ndarray:
    """Return `N_RESAMPLES` draws of the mean difference if neither were better: the sign of each cluster by a coin.

    The arguments are those of `resample_differences`.
    """
    rng = np.random.default_rng((SEED + 1, zlib.crc32(seed_name.encode())))
    groups = list(_iter_groups(strata, len(differences)))
    weighted = np.zeros(len(differences))
    for indices in groups:
        weighted[indices] = differences[indices] / (len(indices) * len(groups))
    # A cluster may lie in several strata.
    sums, _ = _sum_clusters(weighted, clusters)
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    draws = [
        (2 * rng.binomial(counts, 0.5, size=(RESAMPLE_CHUNK, len(counts))) - counts) @ sizes
        for _ in range(N_RESAMPLES // RESAMPLE_CHUNK)
    ]
    return np.concatenate(draws)


def compute_flip_p_value(difference: float, draws: np.ndarray) -> float:
    """Return the two-sided p-value of a difference among the draws of `flip_differences`; at least 1 in 10,001."""
    n_as_large = int((np.abs(draws) >= abs(difference) * (1 - TIE_TOLERANCE)).sum())
    return (1 + n_as_large) / (1 + len(draws))


def compute_mcnemar_p_value(n_gained: int, n_lost: int) -> float:
    """Return the two-sided exact p-value: how likely a fair coin divides the changed questions at least as unevenly.

    For scores of 0 and 1 of independent questions (Q. McNemar, Psychometrika 12, 1947).
    """
    n_changed = n_gained + n_lost
    tail = sum(math.comb(n_changed, k) for k in range(min(n_gained, n_lost) + 1))
    return min(1.0, 2 * tail / 2**n_changed)


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given: those below 0.05 hold together with 95 % confidence.

    S. Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _iter_groups(labels: Sequence[str] | None, n_values: int) -> Iterator[np.ndarray]:
    """Yield the indices of each label's values, by label."""
    if labels is None:
        yield np.arange(n_values)
        return
    _, codes = np.unique(np.asarray(labels), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    yield from np.split(order, np.cumsum(np.bincount(codes))[:-1])


def _sum_clusters(values: np.ndarray, clusters: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Return sum and number of the values of each cluster."""
    if clusters is None:
        return values, np.ones(len(values))
    _, codes = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(codes, weights=values), np.bincount(codes).astype(float)
