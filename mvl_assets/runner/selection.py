"""`--select`: Dagster's selection syntax on the command line, resolved over every code location."""

from __future__ import annotations

import dagster as dg

from mvl_assets.errors import MvlError
from mvl_assets.orchestration.dagster_internals import resolve_asset_selection
from mvl_assets.runner.dagster_home import load_code_locations, suppress_dagster_warnings

SELECT_HELP = "Only assets of this selection, in Dagster's syntax: 'group:rewritten', 'key:judged/chart'."


def resolve_selection(expression: str) -> frozenset[dg.AssetKey]:
    """Return the keys of the assets that `expression` selects.

    Raises:
        MvlError: The expression cannot be read, or selects nothing.
    """
    suppress_dagster_warnings()
    graphs = [definitions.resolve_asset_graph() for definitions in load_code_locations().values()]
    try:
        keys = resolve_asset_selection(expression, graphs)
    except ValueError as error:
        raise MvlError(
            f"--select {expression!r} is not an asset selection",
            hint="for example: key:rewritten/chart, 'key:judged/* and not key:judged/ocr', key:rewritten/chart+",
        ) from error
    if not keys:
        raise MvlError(f"--select {expression!r} selects no asset", hint="the web UI shows all assets by their keys")
    return keys
