"""Calls that rank 0 makes for all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from mvl_assets.errors import MvlError

_T = TypeVar("_T")


def run_on_rank_0(function: Callable[[], _T]) -> _T:
    """Call `function` on rank 0 and return its result on all ranks. Collective.

    Args:
        function: Its result must be picklable.

    Raises:
        MvlError: `function` raised it on rank 0; raised on all ranks.
    """
    broadcast_values: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            broadcast_values[0] = function()
        except MvlError as error:
            broadcast_values[1] = error
    dist.broadcast_object_list(broadcast_values, src=0)
    result: _T = broadcast_values[0]
    if broadcast_values[1] is not None:
        raise broadcast_values[1]
    return result
