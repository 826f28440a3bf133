"""Evenly spaced choice of frames."""

from __future__ import annotations

from typing import Literal

import numpy as np


def pick_evenly(n_available: int, n_picked: int, rounding: Literal["nearest", "down"] = "nearest") -> list[int]:
    """Return at most `n_picked` of the indices 0 to `n_available` - 1, evenly spread, first and last included.

    Args:
        n_available: How many there are to choose from.
        n_picked: How many to choose; all of them if no more are available.
        rounding: How a position between two indices is rounded. LLaVA-OneVision rounds down, and so does training;
            frames sampled from a video for the lake are the nearest ones. Stored data depends on both, so neither may
            change.
    """
    if n_available <= n_picked:
        return list(range(n_available))
    positions = np.linspace(0, n_available - 1, n_picked)
    return [int(i) for i in (np.floor(positions) if rounding == "down" else np.rint(positions))]


def pick_exactly(n_available: int, n_picked: int) -> list[int]:
    """Return exactly `n_picked` indices, evenly spread and rounded down; of fewer, some are there several times.

    There are none of none.
    """
    return [int(i) for i in np.linspace(0, n_available - 1, n_picked if n_available else 0)]
