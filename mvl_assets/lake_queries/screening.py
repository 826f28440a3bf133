"""Some rows of a source, chosen by hash, for a look at what it holds; and how many rows say exactly the same."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.views import superseded

BATCH = 65_536


@dataclass(frozen=True, slots=True)
class Chosen:
    """`total` counts the newest versions that are not withdrawn, `copies` those of them whose words and pictures are
    exactly another's; `rows` are the chosen ones in order of their sample ids."""

    total: int
    copies: int
    rows: list[dict[str, Any]]


def rows_by_hash(lake: Lake, source: str, count: int, columns: Sequence[str]) -> Chosen:
    """The `count` samples with the smallest ids: ids are digests, so these are as good as drawn, and stay the same.

    Memory holds the chosen rows, and 16 bytes a row of the source.
    """
    table = lake.table("samples")
    counts = superseded(lake, source)
    own = f"{sql.equals('source', source)} AND NOT withdrawn"
    smallest: list[tuple[str, str]] = []
    digests: list[np.ndarray] = []
    total = 0
    for batch in table.scan(["sample_id", "version_id", "revision", "content_hash"], own, BATCH):
        ids, versions, revisions, hashes = (column.to_pylist() for column in batch.columns)
        now = [n for n, key in enumerate(ids) if counts.get(key, 1) == revisions[n]]
        total += len(now)
        smallest = heapq.nsmallest(count, [*smallest, *((ids[n], versions[n]) for n in now)])
        known = "".join(hashes[n] for n in now if hashes[n] is not None)
        digests.append(np.frombuffer(bytes.fromhex(known), dtype="S16"))
    every = np.concatenate(digests) if digests else np.empty(0, dtype="S16")
    wanted = sql.within("version_id", (version for _, version in smallest))
    rows = table.rows(sorted({*columns, "sample_id"}), f"{own} AND {wanted}") if smallest else ()
    return Chosen(total, len(every) - len(np.unique(every)), sorted(rows, key=lambda r: r["sample_id"]))
