"""Assets `raw/<slug>`: one per declared source, of the catalog and of the project (`components/source_dataset.py`)."""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
import dagster as dg

from mvl_assets.components.source_dataset import build_raw_asset
from mvl_assets.config.catalog import load_catalog


@dg.definitions
def defs() -> dg.Definitions:
    """Return the assets of all sources."""
    return dg.Definitions(assets=[build_raw_asset(spec) for spec in load_catalog().values()])
