"""Assets `raw/<slug>`: one per declared source, of the catalog and of the project (`components/source_dataset.py`).

A source that the graph has nothing of is declared only, as an asset that cannot be materialised: "Materialize all"
leaves it out, and it does not count as missing.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
import dagster as dg

from mvl_assets.components.source_dataset import build_declared_spec, build_raw_asset
from mvl_assets.config.catalog import load_catalog
from mvl_assets.orchestration import asset_keys


@dg.definitions
def defs() -> dg.Definitions:
    """Return the assets of all sources."""
    graph_sources = set(asset_keys.list_graph_sources())
    return dg.Definitions(
        assets=[
            build_raw_asset(spec) if slug in graph_sources else build_declared_spec(spec)
            for slug, spec in load_catalog().items()
        ]
    )
