"""`mvl run` says why nothing can be trained: packages that are missing, or a stage of the recipe without rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.config.profile import PROFILES_DIR, MixtureConfig, Profile, load_profile
from mvl_assets.runner import training_obstacle
from mvl_assets.runner.training_obstacle import find_training_obstacle


def use(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    profile: Profile = load_profile(str(PROFILES_DIR / "demo.yaml")).model_copy(update=changes)
    monkeypatch.setattr(training_obstacle.asset_keys, "load_active_profile", lambda: profile)
    monkeypatch.setattr(training_obstacle, "list_missing_packages", list)


def test_rows_are_needed_for_the_stages_of_the_recipe_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch)
    assert find_training_obstacle() is None
    mixture = MixtureConfig(alignment=0, single_image=10, one_vision=0)
    use(monkeypatch, mixture=mixture)
    assert "no rows for alignment" in (find_training_obstacle() or "")
    recipe = tmp_path / "second_stage.yaml"
    recipe.write_text("name: second_stage\nstages: {single_image: {}}\n", encoding="utf-8")
    use(monkeypatch, mixture=mixture, recipe=str(recipe))
    assert find_training_obstacle() is None


def test_missing_packages_are_named_with_what_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch)
    monkeypatch.setattr(training_obstacle, "list_missing_packages", lambda: ["torch"])
    assert (find_training_obstacle() or "").startswith("torch not installed (")
