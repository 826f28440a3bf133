"""A fixed sample of a source's rows, chosen by hash, with the number of exact copies in the source."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvl_assets.common.id_array import concatenate_ids, pack_ids
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.views import read_latest_revisions

BATCH_SIZE = 65_536


@dataclass(frozen=True, slots=True)
class HashSample:
    """Rows of a source chosen by hash.

    Attributes:
        n_samples: Current samples of the source.
        n_copies: Of these, samples whose content equals that of another one.
        rows: The chosen rows, ordered by sample id.
    """

    n_samples: int
    n_copies: int
    rows: list[dict[str, Any]]


def sample_by_hash(lake: Lake, source: str, sample_size: int, columns: Sequence[str]) -> HashSample:
    """Read the samples with the smallest ids: ids are digests, so the choice is random, and always the same.

    Memory holds the chosen rows, and 16 bytes per row of the source.

    Args:
        lake: The lake.
        source: The source.
        sample_size: Largest number of rows.
        columns: Columns of `samples` to read.
    """
    table = lake.get_table("samples")
    latest_revisions = read_latest_revisions(lake, source)
    current_filter = f"{sql.equals('source', source)} AND NOT withdrawn"
    smallest: list[tuple[str, str]] = []
    digests: list[np.ndarray] = []
    n_samples = 0
    for batch in table.scan(["sample_id", "version_id", "revision", "content_hash"], current_filter, BATCH_SIZE):
        ids, versions, revisions, hashes = (column.to_pylist() for column in batch.columns)
        current_indices = [n for n, key in enumerate(ids) if latest_revisions.get(key, 1) == revisions[n]]
        n_samples += len(current_indices)
        smallest = heapq.nsmallest(sample_size, [*smallest, *((ids[n], versions[n]) for n in current_indices)])
        digests.append(pack_ids(hashes[n] for n in current_indices if hashes[n] is not None))
    all_digests = concatenate_ids(digests)
    version_filter = sql.is_in("version_id", (version for _, version in smallest))
    rows = (
        table.iter_rows(sorted({*columns, "sample_id"}), f"{current_filter} AND {version_filter}") if smallest else ()
    )
    return HashSample(
        n_samples, len(all_digests) - len(np.unique(all_digests)), sorted(rows, key=lambda r: r["sample_id"])
    )
