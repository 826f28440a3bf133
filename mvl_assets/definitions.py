"""The data lake's code location. Assembles; holds nothing else."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from mvl_assets.orchestration.resources import LakeResource


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions.merge(
        dg.load_from_defs_folder(path_within_project=Path(__file__).parent),
        dg.Definitions(
            resources={"lake": LakeResource()},
            # A process per step would load all definitions again for each of them.
            executor=dg.in_process_executor,
        ),
    )
