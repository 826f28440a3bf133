"""Why nothing can be trained here, as far as it can be told before anything runs."""

from __future__ import annotations

from pathlib import Path

import yaml

from mvl_assets.common.installation import build_install_hint, list_missing_packages
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.profile import Profile
from mvl_assets.config.project import RECIPES_DIR, find_own_dir, list_files
from mvl_assets.orchestration import asset_keys


def find_training_obstacle() -> str | None:
    """Return why nothing can be trained here, and what to do about it; None where it can."""
    if missing := list_missing_packages():
        return f"{', '.join(missing)} not installed ({build_install_hint('train')})"
    profile = asset_keys.load_active_profile()
    if empty := [stage for stage in _list_trained_stages(profile) if not getattr(profile.mixture, stage)]:
        return f"the profile {profile.name} has no rows for {empty[0]}, which is a stage of its recipe {profile.recipe}"
    return None


def _list_trained_stages(profile: Profile) -> list[str]:
    """Return the training stages of the profile's recipe; none of one that cannot be read, which training reports."""
    path = list_files(RECIPES_DIR, find_own_dir("recipes"), "*.yaml").get(
        f"{profile.recipe}.yaml", Path(profile.recipe)
    )
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return []
    stages = recipe.get("stages") if isinstance(recipe, dict) else None
    return [stage for stage in TRAINING_STAGES if isinstance(stages, dict) and stage in stages]
