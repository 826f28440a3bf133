"""A sample whose image no longer decodes costs itself: the run goes on, and says which it was."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml

from mvl_assets.lake.lake import Lake
from mvl_assets.media.image import inspect_image
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.data.pack_loader import PackLoader, SkippedSample
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.planning import build_pack_plan
from mvl_training.data.processing import SampleProcessor
from mvl_training.recipe import parse_recipe
from mvl_training.trainer.loop import SaveTimer
from mvl_training.trainer.step_sums import OTHER_CATEGORY, StepSums
from tests.patience import PATIENCE_S
from tests.training import tiny_model as small

N_SAMPLES = 9


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> tuple[Lake, Path]:
    """A planned lake of nine samples, one of which has an image that is cut off, and its recipe."""
    folder = tmp_path_factory.mktemp("damaged")
    samples = small.draw_shape_samples(N_SAMPLES)
    whole = small.draw("circle", "red", (250, 250))
    cut = whole[: len(whole) // 2]
    samples[5] = ([cut], "What is it?", "red circle")
    data = small.build_recipe_data(
        tokenizer,
        global_batch_size=3,
        steps=6,
        save_interval=100,
        save_minutes=1e-9,
        keep_checkpoints=6,
        held_out_interval=4,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small, "inspect_image", lambda image: inspect_image(whole if image == cut else image))
        lake = small.fill_lake(folder / "lake", samples)
    build_pack_plan(lake, "single_image", parse_recipe(data), run_id="test")
    put_held_out(lake)
    recipe = folder / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(data), encoding="utf-8")
    return lake, recipe


def put_held_out(lake: Lake) -> None:
    """Three samples that evaluation would hold out; the one with the damaged image is among them."""
    rows = list(lake.get_table("samples").iter_rows(["sample_id", "version_id", "position"]))
    table = lake.get_table("category/general")
    held_out = [
        {**row, "source": "drawn", "category": "general", "holdout_hash": 0} for row in rows if row["position"] > 4
    ]
    names = table.spec.columns.names
    content = [{name: row.get(name) for name in names} for row in held_out]
    table.publish([pa.Table.from_pylist(content, schema=table.spec.columns)], "drawn")


def load_each(damaged: tuple[Lake, Path], tokens: ChatTokenizer) -> list[Any]:
    lake, recipe = damaged
    parsed = parse_recipe(yaml.safe_load(recipe.read_text(encoding="utf-8")))
    processor = SampleProcessor.for_stage(parsed, "single_image", tokens)
    loader = PackLoader(lake, "single_image", PackPlan(lake, "single_image"), processor)
    return [loader.load([position]) for position in range(N_SAMPLES)] + [loader.load(range(N_SAMPLES))]


def test_a_sample_with_an_undecodable_image_is_left_out_of_its_pack_and_named(
    damaged: tuple[Lake, Path], tokens: ChatTokenizer
) -> None:
    *alone, together = load_each(damaged, tokens)
    (empty,) = (batch for batch in alone if not batch.row_ids)
    (sample,) = empty.skipped
    assert (sample.source, sample.error.split(":")[0]) == ("drawn", "truncated_image")
    assert together.skipped == empty.skipped
    assert set(together.row_ids) == {batch.row_ids[0] for batch in alone if batch is not empty}
    assert together.n_loss_tokens == sum(batch.n_loss_tokens for batch in alone)
    assert set(together.categories) == {"general"}


def test_sums_of_ranks_add_up_to_means_by_category(damaged: tuple[Lake, Path], tokens: ChatTokenizer) -> None:
    *alone, together = load_each(damaged, tokens)
    whole, parts = StepSums(["general", "ocr"]), [StepSums(["general", "ocr"]) for _ in range(2)]
    losses = torch.arange(1.0, len(together.row_ids) + 1)
    whole.add(together, losses)
    by_row = dict(zip(together.row_ids, losses, strict=True))
    for index, batch in enumerate(alone):
        parts[index % 2].add(batch, torch.stack([by_row[row_id] for row_id in batch.row_ids] or [torch.tensor(9.0)]))
    added = [sum(pair) for pair in zip(*(part.to_list() for part in parts), strict=True)]
    totals = whole.read_list(added)
    assert totals == whole.read_list(whole.to_list())
    assert totals.n_skipped == 1
    assert totals.loss_by_category == {"general": pytest.approx(float(losses.sum()) / together.n_loss_tokens)}
    unknown = StepSums(["ocr"])
    unknown.add(together, losses)
    assert set(unknown.read_list(unknown.to_list()).loss_by_category) == {OTHER_CATEGORY}


def test_a_save_is_due_by_time_only_where_the_recipe_says_so() -> None:
    assert SaveTimer(1e-12).is_due
    assert not SaveTimer(None).is_due
    assert not SaveTimer(1e9).is_due


def run(lake: Lake, recipe: Path, out: Path, *, ranks: int) -> list[dict[str, Any]]:
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks), "-m"] if ranks > 1 else []
    command = [sys.executable, "-m", *launcher, "mvl_training.trainer.main", "--recipe", str(recipe)]
    command += ["--stage", "single_image", "--lake", lake.root, "--out", str(out), "--holdout-fraction", "0.1"]
    done = subprocess.run(
        command, env=small.build_environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "is left out, an image cannot be decoded (truncated_image" in done.stderr
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_run_goes_on_and_another_number_of_ranks_leaves_out_the_same_sample(
    damaged: tuple[Lake, Path], tokens: ChatTokenizer, tmp_path: Path
) -> None:
    lake, recipe = damaged
    (named,) = load_each(damaged, tokens)[-1].skipped
    lines = run(lake, recipe, tmp_path / "one", ranks=1)
    # Two epochs of three steps: the sample is left out once in each.
    assert [line["samples"] + line["skipped_samples"] for line in lines] == [3] * 6
    assert [SkippedSample(**sample) for line in lines for sample in line["skipped"]] == [named] * 2
    assert all(set(line["loss_by_category"]) == {"general"} for line in lines)
    assert [line["step"] for line in lines if "held_out_loss" in line] == [4, 6]
    # Of four held-out samples one cannot be decoded.
    assert lines[5]["held_out_questions"] == 3
    assert lines[5]["held_out_loss_by_category"] == {"general": pytest.approx(lines[5]["held_out_loss"])}
    result = json.loads((tmp_path / "one" / "result.json").read_text())
    assert (result["samples"], result["skipped_samples"]) == (16, 2)
    # `save_minutes` saved after every step; from the one before the second time, two ranks go on as one did.
    n_finished = max(line["step"] for line in lines if line["skipped"]) - 1
    saved = tmp_path / "one" / "checkpoints" / f"step-{n_finished:08d}"
    other = tmp_path / "two"
    shutil.copytree(saved, other / "checkpoints" / saved.name)
    (other / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines[:n_finished]), encoding="utf-8"
    )
    again = run(lake, recipe, other, ranks=2)
    assert [line["skipped"] for line in again] == [line["skipped"] for line in lines]
    assert again[5]["held_out_loss"] == pytest.approx(lines[5]["held_out_loss"], rel=1e-4)
    assert [line["loss"] for line in again] == pytest.approx([line["loss"] for line in lines], rel=1e-4)
