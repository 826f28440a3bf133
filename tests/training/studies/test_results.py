"""Which of the stored scores the report of a study is made of."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mvl_assets.common.arm_address import ArmId
from mvl_assets.common.digest import compute_digest
from mvl_assets.config.study_arms import get_arm_dir
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.evaluation.benchmarks.benchmark_run import ANSWERS_TABLE
from mvl_training.studies.record import ArmState, save_state
from mvl_training.studies.results import build_report, read_scores, render_report
from mvl_training.studies.study import Study, parse_study


def build_study(**keys: str) -> Study:
    return parse_study({"name": "s", "arms": {"base": {}, "other": {}}, "seeds": [0], **keys}, "test")


def put_answers(lake: Lake, version: str, protocol: str, scores: list[float]) -> None:
    table = lake.get_table(ANSWERS_TABLE)
    rows = [
        {
            "result_id": compute_digest(version, protocol, n),
            "partition_key": f"{version} {protocol}",
            "checkpoint_version": version,
            "benchmark": "MMMU",
            "settings_hash": protocol,
            "protocol": protocol,
            "task": "t",
            "task_hash": "h",
            "question_id": f"q{n}",
            "doc_id": n,
            "score": score,
        }
        for n, score in enumerate(scores)
    ]
    complete = [{name: row.get(name) for name in table.spec.columns.names} for row in rows]
    table.publish([pa.Table.from_pylist(complete, schema=table.spec.columns)], f"{version} {protocol}")


def test_arms_are_compared_by_the_protocol_of_their_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MVL_HOME", str(tmp_path))
    lake = Lake(str(tmp_path / "lake"))
    for arm, version in (("base", "1" * 32), ("other", "2" * 32)):
        get_arm_dir(ArmId("s", arm, 0)).mkdir(parents=True)
        save_state(ArmId("s", arm, 0), ArmState(evaluation={"knowledge": version}))
        put_answers(lake, version, "default", [1.0, 0.0])
    # More questions, which would count if they were of the same protocol.
    put_answers(lake, "2" * 32, "paper", [1.0, 1.0, 1.0])
    for study, means in (
        (build_study(), {"base": 50.0, "other": 50.0}),
        (build_study(protocol="paper"), {"other": 100.0}),
    ):
        report = build_report(study, read_scores(lake, study))
        assert {score.arm: score.mean for score in report.scores} == means
        assert ("`protocol: paper`" in render_report(report)) == (study.protocol == "paper")


def test_a_study_of_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(MvlError, match="test: protocol: Input should be 'default' or 'paper'"):
        build_study(protocol="papers")
