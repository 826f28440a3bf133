"""The settings of an arm of a study: its profile and recipe are files, its tables are named by the lake's address.

An arm of another lake has the root of that in a third file.

Settings are the environment, which launched processes inherit; so inside `use_arm` every function and every process
works on the arm.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mvl_assets.common.arm_address import ArmId, format_lake_address, split_lake_address
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError

PROFILE_FILE, RECIPE_FILE, LAKE_FILE = "profile.yaml", "recipe.yaml", "lake.txt"


def get_arm_dir(arm_id: ArmId) -> Path:
    """Return the folder of an arm's profile, recipe and state."""
    return load_settings().studies_dir / arm_id.study / "arms" / arm_id.arm / str(arm_id.seed)


def resolve_other_lake(name: str) -> str:
    """Return the root of the lake that a study names: an address, or a folder, which may be relative to MVL_HOME."""
    return name if "://" in name else str(load_settings().home / name)


def build_arm_environment(arm_id: ArmId) -> dict[str, str]:
    """Return the variables of an arm.

    Raises:
        MvlError: No study of this project has started it.
    """
    profile_path = get_arm_dir(arm_id) / PROFILE_FILE
    if not profile_path.is_file():
        raise MvlError(
            f"there is no arm {arm_id.path}",
            hint="`mvl study list` names the studies, `mvl study status NAME` its arms",
        )
    root, _ = split_lake_address(load_settings().lake_root)
    lake_path = profile_path.with_name(LAKE_FILE)
    if lake_path.is_file():
        root = resolve_other_lake(lake_path.read_text(encoding="utf-8"))
    return {"MVL_LAKE": format_lake_address(root, arm_id), "MVL_PROFILE": str(profile_path)}


@contextmanager
def use_arm(arm_id: ArmId) -> Iterator[None]:
    """Make the settings those of an arm. Raises as `build_arm_environment` does."""
    environment = build_arm_environment(arm_id)
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
