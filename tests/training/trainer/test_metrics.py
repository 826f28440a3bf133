"""The files in which a run reports its steps."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mvl_assets.errors import MvlError
from mvl_training.trainer.metrics import MetricsReporter, read_metrics

NUMBERS: dict[str, Any] = {
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


def test_a_resumed_run_drops_the_metrics_of_steps_after_its_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": s, "loss": 1.0}) + "\n" for s in (1, 2, 3)]
    file.write_text("".join(lines) + '{"step": 4, "lo', encoding="utf-8")
    reporter = MetricsReporter(tmp_path, "single_image", 5, resume_step=2, recipe={})
    reporter.report_step(NUMBERS)
    reporter.close()
    assert [(s["step"], s["loss"]) for s in read_metrics(file)] == [(1, 1.0), (2, 1.0), (3, 0.5)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_weights_and_biases_gets_the_numbers_and_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed (the extra `wandb`)")
    monkeypatch.setenv("WANDB_PROJECT", "mvl-tests")
    monkeypatch.setenv("WANDB_MODE", "offline")
    reporter = MetricsReporter(tmp_path, "single_image", 5, resume_step=0, recipe={"name": "tiny"})
    assert (wandb.run.id, wandb.run.project, wandb.run.config["name"]) == (tmp_path.name, "mvl-tests", "tiny")
    reporter.report_step(NUMBERS)
    assert (wandb.run.summary["loss"], wandb.run.summary["lr/a"]) == (0.5, 1.0)
    reporter.close()
    assert wandb.run is None
    (stored,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"loss_tokens_per_s" in stored.read_bytes()


def test_a_project_without_the_package_is_an_error_that_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "mvl-tests")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MvlError, match=r"WANDB_PROJECT is set and wandb is missing \| pip install 'mvl\[wandb\]'"):
        MetricsReporter(tmp_path, "single_image", 5, resume_step=0, recipe={})
