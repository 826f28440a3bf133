"""Shards of a source: its rows, divided by the leading bits of a digest into a power of two number of parts.

The digest is chosen so that equal requests meet in one shard, because two shards that run side by side do not see each
other's answers. What it is of is each stage's own (`TableStage.iter_shard_rows`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from mvl_assets.common.id_array import ID_DTYPE, pack_ids, unpack_id
from mvl_assets.lake.answer_lookup import WHOLE_SOURCE

HASH_BITS = 64
_BATCH_SIZE = 8192


class ShardRow(NamedTuple):
    """A row of a stage's input.

    Attributes:
        row_id: Its id.
        hash: The leading 64 bits of the digest that decides its shard.
        may_send: Whether requests may be sent for it.
        n_requests: About how many requests it has to each model.
    """

    row_id: str
    hash: int
    may_send: bool
    n_requests: int


@dataclass(frozen=True)
class Shard:
    """Some rows of a source, in the order of the source.

    Attributes:
        name: The leading bits that their digests share, such as "01"; it names the shard's answers.
        ids: The packed ids of the rows.
        may_send: Per row, whether requests may be sent for it.
        n_requests: About how many requests the rows that may be sent have to each model.
    """

    name: str
    ids: np.ndarray
    may_send: np.ndarray
    n_requests: int

    def __len__(self) -> int:
        return len(self.ids)

    def iter_rows(self, rotate_from: int = 0, *, sendable_only: bool = False) -> Iterator[tuple[str, bool]]:
        """Yield each row's id and whether it may be sent; rows before `rotate_from` come last."""
        for index in chain(range(rotate_from, len(self.ids)), range(rotate_from)):
            if self.may_send[index] or not sendable_only:
                yield unpack_id(self.ids[index]), bool(self.may_send[index])


def get_leading_bits(digest: str) -> int:
    """Return the leading 64 bits of a hex digest."""
    return int(digest[: HASH_BITS // 4], 16)


def split_rows(rows: Iterable[ShardRow], rows_per_shard: int) -> list[Shard]:
    """Divide rows into the smallest power of two number of shards of about `rows_per_shard` rows or fewer.

    Memory holds 85 bytes a row at the most, 17 afterwards. Shards without rows are left out.
    """
    remaining_rows = iter(rows)
    id_arrays, hash_arrays = [np.empty(0, ID_DTYPE)], [np.empty(0, np.uint64)]
    may_send_arrays, n_requests_arrays = [np.empty(0, bool)], [np.empty(0, np.int32)]
    while batch := list(islice(remaining_rows, _BATCH_SIZE)):
        row_ids, hashes, may_send, n_requests = zip(*batch, strict=True)
        id_arrays.append(pack_ids(row_ids))
        hash_arrays.append(np.array(hashes, np.uint64))
        may_send_arrays.append(np.array(may_send, bool))
        n_requests_arrays.append(np.array(n_requests, np.int32))
    all_ids, all_may_send = _drain(id_arrays), _drain(may_send_arrays)
    if not len(all_ids):
        return []
    all_hashes, all_n_requests = _drain(hash_arrays), _drain(n_requests_arrays)
    n_bits = max(0, math.ceil(math.log2(len(all_ids) / rows_per_shard)))
    # A shift by all bits is undefined.
    numbers = all_hashes >> np.uint64(HASH_BITS - n_bits) if n_bits else np.zeros(len(all_ids), int)
    del all_hashes
    order = np.argsort(numbers, kind="stable")  # rows of one shard keep their order
    shards = []
    for indices in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        sendable = all_may_send[indices]
        name = format(int(numbers[indices[0]]), f"0{n_bits}b") if n_bits else WHOLE_SOURCE
        shards.append(Shard(name, all_ids[indices], sendable, int(all_n_requests[indices][sendable].sum())))
    return shards


def _drain(arrays: list[np.ndarray]) -> np.ndarray:
    """Join arrays and let go of them."""
    joined = np.concatenate(arrays)
    arrays.clear()
    return joined
