"""The data lake's code location: assembles the definitions of `defs/` and their resources."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from mvl_assets.orchestration.resources import LakeResource


def build_defs(resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Return the definitions of the data lake.

    Args:
        resource_overrides: Resources by name, used instead of the default ones; tests pass a lake of their own.
    """
    return dg.Definitions.merge(
        dg.load_from_defs_folder(path_within_project=Path(__file__).parent),
        dg.Definitions(
            resources={"lake": LakeResource(), **(resource_overrides or {})},
            # A process per step would load all definitions again for each of them.
            executor=dg.in_process_executor,
        ),
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions that Dagster loads."""
    return build_defs()
