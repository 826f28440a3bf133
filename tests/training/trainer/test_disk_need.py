"""Forecast of checkpoints against the files of real ones, and the refusal of a disk that is too small."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from mvl_assets.errors import MvlError
from mvl_training.model.cost_model import compute_recipe_sizes, count_trained_params
from mvl_training.recipe import load_recipe
from mvl_training.trainer import disk_need
from mvl_training.trainer.checkpoint import select_kept_steps
from mvl_training.trainer.disk_need import (
    check_disk,
    check_save_time,
    check_staging_disk,
    count_checkpoints,
    forecast_checkpoint_bytes,
)
from tests.training import tiny_model as small

Usage = namedtuple("Usage", "total used free")


def test_a_checkpoint_of_the_paper_is_14_bytes_per_parameter_with_weights_and_12_with_partitioned_ones() -> None:
    recipe = load_recipe("paper-7b")
    sizes = compute_recipe_sizes(recipe)
    stage_config = recipe.get_stage("single_image")
    n_params = sum(sizes.params.values())
    assert forecast_checkpoint_bytes(sizes, stage_config) == 12 * n_params
    zero2 = stage_config.model_copy(update={"zero_stage": 2})
    assert forecast_checkpoint_bytes(sizes, zero2) == 14 * n_params
    alignment = recipe.get_stage("alignment")
    n_projector = count_trained_params(sizes, alignment)["projector"]
    assert forecast_checkpoint_bytes(sizes, alignment) == 2 * (n_params - n_projector) + 12 * n_projector


def test_a_run_that_does_not_fit_is_refused_with_figures(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small.build_recipe(tokenizer, steps=6, save_interval=2, keep_checkpoints=2)
    sizes, stage_config = compute_recipe_sizes(recipe), recipe.get_stage("single_image")
    assert count_checkpoints(stage_config, 6) == 3
    needed = 3 * forecast_checkpoint_bytes(sizes, stage_config) + 4 * sum(sizes.params.values())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, needed))
    check_disk(tmp_path, sizes, stage_config, 6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, needed - 1))
    with pytest.raises(MvlError, match=r"3 checkpoints of .* GiB are free \| lower the recipe's `keep_checkpoints`"):
        check_disk(tmp_path, sizes, stage_config, 6)
    (tmp_path / "written").write_bytes(b"1")
    check_disk(tmp_path, sizes, stage_config, 6)


def test_a_checkpoint_has_to_be_written_in_the_time_that_a_cancelled_run_gets(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small.build_recipe(tokenizer)
    sizes, stage_config = compute_recipe_sizes(recipe), recipe.get_stage("single_image")
    check_save_time(tmp_path, sizes, stage_config, grace_s=1e-6, n_machines=1)  # too small to be timed
    monkeypatch.setattr(disk_need, "MIN_TIMED_BYTES", 1)
    check_save_time(tmp_path, sizes, stage_config, grace_s=3600, n_machines=1)
    assert not list(tmp_path.iterdir())
    n_bytes = forecast_checkpoint_bytes(sizes, stage_config)
    monkeypatch.setattr(disk_need, "measure_write_speed", lambda folder: n_bytes / 100)
    check_save_time(tmp_path, sizes, stage_config, grace_s=51, n_machines=2)
    with pytest.raises(MvlError, match=r"takes about 100 s at .* gets 51 s to save \| raise MVL_SAVE_GRACE_S"):
        check_save_time(tmp_path, sizes, stage_config, grace_s=51, n_machines=1)


def test_a_staged_checkpoint_has_to_fit_on_the_scratch_folder_of_each_machine(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small.build_recipe(tokenizer, staged_checkpoints=True)
    sizes, stage_config = compute_recipe_sizes(recipe), recipe.get_stage("single_image")
    half = forecast_checkpoint_bytes(sizes, stage_config) / 2
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, half))
    check_staging_disk(tmp_path, sizes, stage_config, n_machines=2)
    with pytest.raises(MvlError, match=r"a staged checkpoint takes .* \| set MVL_SCRATCH to a larger disk"):
        check_staging_disk(tmp_path, sizes, stage_config, n_machines=1)


def test_the_newest_checkpoints_stay_and_the_first_after_each_interval_of_samples(tokenizer: Path) -> None:
    recipe = small.build_recipe(tokenizer, global_batch_size=10, keep_checkpoints=2, keep_every_samples=100)
    stage_config = recipe.get_stage("single_image")
    kept: set[int] = set()
    for step in range(4, 49, 4):
        kept = select_kept_steps([*kept, step], stage_config)
    # Steps of 10 samples: 100 are reached at 12, 200 at 20, 300 at 32, 400 at 40.
    assert sorted(kept) == [12, 20, 32, 40, 44, 48]
    assert count_checkpoints(stage_config.model_copy(update={"save_interval": 4}), 48) == 2 + 4 + 1
    assert select_kept_steps([4, 8, 12], stage_config.model_copy(update={"keep_every_samples": None})) == {8, 12}
