"""Packed rows: what a rank reads from them is what it reads in place, whatever happened while they were written."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
import torch

from mvl_assets.common.digest import compute_digest
from mvl_assets.errors import MvlError
from mvl_assets.execution.executor import Executor
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.lake.lake import Lake
from mvl_training.data import pack_materializer, packed_rows, raw_packs
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.data.pack_loader import PackLoader
from mvl_training.data.pack_materializer import (
    MaterializeReport,
    is_materialized,
    materialize_packs,
)
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.packed_rows import PackedRows, open_packs
from mvl_training.data.planning import build_pack_plan
from mvl_training.data.processing import SampleProcessor
from mvl_training.data.raw_packs import FrameLimits
from mvl_training.data.step_packs import PackLimits, StepPacker
from mvl_training.recipe import Recipe
from tests.patience import PATIENCE_S
from tests.training import tiny_model as small

STAGE = "single_image"
SHARD_ROWS = 6


@pytest.fixture(autouse=True)
def shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_materializer, "SHARD_ROWS", SHARD_ROWS)
    monkeypatch.setattr(pack_materializer, "COMMIT_INTERVAL_S", 0.0)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Lake:
    """A planned lake: one image, two, none, a video of more frames than are shown; some rows rewritten, one twice."""
    lake = small.fill_lake(tmp_path_factory.mktemp("planned") / "lake", small.draw_shape_samples(40), frames=5)
    rewrite_some(lake)
    build_pack_plan(lake, STAGE, small.build_recipe(tokenizer), run_id="plan")
    return lake


@pytest.fixture
def world(tmp_path: Path, planned: Lake) -> Lake:
    """A copy of the planned lake."""
    return Lake(str(shutil.copytree(planned.root, tmp_path / "lake")))


def rewrite_some(lake: Lake) -> None:
    mixture, rewritten = lake.get_table(f"mixture/{STAGE}"), lake.get_table("rewritten/general")
    rows, rewrites = list(mixture.iter_rows(mixture.spec.columns.names)), []
    for row in rows[::3]:
        (sample,) = lake.get_index("samples").read_rows([row["version_id"]]).values()
        turns = [
            sample["conversations"][0],
            {"from": "gpt", "value": f"Rewritten: {sample['conversations'][1]['value']}"},
        ]
        rewrite = {"rewrite_id": compute_digest("rewrite", row["row_id"]), "conversations": turns, "ordinal": 0}
        rewrites.append({**{name: row[name] for name in ("sample_id", "version_id", "source", "category")}, **rewrite})
        row |= {"kind": "rewritten", "rewrite_id": rewrite["rewrite_id"]}
    rows.append({**rows[0], "row_id": compute_digest("again", rows[0]["row_id"]), "repeat_index": 1})
    rows = [{**row, "position": position} for position, row in enumerate(rows)]
    mixture.publish([pa.Table.from_pylist(rows, schema=mixture.spec.columns)])
    rewritten.publish([pa.Table.from_pylist(rewrites, schema=rewritten.spec.columns)], "drawn")


def materialize(lake: Lake, executor: Executor | None = None) -> MaterializeReport:
    return materialize_packs(lake, STAGE, executor or ProcessExecutor(1), frame_limits=FrameLimits(3), run_id="run")


def processor_of(recipe: Recipe, tokens: ChatTokenizer) -> SampleProcessor:
    return SampleProcessor.for_stage(recipe, STAGE, tokens)


def remove_sources_of_rows(lake: Lake) -> None:
    for name in ("samples", "images", "rewritten", "mixture"):
        shutil.rmtree(f"{lake.root}/{name}" if name in ("rewritten", "mixture") else f"{lake.root}/{name}.lance")


@pytest.mark.parametrize("group", [(1, 1 << 25), (5, 4000), (256, 1 << 25)], ids=["packs", "bytes", "all"])
def test_batches_are_those_read_in_place_at_every_world_size_and_step_without_any_other_table(
    world: Lake, recipe: Recipe, tokens: ChatTokenizer, monkeypatch: pytest.MonkeyPatch, group: tuple[int, int]
) -> None:
    report = materialize(world)
    plan = PackPlan(world, STAGE)
    assert report.n_rows == len(plan) > 2 * SHARD_ROWS
    in_place = PackLoader(world, STAGE, plan, processor_of(recipe, tokens))
    order = BatchOrder(len(plan), 6, seed=3)
    n_steps = 2 * order.steps_per_epoch  # the second epoch is shuffled
    expected = {}
    for world_size, first_step in ((1, 0), (2, 1), (3, order.steps_per_epoch - 1)):
        packer = build_packer(plan, order, world_size)
        for rank in range(world_size):
            packs = [pack for step in range(first_step, n_steps) for pack in packer.pack_step(step).packs_by_rank[rank]]
            expected[world_size, first_step, rank] = list(in_place.iter_batches(packs))
    remove_sources_of_rows(world)
    monkeypatch.setattr(packed_rows, "READ_GROUP_PACKS", group[0])
    monkeypatch.setattr(raw_packs, "READ_GROUP_BYTES", group[1])
    packed = open_packs(Lake(world.root), STAGE)
    assert isinstance(packed, PackedRows)
    loader = PackLoader(world, STAGE, packed, processor_of(recipe, tokens))
    for (world_size, first_step, rank), batches in expected.items():
        packer = build_packer(packed, order, world_size)
        packs = [pack for step in range(first_step, n_steps) for pack in packer.pack_step(step).packs_by_rank[rank]]
        for batch, other in zip(loader.iter_batches(packs), batches, strict=True):
            assert (batch.row_ids, batch.layouts, batch.n_loss_tokens) == (
                other.row_ids,
                other.layouts,
                other.n_loss_tokens,
            )
            for name in ("input_ids_1L", "position_ids_1L", "cu_seqlens", "targets_L", "tiles_T3PP"):
                assert torch.equal(getattr(batch, name), getattr(other, name)), name


def build_packer(plan: PackPlan | PackedRows, order: BatchOrder, world_size: int) -> StepPacker:
    return StepPacker(plan, order, lambda counts: counts.n_tokens * 1e9, PackLimits(300, 12), world_size)


def test_counts_are_those_of_the_plan_in_blocks_and_one_by_one(world: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    materialize(world)
    monkeypatch.setattr(packed_rows, "COUNT_BLOCK_ROWS", 4)
    plan, packed = PackPlan(world, STAGE), open_packs(world, STAGE)
    assert isinstance(packed, PackedRows)
    assert (len(packed), packed.version) == (len(plan), plan.version)
    last = len(plan) - 1
    for positions in ([0, 1, 2], [1, 2, 3], [2, 3, 4, 5], [last, 0, 3], [last]):
        ours, theirs = packed.read_counts(positions), plan.read_counts(positions)
        for name in ("n_tokens", "n_loss_tokens", "n_tiles"):
            assert getattr(ours, name).tolist() == getattr(theirs, name).tolist()


class Backwards(Executor):
    """Ends tasks in the opposite order, as several processes may; tasks and results are pickled."""

    def run_reporting(
        self, function: Callable[..., Any], tasks: Iterable[Any], on_message: Callable[..., None]
    ) -> Generator[Any, None, None]:
        for task in reversed(list(tasks)):
            yield pickle.loads(pickle.dumps(function(pickle.loads(pickle.dumps(task)), print)))


def test_shards_that_end_in_any_order_stand_in_the_order_of_the_plan(world: Lake) -> None:
    materialize(world, Backwards())
    plan = PackPlan(world, STAGE)
    columns = ["position", "planned_id", "row_id", "n_tokens", "n_loss_tokens", "n_tiles"]
    rows, planned = (
        list(world.get_table(f"{name}/{STAGE}").iter_rows(columns)) for name in ("packed_rows", "pack_plan")
    )
    assert [row["position"] for row in rows] == list(range(len(plan)))
    assert rows == planned


def test_a_second_run_writes_nothing(world: Lake) -> None:
    first = materialize(world)
    version = world.get_table(f"packed_rows/{STAGE}").version
    again = materialize(world)
    assert (first.n_kept_rows, again.n_kept_rows, again.n_image_bytes) == (0, first.n_rows, 0)
    assert again.n_rows == first.n_rows == len(PackPlan(world, STAGE))
    assert world.get_table(f"packed_rows/{STAGE}").version == version


KILLED = """
import os, signal, sys
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.lake.lake import Lake
from mvl_training.data import pack_materializer
from mvl_training.data.raw_packs import FrameLimits

