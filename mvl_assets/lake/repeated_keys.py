"""Removal of rows that several writers of one partition have stored under the same key."""

from __future__ import annotations

import numpy as np

from mvl_assets.common.id_array import unpack_id
from mvl_assets.lake import sql
from mvl_assets.lake.fragments import FRAGMENT_BITS
from mvl_assets.lake.key_index import KeyIndex
from mvl_assets.lake.table import Table


def delete_repeated_keys(table: Table, index: KeyIndex, partition_key: str) -> list[str]:
    """Keep only the first row of each key of a partition, and return the keys of the rows that were deleted.

    The caller must be the partition's only writer.

    Args:
        table: The table.
        index: The index of the partition.
        partition_key: The partition.
    """
    key_addresses = index.load_key_addresses()
    if key_addresses is None or not key_addresses.runs:
        return []
    keys = np.concatenate([run_keys for run_keys, _ in key_addresses.runs])
    addresses = np.concatenate([run_addresses for _, run_addresses in key_addresses.runs])
    order = np.lexsort((addresses, keys))
    is_copy = np.append(False, keys[order][1:] == keys[order][:-1])
    copies = order[is_copy]
    if not len(copies):
        return []
    fragment_ids = addresses[copies] >> np.uint64(FRAGMENT_BITS)
    conditions = {
        # A key is in a fragment once, as `write_fragments` has checked.
        fragment_id: sql.is_in(table.spec.key_column, map(unpack_id, keys[copies[fragment_ids == fragment_id]]))
        for fragment_id in np.unique(fragment_ids).tolist()
    }
    table.delete_from_fragments(key_addresses.dataset, conditions)
    return [unpack_id(key) for key in keys[copies]]
