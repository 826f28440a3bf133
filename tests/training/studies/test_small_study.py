"""A study of two arms from the lake to the report, with the real planner, trainer and answers; seconds on a CPU."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvl_assets.common.arm_address import ArmId
from mvl_assets.config.profile import Profile, load_profile
from mvl_assets.config.study_arms import use_arm
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import ARM_FAMILIES, Lake
from mvl_training.runs import plan_main, training_run
from mvl_training.runs.process_group import run_process_group
from mvl_training.studies import arm_steps, record
from mvl_training.studies.arm_steps import STEP_NAMES, is_step_done
from mvl_training.studies.arms import ResolvedArm, resolve_arms
from mvl_training.studies.bundle import export_study, iter_bundle_differences, read_bundle
from mvl_training.studies.forecast import forecast_study, select_rows
from mvl_training.studies.results import build_report, read_scores, render_report
from mvl_training.studies.study import Study, parse_study
from tests.training import tiny_model as small
from tests.training.orchestration import small_pipeline

SOURCE = """type: mvl_assets.components.source_dataset.SourceDataset
attributes:
  {slug: drawn, title: Drawn, category: general, group: A, modality: single_image, format: records, family: null,
   records: {files: "*.jsonl", shape: jsonl, id: id, question: "{q}", answer: "{a}", images: ["{file}"]}}