pack_materializer.SHARD_ROWS = 6
pack_materializer.COMMIT_INTERVAL_S = 0.0
def kill(n_written, n_rows):
    if n_written >= 12:
        os.kill(os.getpid(), signal.SIGKILL)
pack_materializer.materialize_packs(
    Lake(sys.argv[1]),
    "single_image",
    ProcessExecutor(1),
    frame_limits=FrameLimits(3),
    run_id="killed",
    progress_callback=kill,
)
"""


def test_after_a_kill_the_shards_that_are_there_are_kept_and_training_reads_in_place_until_all_are(
    world: Lake, recipe: Recipe, tokens: ChatTokenizer
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, world.root], check=False, timeout=PATIENCE_S)
    assert done.returncode == -9
    assert isinstance(open_packs(world, STAGE), PackPlan)
    assert materialize(world).n_kept_rows == 12
    runs = [row["run_id"] for row in world.get_table(f"packed_rows/{STAGE}").iter_rows(["run_id"])]
    assert runs == ["killed"] * 12 + ["run"] * (len(runs) - 12)
    packed = open_packs(world, STAGE)
    assert isinstance(packed, PackedRows)
    packs = [[position] for position in range(len(packed))]
    batches = PackLoader(world, STAGE, packed, processor_of(recipe, tokens)).iter_batches(packs)
    in_place = PackLoader(world, STAGE, PackPlan(world, STAGE), processor_of(recipe, tokens))
    for batch, other in zip(batches, in_place.iter_batches(packs), strict=True):
        assert batch.row_ids == other.row_ids and torch.equal(batch.tiles_T3PP, other.tiles_T3PP)


def test_packs_of_another_plan_are_not_read_and_are_replaced(world: Lake, tokenizer: Path) -> None:
    materialize(world)
    report = build_pack_plan(world, STAGE, small.build_recipe(tokenizer, max_seq_len=300), run_id="longer")
    assert isinstance(open_packs(world, STAGE), PackPlan)
    again = materialize(world)
    assert (again.n_kept_rows, again.data_version) == (0, report.data_version)
    packed = open_packs(world, STAGE)
    assert isinstance(packed, PackedRows) and packed.version == report.data_version
    assert world.get_table(f"packed_rows/{STAGE}").count() == report.n_samples


def test_a_plan_that_was_published_again_without_a_change_keeps_its_packs(world: Lake, recipe: Recipe) -> None:
    materialize(world)
    plan = world.get_table(f"pack_plan/{STAGE}")
    rows = pa.Table.from_batches(plan.scan(plan.spec.columns.names))
    plan.publish(())
    plan.publish([rows])
    assert plan.version != PackedRows(STAGE, world.get_table(f"packed_rows/{STAGE}")).plan_table_version
    assert isinstance(open_packs(world, STAGE), PackedRows)


def test_packs_with_keys_of_another_scheme_are_not_read(world: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    materialize(world)
    monkeypatch.setattr(packed_rows, "KEY_SCHEME", 2)
    assert isinstance(open_packs(world, STAGE), PackPlan)


@pytest.mark.parametrize("table", ["samples", "images"])
def test_a_row_or_image_that_is_gone_is_named_and_nothing_is_written(world: Lake, table: str) -> None:
    target = world.images.table if table == "images" else world.get_table(table)
    gone = next(target.iter_rows([target.spec.key_column]))[target.spec.key_column]
    target.delete(f"{target.spec.key_column} = '{gone}'")
    problem = f"image {gone} is not in the lake" if table == "images" else "are not in the lake any more"
    with pytest.raises(MvlError, match=problem):
        materialize(world)


def test_of_a_video_only_the_frames_that_are_trained_on_are_written(world: Lake) -> None:
    materialize(world)
    videos = [
        row
        for row in world.get_table(f"packed_rows/{STAGE}").iter_rows(["video", "image_ids", "stored_image_ids"])
        if row["video"] is not None
    ]
    assert videos
    for row in videos:
        assert len(row["image_ids"]) == 5
        assert len(set(row["image_ids"]) & set(row["stored_image_ids"])) == len(row["stored_image_ids"]) == 3


def test_lance_alone_reads_texts_and_images_as_an_export(world: Lake) -> None:
    materialize(world)
    n_images = 0
    dataset = lance.dataset(f"{world.root}/packed_rows/{STAGE}.lance")
    rows = dataset.to_table(columns=["conversations", "stored_image_ids", "stored_image_sizes"]).to_pylist()
    blobs = dataset.read_blobs("image_bytes", indices=list(range(len(rows))), preserve_order=True)
    for row, (_, data) in zip(rows, blobs, strict=True):
        ends = np.cumsum([0, *row["stored_image_sizes"]])
        for image_id, start, stop in zip(row["stored_image_ids"], ends, ends[1:], strict=False):
            assert compute_digest((data or b"")[start:stop]) == image_id
            n_images += 1
        assert row["conversations"][1]["from"] == "gpt"
    assert n_images > 30


@pytest.mark.parametrize(
    ("setting", "threshold", "expected"), [("auto", 42, True), ("auto", 43, False), (True, 43, True)]
)
def test_large_mixtures_are_materialised_unless_the_profile_says_otherwise(
    world: Lake, monkeypatch: pytest.MonkeyPatch, setting: bool, threshold: int, expected: bool
) -> None:
    monkeypatch.setattr(pack_materializer, "MATERIALIZE_MIN_ROWS", threshold)
    assert is_materialized(world, STAGE, setting) is expected
    assert is_materialized(world, STAGE, False) is False
