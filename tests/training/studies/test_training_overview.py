"""Trainings and studies as `mvl view` shows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mvl_assets.config.profile import load_profile
from mvl_assets.lake.lake import Lake
from mvl_training.studies.arms import resolve_arms
from mvl_training.studies.record import start_study
from mvl_training.studies.results import build_report
from mvl_training.studies.study import parse_study
from mvl_training.studies.training_overview import MAX_POINTS, compute_means, read_training_overview, summarize_report
from tests.training.studies.drawn_scores import STUDY, draw_rows


def test_curves_are_the_losses_of_trainings_and_a_study_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MVL_HOME", str(tmp_path))
    lake = Lake(str(tmp_path / "lake"))
    assert read_training_overview(lake).curves == []
    run = tmp_path / "checkpoints" / "single_image" / "0a1b"
    run.mkdir(parents=True)
    steps = [{"step": n + 1, "loss": 3 - n / 1000, "held_out_loss": 4.0 if n % 500 == 0 else None} for n in range(1000)]
    steps[7]["loss"] = float("nan")
    lines = "".join(json.dumps(step) + "\n" for step in steps)
    (run / "metrics.jsonl").write_text(lines + '{"step": 1001, "lo', encoding="utf-8")
    arms = {"0": {"mixture.rewritten_share": 0.0}, "70": {"mixture.rewritten_share": 0.7}}
    values = {"name": "mix", "recipe": "demo", "arms": arms, "seeds": [0, 4], "stages": ["single_image"]}
    started = parse_study(values, "study mix")
    start_study(started, resolve_arms(started, load_profile("demo")), {}, None)
    (tmp_path / "studies" / "broken").mkdir()
    (tmp_path / "studies" / "broken" / "study.json").write_text(
        json.dumps({"study": {"name": "broken"}, "file_content": None, "arm_digests": {}, "inputs": {}})
    )
    overview = read_training_overview(lake)
    (curve,) = overview.curves
    assert (curve.heading, curve.note) == ("single_image 0a1b", "1,000 steps, not finished")
    points = curve.lines["loss"]
    assert len(points) <= MAX_POINTS and points[-1][0] == 1000 and points[-1][1] == pytest.approx(2.0015, abs=0.002)
    assert curve.lines["held-out loss"] == [(1, 4.0), (501, 4.0)]
    broken, mix = overview.studies
    assert broken.notes[0].startswith("It cannot be read")
    assert "Not evaluated yet: mix/0/0, mix/70/0, mix/0/4, mix/70/4." in mix.notes


def test_a_report_is_tables_sentences_and_intervals() -> None:
    summary = summarize_report(build_report(STUDY, draw_rows(0.15)))
    scores, differences, clean = summary.tables.values()
    assert [row["arm"] for row in scores] == ["base", "other"] and len(differences) == 1 and clean == []
    ((interval,),) = summary.intervals.values()
    assert interval.is_settled and 0 < interval.low < interval.value < interval.high
    assert any("other is better than base" in note for note in summary.notes)


def test_points_are_means_of_neighbours() -> None:
    assert compute_means([]) == []
    assert compute_means([(n, float(n)) for n in range(2 * MAX_POINTS)])[:2] == [(1, 0.5), (3, 2.5)]
