"""Arms of another lake, as studies of rewriters and prompts have them: a copy that shares files, with other rows."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings
from mvl_assets.config.study_arms import use_arm
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.studies import record
from mvl_training.studies.arm_steps import is_step_done, make_mixtures
from mvl_training.studies.arms import resolve_arms
from mvl_training.studies.forecast import select_rows
from mvl_training.studies.results import read_scores
from mvl_training.studies.study import Study, parse_study
from tests.training.studies import drawn_project


def build_study(**other: Any) -> Study:
    arms = {"own": {}, "other": {"lake": "lake-other"} | other}
    return parse_study({"name": "lakes", "arms": arms, "seeds": [0], "budget": {"samples": {"single_image": 10}}}, "t")


def read_bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_an_arm_of_another_lake_is_made_and_kept_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = drawn_project.make_project(tmp_path)
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MVL_PROJECT", str(home.project))
    drawn_project.fill_lake(home)
    own, profile, study = home.lake, load_profile(str(home.folder / "profile.yaml")), build_study()
    arms = resolve_arms(study, profile)
    assert len({arm.digest for arm in arms}) == 2
    with pytest.raises(MvlError, match=r"arm other: there is no lake with rows at .*lake-other"):
        select_rows(own, study, arms)
    with pytest.raises(MvlError, match="arm other: lake: 3 is no folder"):
        resolve_arms(build_study(lake=3), profile)

    shutil.copytree(own.root, home.folder / "lake-other", copy_function=os.link)
    with pytest.raises(MvlError, match="take the same rows of this lake"):
        select_rows(own, study, arms)
    stored = read_bytes(Path(own.root))
    other = Lake(str(home.folder / "lake-other"))
    other.get_table("category/general").delete("sample_id < '8'")
    assert read_bytes(Path(own.root)) == stored, "what a copy of links changes leaves the original as it was"
    select_rows(own, study, arms)

    inputs = record.compute_input_versions(own, study)
    assert {"category/general", "lake-other: category/general"} <= inputs.keys()
    assert inputs["category/chart"] == inputs["lake-other: category/chart"]
    assert inputs["category/general"] != inputs["lake-other: category/general"]
    started = record.start_study(study, arms, inputs, None)
    for arm in arms:
        make_mixtures(study, arm, run_id="run")
    assert all(is_step_done(study, arm, "mixture") for arm in arms)
    with use_arm(arms[1].arm_id):
        assert Lake(load_settings().lake_root).root == other.root
    assert [arm_id.arm for arm_id in own.list_arms()] == ["own"]
    assert [arm_id.arm for arm_id in other.list_arms()] == ["other"]
    assert read_scores(own, study) == []
    record.require_same_inputs(started, arms, record.compute_input_versions(own, study))
    with pytest.raises(MvlError, match="other rows in lake-other: category/general"):
        record.require_same_inputs(started, arms, inputs | {"lake-other: category/general": "0"})
    assert record.remove_study(own, "lakes") == 2
    assert own.list_arms() == other.list_arms() == []
