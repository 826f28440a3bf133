"""The whole pipeline as one code location, for one machine: the data lake, training, and studies together.

Assets of one location can be materialised together in Dagster's web interface. Where training runs in another
environment or on other machines, `mvl_assets.definitions` and `mvl_training.definitions` are two locations.
"""

from __future__ import annotations

import dagster as dg

from mvl_assets.definitions import build_defs as build_lake_defs
from mvl_training.definitions import build_defs as build_training_defs
from mvl_training.studies.assets import build_defs as build_study_defs


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions that Dagster loads."""
    return dg.Definitions.merge(build_lake_defs(), build_training_defs(), build_study_defs())
