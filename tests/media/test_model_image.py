"""Decoding many images at once stays within a number of pixels."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from mvl_assets.media.model_image import PixelBudget
from tests.patience import PATIENCE_S


def test_pixels_are_held_within_the_budget_and_a_larger_image_is_alone() -> None:
    budget = PixelBudget(100)
    lock = threading.Lock()
    held: list[int] = []
    seen: list[list[int]] = []

    def decode(n_pixels: int) -> None:
        with budget.hold(n_pixels):
            with lock:
                held.append(n_pixels)
                seen.append(list(held))
            threading.Event().wait(0.002)
            with lock:
                held.remove(n_pixels)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(decode, [30, 30, 60, 250, 10, 100] * 8))
    assert len(seen) == 48
    assert all(sum(together) <= 100 or together == [250] for together in seen)
    with ThreadPoolExecutor(1) as threads, budget.hold(30):
        threads.submit(decode, 70).result(PATIENCE_S)
