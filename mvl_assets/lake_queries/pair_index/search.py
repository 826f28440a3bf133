"""Search for words in the texts of rewrites: the one thing that reads the conversations of all pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mvl_assets.lake.durability.spill import open_duckdb
from mvl_assets.lake_queries.pair_index.index import PairIndex
from mvl_assets.stages import REWRITTEN

SCAN_BATCH_ROWS = 8192
MAX_HITS = 200_000
"""Per category: a word that more rewrites have selects nothing that a person looks through."""


def search_rewrites(index: PairIndex, words: Sequence[str], categories: Sequence[str] = ()) -> np.ndarray:
    """Return the ordinals of the pairs whose rewrites have all words, in any case, ascending.

    Args:
        index: The index.
        words: The words, each a part of the text.
        categories: Search these only; empty for all.
    """
    tables = [name for name in index.table_versions if name.startswith(f"{REWRITTEN.name}/")]
    tables = [name for name in tables if not categories or name.partition("/")[2] in categories]
    hits = [index.find_rewrites(name, _find_addresses(index, name, words)) for name in tables]
    return np.sort(np.concatenate([np.empty(0, dtype=np.int32), *hits]))


def _find_addresses(index: PairIndex, table_name: str, words: Sequence[str]) -> np.ndarray:
    scanner = index.open_dataset(table_name).scanner(
        columns=["conversations"], batch_size=SCAN_BATCH_ROWS, with_row_address=True
    )
    conditions = " AND ".join(["contains(text, lower(?))"] * len(words))
    with open_duckdb() as con:
        con.register("stream", scanner.to_reader())
        columns = con.execute(
            f"""SELECT address FROM (
                  SELECT _rowaddr AS address, lower(array_to_string([t.value for t in conversations], ' ')) AS text
                  FROM stream)
                WHERE {conditions} LIMIT {MAX_HITS}""",  # noqa: S608 - text of ours
            list(words),
        ).fetchnumpy()
        con.unregister("stream")
    return np.asarray(columns["address"], dtype=np.uint64)
