"""Splitting a stream into lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def iter_batches(items: Iterable[T], batch_size: int) -> Iterator[list[T]]:
    """Yield lists of `batch_size` items, the last one shorter, as `itertools.batched` of Python 3.12 does."""
    stream = iter(items)
    while batch := list(islice(stream, batch_size)):
        yield batch
