"""The data lake's code location: assembles the definitions of `defs/` and their resources.

Not by `dg.load_from_defs_folder`, which needs the clone's pyproject.toml: an installed package has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from mvl_assets.defs import (
    benchmarks,
    category,
    curation,
    export,
    freshness,
    judged,
    mixture,
    prompts,
    raw,
    refresh,
    rewritten,
    scored,
)
from mvl_assets.orchestration.resources import LakeResource

STAGE_MODULES = (
    raw,
    benchmarks,
    category,
    prompts,
    rewritten,
    judged,
    scored,
    freshness,
    curation,
    mixture,
    export,
    refresh,
)


def build_defs(resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Return the definitions of the data lake.

    Args:
        resource_overrides: Resources by name, used instead of the default ones; tests pass a lake of their own.
    """
    return dg.Definitions.merge(
        *(module.defs() for module in STAGE_MODULES),
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
