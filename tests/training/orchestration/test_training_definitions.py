"""The graph of the training location: what depends on what, and what loading it may cost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.profile import PROFILES_DIR
from mvl_training.definitions import defs
from mvl_training.evaluation.benchmarks.registry import load_suites
from mvl_training.orchestration.asset_defaults import GPU_POOL
from mvl_training.orchestration.checkpoint_assets import CHECK_DESCRIPTIONS
from mvl_training.recipe import RECIPES_DIR

pytestmark = pytest.mark.usefixtures("demo_profile")


@pytest.fixture(scope="module")
def graph() -> dg.AssetGraph:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MVL_PROFILE", "demo")
        patch.setenv("MVL_EVAL_PYTHON", sys.executable)
        return defs().resolve_asset_graph()


@pytest.fixture
def demo_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MVL_PROFILE", "demo")
    monkeypatch.setenv("MVL_EVAL_PYTHON", sys.executable)


def _key(*parts: str) -> dg.AssetKey:
    return dg.AssetKey(list(parts))


def test_the_location_holds_a_plan_its_rows_and_a_checkpoint_per_stage_and_the_suites(graph: dg.AssetGraph) -> None:
    assert graph.materializable_asset_keys == {
        *(_key("pack_plan", stage) for stage in TRAINING_STAGES),
        *(_key("packed_rows", stage) for stage in TRAINING_STAGES),
        *(_key("checkpoint", stage) for stage in TRAINING_STAGES),
        *(_key("checkpoint", f"{stage}_export") for stage in TRAINING_STAGES),
        *(_key("evaluation", suite) for suite in ("held_out", *load_suites())),
        *(_key("evaluation", f"kept_checkpoints_{stage}") for stage in TRAINING_STAGES),
    }


def test_suites_that_cannot_be_run_here_are_declared_and_do_not_count_as_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MVL_EVAL_PYTHON", "/nowhere/python")
    without = defs().resolve_asset_graph()
    for suite in load_suites():
        key = _key("evaluation", suite)
        assert key not in without.materializable_asset_keys
        assert "make eval-setup" in (without.get(key).description or "")
        assert without.get(key).parent_keys == {_key("checkpoint", "one_vision_export")}
    assert _key("evaluation", "held_out") in without.materializable_asset_keys


def test_stages_are_chained_and_hang_on_the_mixtures_of_the_other_location(graph: dg.AssetGraph) -> None:
    for stage in TRAINING_STAGES:
        assert graph.get(_key("pack_plan", stage)).parent_keys == {_key("mixture", stage)}
        assert graph.get(_key("packed_rows", stage)).parent_keys == {_key("pack_plan", stage)}
    assert graph.get(_key("checkpoint", "alignment")).parent_keys == {_key("packed_rows", "alignment")}
    assert graph.get(_key("checkpoint", "single_image")).parent_keys == {
        _key("packed_rows", "single_image"),
        _key("checkpoint", "alignment_export"),
    }
    assert graph.get(_key("checkpoint", "one_vision")).parent_keys == {
        _key("packed_rows", "one_vision"),
        _key("checkpoint", "single_image_export"),
    }
    assert graph.get(_key("evaluation", "held_out")).parent_keys == {
        _key("checkpoint", f"{stage}_export") for stage in TRAINING_STAGES
    }
    for stage in TRAINING_STAGES:
        assert graph.get(_key("checkpoint", f"{stage}_export")).parent_keys == {_key("checkpoint", stage)}
        assert graph.get(_key("evaluation", f"kept_checkpoints_{stage}")).parent_keys == {
            _key("checkpoint", f"{stage}_export")
        }
    assert graph.external_asset_keys == {_key("mixture", stage) for stage in TRAINING_STAGES}


def test_every_asset_is_described_owned_grouped_and_named_by_kind(graph: dg.AssetGraph) -> None:
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        assert node.group_name == key.path[0]
        assert len(node.description or "") > 80, key
        assert node.owners == ["team:training"]
        assert node.tags, key
        assert node.code_version, key
        assert 1 <= len(node.kinds) <= 3


def test_what_uses_the_accelerator_waits_its_turn_in_one_pool() -> None:
    by_key = {asset.key: asset for asset in defs().assets or () if isinstance(asset, dg.AssetsDefinition)}
    for key, asset in by_key.items():
        expected = None if key.path[0] in ("pack_plan", "packed_rows") else GPU_POOL
        assert asset.op.pool == expected, key


def test_every_checkpoint_is_gated_by_blocking_checks(graph: dg.AssetGraph) -> None:
    for stage in TRAINING_STAGES:
        keys = {key for key in graph.asset_check_keys if key.asset_key == _key("checkpoint", stage)}
        assert {key.name for key in keys} == set(CHECK_DESCRIPTIONS)
        assert all(graph.get(key).blocking for key in keys)


def test_every_asset_returns_its_result_instead_of_a_value_to_pickle() -> None:
    for asset in defs().assets or ():
        assert isinstance(asset, dg.AssetsDefinition)
        assert asset.op.compute_fn.decorated_fn.__annotations__["return"] is dg.MaterializeResult, asset.key


def test_a_changed_learning_rate_makes_the_checkpoint_stale_but_not_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def versions() -> dict[dg.AssetKey, str | None]:
        graph = defs().resolve_asset_graph()
        return {key: graph.get(key).code_version for key in graph.materializable_asset_keys}

    before = versions()
    recipe = _read_demo_recipe()
    recipe["stages"]["alignment"]["learning_rates"]["projector"] *= 2
    _use_recipe(recipe, tmp_path, monkeypatch)
    changed = {key for key, version in versions().items() if version != before[key]}
    assert changed == {_key("checkpoint", "alignment")}


def test_a_recipe_may_have_some_of_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = _read_demo_recipe()
    recipe["stages"] = {"single_image": recipe["stages"]["single_image"]}
    _use_recipe(recipe, tmp_path, monkeypatch)
    graph = defs().resolve_asset_graph()
    names = ("pack_plan", "packed_rows", "checkpoint")
    assert {key for key in graph.materializable_asset_keys if key.path[0] in names} == {
        _key("checkpoint", "single_image_export"),
        *(_key(name, "single_image") for name in names),
    }
    # Without an alignment the model is assembled from the towers.
    assert graph.get(_key("checkpoint", "single_image")).parent_keys == {_key("packed_rows", "single_image")}
    for suite in ("held_out", *load_suites()):
        assert graph.get(_key("evaluation", suite)).parent_keys == {_key("checkpoint", "single_image_export")}


def _read_demo_recipe() -> dict[str, Any]:
    return yaml.safe_load((RECIPES_DIR / "demo.yaml").read_text(encoding="utf-8"))


def _use_recipe(data: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a copy of the demo's profile with this recipe the profile in use."""
    recipe = folder / "mine.yaml"
    recipe.write_text(yaml.safe_dump(data), encoding="utf-8")
    profile = folder / "profile.yaml"
    demo = (PROFILES_DIR / "demo.yaml").read_text(encoding="utf-8")
    profile.write_text(demo.replace("recipe: demo", f"recipe: {recipe}"), encoding="utf-8")
    monkeypatch.setenv("MVL_PROFILE", str(profile))


def test_an_unknown_profile_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MVL_PROFILE", "no-such-profile")
    with pytest.raises(Exception, match="there is no profile 'no-such-profile'"):
        defs()
