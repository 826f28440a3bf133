"""Results of tasks that end in any order, in the order of what they are about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")


def iter_in_order(results: Iterable[_T], get_range: Callable[[_T], tuple[int, int]], start: int = 0) -> Iterator[_T]:
    """Yield results in the order of the ranges they are about, which follow each other without a gap from `start`.

    Args:
        results: The results; those that come too early are kept until it is their turn.
        get_range: Returns the first item of a result's range, and the item after the last.
        start: First item of all.
    """
    early_results: dict[int, _T] = {}
    for result in results:
        early_results[get_range(result)[0]] = result
        while start in early_results:
            next_result = early_results.pop(start)
            start = get_range(next_result)[1]
            yield next_result
