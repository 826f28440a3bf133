"""Checkpoints kept while a stage was trained: each a partition that is evaluated on request."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mvl_assets.common import metadata_keys
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.summaries import compute_checkpoint_scores
from mvl_assets.orchestration.asset_status import AssetStatusResolver
from mvl_training.definitions import build_defs
from mvl_training.evaluation.compare import resolve_checkpoint_version
from mvl_training.evaluation.held_out import local_worker, suite
from mvl_training.evaluation.held_out.evaluate import select_profile_questions
from mvl_training.evaluation.student_runner import StudentRunner
from mvl_training.orchestration.kept_checkpoint_assets import register_kept_checkpoints
from mvl_training.orchestration.launch import Launcher
from mvl_training.runs.training_run import (
    Checkpoint,
    StageError,
    build_kept_checkpoint,
    load_kept_checkpoint,
    set_current_checkpoint,
)
from tests.training.evaluation.untrained import keep_untrained_step, untrained_checkpoint
from tests.training.orchestration import small_pipeline

KEY = dg.AssetKey(["evaluation", "kept_checkpoints_single_image"])
FIRST, SECOND = "step-00000002", "step-00000004"


class InProcessLauncher(Launcher):
    """Runs the worker in this process, which has imported torch already."""

    def run(self, context: dg.AssetExecutionContext, command: Sequence[str], *, run_dir: Path) -> None:
        assert local_worker.main(command[-1:]) == 0


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    return small_pipeline.prepare(tmp_path / "home", monkeypatch)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def checkpoint(lake: Lake, tmp_path: Path) -> Checkpoint:
    """The current one of `single_image`, with checkpoints of two steps, the first with its own weights."""
    folder = tmp_path / "run"
    folder.mkdir()
    finished = untrained_checkpoint(folder, seed=4)
    keep_untrained_step(folder, 2, seed=4)
    keep_untrained_step(folder, 4, seed=5)
    set_current_checkpoint(finished)
    return finished


def _evaluate(instance: dg.DagsterInstance, name: str) -> dict[str, Any]:
    definitions = build_defs({"launcher": InProcessLauncher()})
    result = dg.materialize(
        list(definitions.assets or ()),
        selection=[KEY],
        partition_key=name,
        instance=instance,
        resources=dict(definitions.resources or {}),
        run_config={"ops": {KEY.to_python_identifier(): {"config": {"per_category": 2, "max_new_tokens": 4}}}},
    )
    (event,) = result.get_asset_materialization_events()
    return {key: value.value for key, value in event.materialization.metadata.items()}


def _list_scored(lake: Lake) -> dict[str, str]:
    """Versions of the checkpoints that `mvl status` lists, by their names."""
    return {name: version for name, version, *_ in compute_checkpoint_scores(lake)}


def _list_states(instance: dg.DagsterInstance) -> list[tuple[str | None, str]]:
    graph = build_defs().resolve_asset_graph()
    statuses = AssetStatusResolver(graph, instance).iter_asset_statuses(KEY)
    return [(status.partition_key, status.state) for status in statuses]


def test_a_kept_checkpoint_is_scored_with_its_own_weights_beside_the_finished_one(
    lake: Lake, checkpoint: Checkpoint, instance: dg.DagsterInstance
) -> None:
    register_kept_checkpoints(instance, checkpoint)
    questions = select_profile_questions(lake, 2)
    losses_by_step = {}
    for name in (FIRST, SECOND):
        output = _evaluate(instance, name)
        rows = [
            row
            for row in lake.get_table(suite.TABLE).iter_rows()
            if row["checkpoint"] == f"single_image/{name}" and row["backend"] == "local"
        ]
        assert {row["question_id"] for row in rows} == {question.question_id for question in questions}
        assert {row["checkpoint_version"] for row in rows} == {load_kept_checkpoint("single_image", name).version}
        assert output[metadata_keys.ACCURACY] == sum(row["correct"] for row in rows) / len(rows)
        losses_by_step[name] = {row["question_id"]: row["loss"] for row in rows}
    image_bytes = lake.images.read_images({i for question in questions for i in question.image_ids})
    expected = StudentRunner(checkpoint.export_dir).compute_losses(
        [([image_bytes[i] for i in q.image_ids], q.text, q.reference) for q in questions]
    )
    first, second = ([losses_by_step[name][q.question_id] for q in questions] for name in (FIRST, SECOND))
    assert first == pytest.approx(expected, rel=1e-5)
    assert second != pytest.approx(expected, rel=1e-5)
    names = {path.name for path in (checkpoint.output_dir / "checkpoints").iterdir()}
    assert names == {FIRST, SECOND}, "no export stays behind"


def test_kept_checkpoints_that_nobody_evaluated_are_not_missing(
    checkpoint: Checkpoint, instance: dg.DagsterInstance
) -> None:
    assert _list_states(instance) == []
    register_kept_checkpoints(instance, checkpoint)
    assert _list_states(instance) == []
    _evaluate(instance, SECOND)
    assert [name for name, _ in _list_states(instance)] == [SECOND]


def test_partitions_follow_the_folder(checkpoint: Checkpoint, instance: dg.DagsterInstance) -> None:
    register_kept_checkpoints(instance, checkpoint)
    assert instance.get_dynamic_partitions("kept_checkpoints_single_image") == [FIRST, SECOND]
    shutil.rmtree(checkpoint.output_dir / "checkpoints" / FIRST)
    register_kept_checkpoints(instance, checkpoint)
    assert instance.get_dynamic_partitions("kept_checkpoints_single_image") == [SECOND]
    with pytest.raises(StageError, match=f"single_image has no checkpoint {FIRST}; kept: {SECOND}"):
        load_kept_checkpoint("single_image", FIRST)
    shutil.rmtree(checkpoint.output_dir / "checkpoints")
    register_kept_checkpoints(instance, checkpoint)
    assert instance.get_dynamic_partitions("kept_checkpoints_single_image") == []
    with pytest.raises(StageError, match="kept: none"):
        load_kept_checkpoint("single_image", SECOND)


def test_scores_of_an_earlier_training_do_not_pass_for_those_of_this_one(
    lake: Lake, checkpoint: Checkpoint, instance: dg.DagsterInstance
) -> None:
    register_kept_checkpoints(instance, checkpoint)
    _evaluate(instance, FIRST)
    _evaluate(instance, SECOND)
    shutil.rmtree(checkpoint.output_dir / "checkpoints" / SECOND)
    suite.remove_earlier_scores(lake, checkpoint)
    names = [f"single_image/{FIRST}", f"single_image/{SECOND}"]
    versions = [load_kept_checkpoint("single_image", FIRST).version, build_kept_checkpoint(checkpoint, 4).version]
    assert _list_scored(lake) == dict(zip(names, versions, strict=True)), "also where the weights are gone"
    assert resolve_checkpoint_version(lake, names[0]) == versions[0]

    other = replace(checkpoint, version="another run")
    set_current_checkpoint(other)
    assert resolve_checkpoint_version(lake, names[0]) == load_kept_checkpoint("single_image", FIRST).version
    assert resolve_checkpoint_version(lake, names[0]) not in versions, "a name means the training that is current"
    suite.remove_earlier_scores(lake, replace(other, stage="alignment"))
    assert _list_scored(lake).keys() == set(names), "another stage was trained"
    suite.remove_earlier_scores(lake, other)
    assert _list_scored(lake) == {}
    _evaluate(instance, FIRST)
    assert _list_scored(lake) == {names[0]: load_kept_checkpoint("single_image", FIRST).version}


def test_the_version_of_a_kept_checkpoint_is_of_its_run_and_step(checkpoint: Checkpoint) -> None:
    versions = {load_kept_checkpoint("single_image", name).version for name in (FIRST, SECOND)}
    assert len({*versions, checkpoint.version}) == 3
    set_current_checkpoint(replace(checkpoint, version="another run"))
    assert load_kept_checkpoint("single_image", FIRST).version not in versions
