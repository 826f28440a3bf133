"""All three stages and the suite, through Dagster, with the real trainer and the real server."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from mvl_assets.common import metadata_keys
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.inference.local_server import server
from mvl_assets.lake.lake import Lake
from mvl_training.definitions import defs
from mvl_training.orchestration.checkpoint_assets import CHECK_DESCRIPTIONS
from mvl_training.orchestration.checkpoint_export_assets import EXPORT_CHECK
from mvl_training.runs import training_run
from mvl_training.runs.process_group import list_processes, run_process_group
from tests.training.orchestration import small_pipeline

pytestmark = [pytest.mark.pipeline, pytest.mark.soak]

TRAINED = 'key:"pack_plan/*" or key:"packed_rows/*" or key:"checkpoint/*"'


def _materialize(
    instance: dg.DagsterInstance, selection: str, partition_key: str | None = None
) -> dg.ExecuteInProcessResult:
    result = defs()
    return dg.materialize(
        list(result.assets or ()),
        selection=selection,
        partition_key=partition_key,
        instance=instance,
        resources=dict(result.resources or {}),
    )


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Iterator[Lake]:
    yield small_pipeline.prepare(tmp_path_factory.mktemp("home"), patch)
    server.stop_servers()


@pytest.fixture(scope="module")
def instance(lake: Lake) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture(scope="module")
def trained(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return _materialize(instance, TRAINED)


def _metadata(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, object]]:
    return {
        event.asset_key.to_user_string(): {name: value.value for name, value in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
    }


def _versions(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    return {
        event.asset_key.to_user_string(): event.materialization.tags["dagster/data_version"]
        for event in result.get_asset_materialization_events()
    }


def test_every_stage_trains_from_the_one_before_and_passes_its_gates(
    lake: Lake, trained: dg.ExecuteInProcessResult
) -> None:
    assert trained.success
    shown = _metadata(trained)
    for before, stage in zip((None, *TRAINING_STAGES), TRAINING_STAGES, strict=False):
        checkpoint = training_run.load_current_checkpoint(stage)
        assert (checkpoint.export_dir / "model.safetensors").is_file()
        output = shown[f"checkpoint/{stage}"]
        initial = "the recipe's towers" if before is None else training_run.load_current_checkpoint(before).version
        assert output[metadata_keys.INITIAL_WEIGHTS] == initial
        assert output[metadata_keys.STEPS] == small_pipeline.STEPS
        assert output[metadata_keys.PACK_PLAN] == lake.get_table(f"pack_plan/{stage}").compute_data_version()
        assert shown[f"pack_plan/{stage}"][metadata_keys.ROW_COUNT] == lake.get_table(f"pack_plan/{stage}").count()
    checks = {
        (c.asset_key.path[1], c.check_name): c
        for c in trained.get_asset_check_evaluations()
        if c.asset_key.path[0] == "checkpoint"
    }
    assert checks.keys() == {
        *((stage, name) for stage in TRAINING_STAGES for name in CHECK_DESCRIPTIONS),
        *((f"{stage}_export", EXPORT_CHECK) for stage in TRAINING_STAGES),
    }
    for stage in TRAINING_STAGES:
        assert checks[stage, "loss_is_finite"].passed
        assert checks[f"{stage}_export", EXPORT_CHECK].passed
        # Four steps may or may not move the loss of a projector; they must not move it up.
        loss = checks[stage, "loss_fell"]
        assert loss.passed or loss.severity is dg.AssetCheckSeverity.WARN


def test_a_checkpoint_registers_those_kept_on_the_way_and_one_can_be_evaluated(
    lake: Lake, instance: dg.DagsterInstance, trained: dg.ExecuteInProcessResult
) -> None:
    names = instance.get_dynamic_partitions("kept_checkpoints_alignment")
    folder = training_run.load_current_checkpoint("alignment").output_dir / "checkpoints"
    assert names == sorted(path.name for path in folder.iterdir()) and names
    assert _materialize(instance, 'key:"evaluation/kept_checkpoints_alignment"', partition_key=names[0]).success
    table, kept = lake.get_table("evaluation/held_out"), f"alignment/{names[0]}"
    row = next(table.iter_rows(table.spec.columns.names, partition_key=kept))
    earlier = row | {"result_id": "0" * 32, "checkpoint": "alignment/step-00000099", "checkpoint_version": "earlier"}
    table.publish([pa.Table.from_pylist([earlier], schema=table.spec.columns)], earlier["checkpoint"])
    assert _materialize(instance, 'key:"checkpoint/alignment_export"').success
    assert {row["checkpoint"] for row in table.iter_rows(["checkpoint"]) if "/" in row["checkpoint"]} == {kept}


def test_the_metadata_of_a_checkpoint_fits_into_an_event(trained: dg.ExecuteInProcessResult) -> None:
    for stage in TRAINING_STAGES:
        output = _metadata(trained)[f"checkpoint/{stage}"]
        assert str(output[metadata_keys.CURVES]).startswith("![loss and learning rate](data:image/png;base64,")
        assert "data:image/jpeg;base64," in str(_metadata(trained)[f"checkpoint/{stage}_export"][metadata_keys.PREVIEW])
        assert sum(len(str(value)) for value in output.values()) < 100_000


def test_the_losses_appear_in_the_event_log_while_training(
    instance: dg.DagsterInstance, trained: dg.ExecuteInProcessResult
) -> None:
    lines = [entry.user_message for entry in instance.all_logs(trained.run_id)]
    for stage in TRAINING_STAGES:
        assert any(f"{stage} step {small_pipeline.STEPS}/{small_pipeline.STEPS}  loss" in line for line in lines)


def test_the_same_again_trains_nothing_and_makes_nothing_stale(
    instance: dg.DagsterInstance, trained: dg.ExecuteInProcessResult
) -> None:
    folders = [training_run.load_current_checkpoint(stage).output_dir for stage in TRAINING_STAGES]
    logs = [folder / name for folder in folders for name in ("log.txt", "export.json", "held_out/log.txt")]
    before = [log.stat().st_mtime_ns for log in logs]
    again = _materialize(instance, 'key:"checkpoint/*"')
    assert [log.stat().st_mtime_ns for log in logs] == before
    assert _versions(again).items() <= _versions(trained).items()


def test_another_learning_rate_trains_into_its_own_folder(lake: Lake, trained: dg.ExecuteInProcessResult) -> None:
    run = training_run.resolve_training_run(lake, "alignment")
    assert run.is_finished
    changed = run.recipe.model_copy(
        update={
            "stages": {
                **run.recipe.stages,
                "alignment": run.recipe.stages["alignment"].model_copy(update={"learning_rates": {"projector": 1e-4}}),
            }
        }
    )
    other = training_run.TrainingRun(
        run.stage, run.recipe_name, changed, run.lake_address, run.plan_version, run.initial_checkpoint
    )
    assert other.output_dir != run.output_dir and not other.is_finished


def test_a_cancelled_training_saves_its_last_step_and_leaves_no_process(
    lake: Lake, trained: dg.ExecuteInProcessResult, tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    with pytest.MonkeyPatch.context() as own:
        # Would run for an hour and save nothing on its own: whatever is saved, the cancel saved.
        own.setenv("MVL_PROFILE", str(small_pipeline.write_profile(tmp_path, steps=5000, save_interval=5000)))
        run = training_run.resolve_training_run(lake, "alignment")

    class Cancelled(BaseException):
        pass

    marks: list[str] = []

    def echo(text: str) -> None:
        if not marks and "step " in text and "loss" in text:
            marks.append(training_run.read_json(run.output_dir / "process_group.json")["group_id"])
            raise Cancelled

    with contextlib.suppress(Cancelled):
        run_process_group(run.build_command(), run_dir=run.output_dir, on_output=echo, grace_s=60.0)
    assert len(marks) == 1, "the training had begun"
    assert list_processes(marks[0]) == []
    (saved,) = (run.output_dir / "checkpoints").glob("step-*")
    assert (saved / "state.json").is_file()
    assert not run.is_finished


@pytest.mark.server
def test_the_suite_asks_every_checkpoint_the_last_one_through_its_server(
    lake: Lake, instance: dg.DagsterInstance, trained: dg.ExecuteInProcessResult
) -> None:
    first = _materialize(instance, 'key:"evaluation/held_out"')
    output = _metadata(first)["evaluation/held_out"]
    everything = list(lake.get_table("evaluation/held_out").iter_rows())
    assert len(everything) == output[metadata_keys.ROW_COUNT]
    rows = [row for row in everything if row["checkpoint"] in TRAINING_STAGES]
    questions = {row["question_id"] for row in rows}
    assert len(rows) == 3 * len(questions)
    assert {(row["checkpoint"], row["backend"]) for row in rows} == {
        ("alignment", "local"),
        ("single_image", "local"),
        ("one_vision", "server"),
    }
    assert all(row["loss"] is not None for row in rows)
    assert any(row["blank_image_answer"] is not None and row["blank_image_loss"] is not None for row in rows)
    assert 0.0 < float(str(output[metadata_keys.MAJORITY_BASELINE])) <= 1.0
    assert all(stage in str(output[metadata_keys.SCORES]) for stage in TRAINING_STAGES)

    server.stop_servers()
    again = _materialize(instance, 'key:"evaluation/held_out"')
    assert not [one for one in server.list_servers() if one.state != "ended"], (
        "all answers were known: no server was started"
    )
    assert _versions(again) == _versions(first)
