"""How the last checkpoint of an arm is evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mvl_assets.config.profile import load_profile
from mvl_assets.config.study_arms import use_arm
from mvl_training.evaluation.benchmarks.benchmark_run import BenchmarkSettings
from mvl_training.evaluation.benchmarks.registry import load_suites
from mvl_training.runs.training_run import Checkpoint, set_current_checkpoint
from mvl_training.studies import arm_steps
from mvl_training.studies.arms import resolve_arm, write_arm
from mvl_training.studies.study import parse_study
from tests.training.studies import drawn_project


@pytest.mark.parametrize("protocol", ["default", "paper"])
def test_benchmarks_are_asked_by_the_protocol_of_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    home = drawn_project.make_project(tmp_path)
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MVL_PROJECT", str(home.project))
    data = {"name": "s", "arms": {"only": {}}, "seeds": [0], "suites": ["local"], "protocol": protocol}
    study = parse_study(data, "test")
    arm = resolve_arm(study, load_profile(str(home.folder / "profile.yaml")), study.list_runs()[0])
    write_arm(arm)
    (tmp_path / "export").mkdir()
    checkpoint = Checkpoint(arm.stages[-1], tmp_path, version="1" * 32, max_seq_len=256)
    with use_arm(arm.arm_id):
        set_current_checkpoint(checkpoint)
    calls: list[tuple[str, str]] = []

    def record(*args: Any, benchmark_settings: BenchmarkSettings, **_: Any) -> None:
        calls.append((args[3], benchmark_settings.protocol))

    # lmms-eval has an environment of its own, which these tests may lack.
    monkeypatch.setattr(arm_steps, "run_benchmark", record)
    state = arm_steps.evaluate_arm(study, arm, run_id="run", launch=lambda *_: None, log=lambda _: None)
    assert calls == [(name, protocol) for name in load_suites()["local"].benchmarks]
    assert state.evaluation == {"local": checkpoint.version}
