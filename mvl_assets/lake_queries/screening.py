"""A fixed sample of a source's rows, chosen by hash, with the number of exact copies in the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mvl_assets.common.id_array import concatenate_ids, pack_id_column
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.current_samples import CurrentSamples


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
    smallest: pa.Table | None = None
    digests: list[np.ndarray] = []
    n_samples = 0
    for batch in CurrentSamples(lake, source).scan(["sample_id", "version_id", "content_hash"]):
        n_samples += len(batch)
        digests.append(pack_id_column(batch.column("content_hash")))
        ids = pa.table(batch.select(["sample_id", "version_id"]))
        candidates = ids if smallest is None else pa.concat_tables([smallest, ids])
        smallest = candidates.take(pc.select_k_unstable(candidates, sample_size, [("sample_id", "ascending")]))
    all_digests = concatenate_ids(digests)
    n_copies = len(all_digests) - len(np.unique(all_digests))
    if smallest is None:
        return HashSample(n_samples, n_copies, [])
    condition = sql.is_in("version_id", smallest["version_id"].to_pylist())
    rows = lake.get_table("samples").iter_rows(sorted({*columns, "sample_id"}), condition, partition_key=source)
    return HashSample(n_samples, n_copies, sorted(rows, key=lambda row: row["sample_id"]))
