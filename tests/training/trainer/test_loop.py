"""Learning rates and loss spikes."""

from __future__ import annotations

import math

import pytest
import torch

from mvl_training.trainer.loop import LossSpikeDetector, compute_lr_scale


@pytest.mark.parametrize(("total", "warmup"), [(100, 0.03), (7, 0.1), (40, 0.0), (3, 0.5)])
def test_the_cosine_schedule_equals_that_of_transformers(total: int, warmup: float) -> None:
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = get_cosine_schedule_with_warmup(optimizer, math.ceil(total * warmup), total)
    for step in range(total):
        assert compute_lr_scale(step, total, warmup, "cosine") == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-12
        )
        optimizer.step()
        reference.step()


def test_a_constant_schedule_stays_at_one_after_the_warm_up() -> None:
    assert [compute_lr_scale(step, 10, 0.2, "constant") for step in range(4)] == [0.0, 0.5, 1.0, 1.0]


def test_a_loss_far_above_the_median_of_the_last_fifty_is_a_spike() -> None:
    detector = LossSpikeDetector(4.0)
    for step in range(50):
        assert detector.threshold == math.inf
        detector.update(2.0 if step % 2 else 1.0)
    assert detector.threshold == 6.0
    assert LossSpikeDetector(4.0, [9.0] * 30 + [1.0, 2.0] * 25).threshold == 6.0  # a resumed run knows the steps before
    without_factor = LossSpikeDetector(None)
    for _ in range(60):
        without_factor.update(1.0)
    assert without_factor.threshold == math.inf
