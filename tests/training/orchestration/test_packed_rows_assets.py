"""The assets `packed_rows/*`: made where the profile asks for it, empty elsewhere, with the plan's data version."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest

from mvl_assets.common import metadata_keys
from mvl_assets.config.profile import PROFILES_DIR
from mvl_assets.lake.lake import Lake
from mvl_training.data.packed_rows import PackedRows, open_packs
from mvl_training.orchestration.packed_rows_assets import build_packed_rows_asset
from mvl_training.recipe import Recipe

STAGE = "single_image"


def materialize(recipe: Recipe) -> dg.AssetMaterialization:
    result = dg.materialize([build_packed_rows_asset(STAGE, recipe)])
    (event,) = result.get_asset_materialization_events()
    return event.materialization


def test_packs_are_made_and_removed_as_the_profile_says(
    lake: Lake, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Lake(str(shutil.copytree(lake.root, tmp_path / "lake")))
    monkeypatch.setenv("MVL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MVL_LAKE", world.root)
    plan_version = world.get_table(f"pack_plan/{STAGE}").compute_data_version()
    for setting, is_made in (("true", True), ("auto", False)):
        profile = tmp_path / f"{setting}.yaml"
        demo = (PROFILES_DIR / "demo.yaml").read_text(encoding="utf-8")
        profile.write_text(f"{demo}\nmaterialize_packs: {setting}\nexecutor: {{processes: 1}}\n", encoding="utf-8")
        monkeypatch.setenv("MVL_PROFILE", str(profile))
        materialization = materialize(recipe)
        assert isinstance(open_packs(world, STAGE), PackedRows) is is_made
        assert materialization.tags["dagster/data_version"] == plan_version
        assert materialization.metadata[metadata_keys.ROW_COUNT].value == (
            world.get_table(f"pack_plan/{STAGE}").count() if is_made else 0
        )
