"""Learning rates and the reporter's file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from mvl_training.trainer.loop import LossSpikeDetector, compute_lr_scale
from mvl_training.trainer.metrics import MetricsReporter, read_metrics


@pytest.mark.parametrize(("total", "warmup"), [(100, 0.03), (7, 0.1), (40, 0.0), (3, 0.5)])
def test_the_cosine_is_transformers_cosine(total: int, warmup: float) -> None:
    import math

    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = get_cosine_schedule_with_warmup(optimizer, math.ceil(total * warmup), total)
    for step in range(total):
        assert compute_lr_scale(step, total, warmup, "cosine") == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-12
        )
        optimizer.step()
        reference.step()


def test_a_constant_rate_stays_after_warm_up() -> None:
    assert [compute_lr_scale(s, 10, 0.2, "constant") for s in range(4)] == [0.0, 0.5, 1.0, 1.0]


def test_steps_after_the_checkpoint_are_forgotten_on_resume(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": s, "loss": 1.0}) + "\n" for s in (1, 2, 3)]
    file.write_text("".join(lines) + '{"step": 4, "lo', encoding="utf-8")
    reporter = MetricsReporter(tmp_path, "single_image", 5, resume_step=2)
    numbers = {
        "step": 3,
        "loss": 0.5,
        "step_time_s": 1.0,
        "data_time_s": 0.0,
        "loss_tokens_per_s": 1.0,
        "tflops": 0.1,
        "mfu": None,
        "peak_memory_gib": 0.1,
        "lr": {"a": 1.0},
    }
    reporter.report_step(numbers)
    reporter.close()
    assert [(s["step"], s["loss"]) for s in read_metrics(file)] == [(1, 1.0), (2, 1.0), (3, 0.5)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_loss_far_above_the_last_fifty_is_a_spike() -> None:
    watch = LossSpikeDetector(4.0)
    for step in range(50):
        assert watch.threshold == math.inf
        watch.update(2.0 if step % 2 else 1.0)
    assert watch.threshold == 6.0
    assert LossSpikeDetector(4.0, [9.0] * 30 + [1.0, 2.0] * 25).threshold == 6.0  # a resumed run knows the steps before
    never = LossSpikeDetector(None)
    for _ in range(60):
        never.update(1.0)
    assert never.threshold == math.inf