"""


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Lake:
    """A project of one source with 24 drawn samples, half of them held out, and a recipe that trains in a second."""
    project = tmp_path_factory.mktemp("project")
    (project / "mvl.yaml").write_text("catalog: null\n", encoding="utf-8")
    (project / "sources").mkdir()
    (project / "sources" / "drawn.yaml").write_text(SOURCE, encoding="utf-8")
    patch.setenv("MVL_PROJECT", str(project))
    for name, value in small.build_environment().items():
        patch.setenv(name, value)
    lake = small_pipeline.prepare(project / "home", patch)
    shutil.rmtree(project / "home" / "lake" / "mixture")
    return Lake(lake.root)


@pytest.fixture(scope="module")
def profile(lake: Lake) -> Profile:
    return load_profile(str(Path(lake.root).parent / "profile.yaml"))


def build_study(**changed: Any) -> Study:
    data = {
        "name": "size",
        "settings": {"mixture.shares": {"general": 1.0}, "mixture.one_vision_single_share": 1.0},
        "arms": {"few": {"mixture.single_image": 4}, "more": {"mixture.single_image": 8}},
        "seeds": [3],
        "stages": ["single_image"],
        "questions_per_category": 4,
    }
    return parse_study(data | changed, "test")


def run_command(command: Any, run_dir: Path) -> None:
    run_process_group(list(command), run_dir=run_dir, on_output=lambda text: None, poll_interval_s=0.05)


def run_arm(study: Study, arm: ResolvedArm) -> None:
    arm_steps.make_plans(study, arm, run_id="run", launch=run_command)
    arm_steps.train_arm(arm, launch=run_command, log=print)
    arm_steps.evaluate_arm(study, arm, run_id="run", launch=run_command, log=print)


@pytest.fixture(scope="module")
def arms(lake: Lake, profile: Profile) -> list[ResolvedArm]:
    """The arms of the study, with their mixtures."""
    study = build_study()
    arms = resolve_arms(study, profile)
    select_rows(lake, study, arms)
    record.start_study(study, arms, record.compute_input_versions(lake, build_study()), None)
    for arm in arms:
        arm_steps.make_mixtures(study, arm, run_id="run")
    return arms


def read_rows(lake: Lake, arm: ResolvedArm) -> list[str]:
    table = Lake(f"{lake.root}#arm={arm.arm_id.path}").get_table("mixture/single_image")
    return [row["row_id"] for row in table.iter_rows(["row_id"])]


def test_arms_have_mixtures_of_their_own_and_common_rows_in_the_same_order(lake: Lake, arms: list[ResolvedArm]) -> None:
    few, more = (read_rows(lake, arm) for arm in arms)
    assert (len(few), len(more)) == (4, 8)
    assert [row_id for row_id in more if row_id in few] == few, "subsets are nested, and in one order"
    assert lake.list_tables("mixture") == [], "the pipeline's own mixture is left alone"
    assert lake.list_arms() == [ArmId("size", "few", 3), ArmId("size", "more", 3)]
    assert all(
        is_step_done(build_study(), arm, "mixture") and not is_step_done(build_study(), arm, "pack_plan")
        for arm in arms
    )


def test_a_study_whose_inputs_changed_does_not_go_on(lake: Lake, profile: Profile, arms: list[ResolvedArm]) -> None:
    started = record.require_record("size")
    inputs = record.compute_input_versions(lake, build_study())
    record.require_same_study(started, build_study())
    record.require_same_inputs(started, arms, inputs)
    with pytest.raises(MvlError, match=r"another seeds, arms\.few\.mixture\.single_image|arms\.few"):
        record.require_same_study(
            started, build_study(arms={"few": {"mixture.single_image": 5}, "more": {"mixture.single_image": 8}})
        )
    with pytest.raises(MvlError, match=r"other rows in category/general"):
        record.require_same_inputs(started, arms, inputs | {"category/general": "0"})
    other = profile.model_copy(update={"holdout_fraction": 0.25})
    with pytest.raises(MvlError, match="other settings of the profile or recipe"):
        record.require_same_inputs(started, resolve_arms(build_study(), other), inputs)


def test_what_cannot_work_is_refused_before_anything_is_made(lake: Lake, profile: Profile) -> None:
    too_much = build_study(
        name="much", arms={"a": {}, "b": {"mixture.temperature": 2.0}}, budget={"samples": {"single_image": 99}}
    )
    with pytest.raises(MvlError, match=r"arm a: mixture/single_image has \d+ rows of 99 \(general \d+ of 99\)"):
        select_rows(lake, too_much, resolve_arms(too_much, profile))
    same = build_study(
        name="same", arms={"a": {}, "b": {"mixture.drop_duplicates": False}}, budget={"samples": {"single_image": 4}}
    )
    with pytest.raises(MvlError, match="arms a and b take the same rows of this lake"):
        select_rows(lake, same, resolve_arms(same, profile))
    unknown = build_study(suites=["held_outs"])
    with pytest.raises(MvlError, match="there is no suite 'held_outs'"):
        select_rows(lake, unknown, resolve_arms(unknown, profile))
    assert record.list_started_studies() in ([], ["size"])


@pytest.mark.soak
def test_two_arms_are_trained_asked_and_compared_and_a_second_call_does_nothing(
    lake: Lake, arms: list[ResolvedArm], tmp_path: Path
) -> None:
    study = build_study()
    for arm in arms:
        run_arm(study, arm)
    versions = {arm.arm_id.arm: record.load_state(arm.arm_id).checkpoint["single_image"] for arm in arms}
    assert len(set(versions.values())) == 2
    for arm in arms:
        assert all(is_step_done(study, arm, step) for step in STEP_NAMES)
        with use_arm(arm.arm_id):
            checkpoint = training_run.load_current_checkpoint("single_image")
        assert checkpoint.version == versions[arm.arm_id.arm], "the second arm leaves the first one's checkpoint alone"
    rows = read_scores(lake, study)
    report = build_report(study, rows)
    assert not report.missing and {score.arm for score in report.scores} == {"few", "more"}
    assert [d.arm for d in report.differences] == ["more"]
    assert "one seed does not tell" in render_report(report)

    logs = {path: path.stat().st_mtime_ns for path in Path(lake.root).parent.rglob("log.txt")}
    run_arm(study, arms[0])
    trained = {path for path in logs if path.stat().st_mtime_ns != logs[path]}
    assert not [path for path in trained if "checkpoints" in path.parts], "nothing is trained or asked again"

    forecasts = forecast_study(study, arms, select_rows(lake, study, arms), mfu=0.4, peak_flops=1e15, is_started=True)
    assert [forecast.done for forecast in forecasts] == [list(STEP_NAMES)] * 2
    assert [[stage.rows for stage in forecast.stages] for forecast in forecasts] == [[4], [8]]

    folder = tmp_path / "bundle"
    export_study(folder, record.require_record("size"), arms, rows)
    bundle = read_bundle(folder)
    assert list(bundle.rows) == rows and bundle.study == study
    inputs = record.compute_input_versions(lake, build_study())
    assert next(iter_bundle_differences(bundle, inputs, rows)).startswith(
        f"tables: {len(inputs)} of {len(inputs)} have"
    )
    assert "SmolLM2" not in (folder / "arms.json").read_text(encoding="utf-8")
    (folder / "report.md").write_text("better", encoding="utf-8")
    with pytest.raises(MvlError, match=r"report\.md is not what was exported"):
        read_bundle(folder)


def test_a_budget_of_target_tokens_sets_the_steps(lake: Lake, profile: Profile) -> None:
    study = build_study(name="tokens", budget={"target_tokens": {"single_image": 20}}, settings=build_study().settings)
    written = {"materialize_packs": True, "executor": profile.executor.model_copy(update={"processes": 1})}
    arm = resolve_arms(study, profile.model_copy(update=written))[1]
    record.start_study(study, [arm], {}, None)
    arm_steps.make_mixtures(study, arm, run_id="run")
    # In this process: a launched one would import torch again.
    arm_steps.make_plans(study, arm, run_id="run", launch=lambda command, _: plan_main.main(command[3:]))
    recipe = yaml.safe_load(
        (Path(lake.root).parent / "studies/tokens/arms/more/3/recipe.yaml").read_text(encoding="utf-8")
    )
    plan = Lake(f"{lake.root}#arm={arm.arm_id.path}").get_table("pack_plan/single_image")
    counts = [row["n_loss_tokens"] for row in plan.iter_rows(["n_loss_tokens"])]
    packed = Lake(f"{lake.root}#arm={arm.arm_id.path}").get_table("packed_rows/single_image")
    assert packed.count() == plan.count() == 8, "a plan that is written out is the arm's own"
    steps, batch = recipe["stages"]["single_image"]["steps"], recipe["stages"]["single_image"]["global_batch_size"]
    assert sum(counts[: (steps - 1) * batch]) < 20 <= sum(counts[: steps * batch])
    assert record.remove_study(lake, "tokens") == 3
    assert "tokens" not in record.list_started_studies() and record.load_record("tokens") is None
    assert "tokens" not in {arm_id.study for family in ARM_FAMILIES for arm_id in lake.list_arms(family)}
