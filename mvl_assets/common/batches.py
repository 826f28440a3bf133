"""Streams: splitting one into lists, and handing one to a library that hides its errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def iter_batches(items: Iterable[T], batch_size: int) -> Iterator[list[T]]:
    """Yield lists of `batch_size` items, the last one shorter, as `itertools.batched` of Python 3.12 does."""
    stream = iter(items)
    while batch := list(islice(stream, batch_size)):
        yield batch


@contextmanager
def keep_producer_errors(items: Iterable[T]) -> Iterator[Iterator[T]]:
    """Yield a stream of the items for a library that reports what is raised inside it as an error of its own.

    What the items raised is raised at the end of the block, as it was.
    """
    errors: list[Exception] = []

    def iter_noting() -> Iterator[T]:
        try:
            yield from items
        except Exception as error:
            errors.append(error)
            raise

    try:
        yield iter_noting()
    except Exception as error:
        if errors and error is not errors[0]:
            raise errors[0] from error
        raise
