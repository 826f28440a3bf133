"""The files in which a run reports its steps."""

from __future__ import annotations

import json
from pathlib import Path

from mvl_training.trainer.metrics import MetricsReporter, read_metrics


def test_a_resumed_run_drops_the_metrics_of_steps_after_its_checkpoint(tmp_path: Path) -> None:
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
