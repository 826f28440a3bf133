"""`--select`: Dagster's selection syntax on the command line, resolved over every code location.

Belongs here: from an expression to asset keys. What a command does with them is the command's.
"""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.asset_selection import DagsterInvalidAssetSelectionError

from mvl_assets.errors import MvlError
from mvl_assets.runner.dagster_home import load_code_locations, suppress_dagster_warnings

SELECT_HELP = "Only assets of this selection, in Dagster's syntax: 'group:rewritten', 'key:judged/chart'."


def resolve_selection(expression: str) -> frozenset[dg.AssetKey]:
    """The keys `expression` selects. Raises `MvlError` where it cannot be read or selects nothing."""
    suppress_dagster_warnings()
    try:
        selection = dg.AssetSelection.from_string(expression)
    except DagsterInvalidAssetSelectionError as error:
        raise MvlError(
            f"--select {expression!r} is no asset selection",
            hint="for example: key:rewritten/chart, 'key:judged/* and not key:judged/ocr', key:rewritten/chart+",
        ) from error
    graphs = [definitions.resolve_asset_graph() for definitions in load_code_locations().values()]
    keys = frozenset(key for graph in graphs for key in selection.resolve(graph, allow_missing=True))
    if not keys:
        raise MvlError(
            f"--select {expression!r} selects no asset",
            hint="the web UI shows all assets by their keys",
        )
    return keys
