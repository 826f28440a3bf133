"""Removing what `curation/compared` and the tables of pairs hold of contents and images that no current sample has."""

from __future__ import annotations

from mvl_assets.common.id_array import format_ids
from mvl_assets.lake.durability.spill import stream_table
from mvl_assets.lake_queries.sample_comparison import MAX_GONE_SHARE, SampleComparison

BATCH_ROWS = 65_536

# Contents come first: one that returns is compared again, as a new one, and may then meet pairs that are still stored.
_CURRENT_IDS = {
    "curation/compared": ("fingerprint", ["fingerprint"]),
    "curation/sample_pairs": ("fingerprint", ["fingerprint", "other_fingerprint"]),
    "curation/image_pairs": ("first_image", ["image_id", "other_image_id"]),
}


def remove_gone_contents(comparison: SampleComparison) -> bool:
    """Write the tables without what is gone, if that is much of them, and return whether they were.

    Where it is, a comparison holds all samples.
    """
    compared = comparison.lake.get_table("curation/compared")
    n_compared = compared.count()
    if not comparison.is_whole or n_compared - comparison.count_contents() <= MAX_GONE_SHARE * n_compared:
        return False
    for name, (id_column, columns) in _CURRENT_IDS.items():
        _rewrite_table(comparison, name, id_column, columns)
    return True


def _rewrite_table(comparison: SampleComparison, name: str, id_column: str, columns: list[str]) -> None:
    table = comparison.lake.get_table(name)
    if not table.exists():
        return
    fragments = table.open().get_fragments()
    condition = " AND ".join(
        f"{column}::UUID IN (SELECT {id_column} FROM rows)"  # noqa: S608 - names of ours
        for column in columns
    )
    with stream_table(comparison.con, "stored_rows", table, table.spec.columns.names):
        reader = comparison.con.sql(f"SELECT * FROM stored_rows WHERE {condition}").to_arrow_reader(BATCH_ROWS)  # noqa: S608
        written = table.write_fragments(format_ids(batch) for batch in reader)
    table.exchange_fragments(fragments, [written])
