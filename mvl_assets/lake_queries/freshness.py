"""Stale rows: those made with another prompt or model than the current ones."""

from __future__ import annotations

from collections.abc import Collection

from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake


def count_stale_rows(
    lake: Lake, table_name: str, source: str, *, prompt_hashes: Collection[str], model: str, model_revision: str
) -> int:
    """Count the rows of a source in a `rewritten` or `judged` table made with other prompts or another model.

    Args:
        lake: The lake.
        table_name: Name of the table, such as `rewritten/general`.
        source: The source.
        prompt_hashes: Hashes of the prompts in use.
        model: The model in use.
        model_revision: Its revision.
    """
    fresh_filter = (
        f"{sql.is_in('prompt_hash', prompt_hashes)} AND {sql.equals('model', model)} "
        f"AND {sql.equals('model_revision', model_revision)}"
    )
    return lake.get_table(table_name).count(f"NOT ({fresh_filter})", source)
