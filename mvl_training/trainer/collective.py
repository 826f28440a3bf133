"""What rank 0 does for all ranks, and how long the others wait for it.

Two process groups with a time limit each. The default one exchanges gradients: a rank that does not come within
`STEP_TIMEOUT` hangs, and the run had better end and resume. The control group is for waiting while one rank works
alone, which takes as long as a disk takes: reading a checkpoint of a hundred gigabytes, or completing it. Its ranks are
plain processes (gloo), also beside GPUs. A rank that dies ends the others at once in both cases, by torchrun.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from mvl_assets.errors import MvlError

STEP_TIMEOUT = timedelta(minutes=30)
CONTROL_TIMEOUT = timedelta(hours=12)

_T = TypeVar("_T")
_control_group: Any = None


def open_control_group() -> None:
    """Make the control group, after torch.distributed was initialised. Collective."""
    global _control_group
    _control_group = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)


def wait_for_all_ranks() -> None:
    """Return when all ranks have come here, however long one of them works alone. Collective."""
    dist.barrier(group=_control_group)


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
    dist.broadcast_object_list(broadcast_values, src=0, group=_control_group)
    result: _T = broadcast_values[0]
    if broadcast_values[1] is not None:
        raise broadcast_values[1]
    return result


def run_on_all_ranks(function: Callable[[], _T]) -> _T:
    """Call `function` on every rank and return its own result on each. Collective.

    Raises:
        MvlError: `function` raised it on some rank; the first one, raised on all ranks.
    """
    try:
        result = function()
    except MvlError as error:
        raise_on_all_ranks(error)
        raise
    raise_on_all_ranks(None)
    return result


def raise_on_all_ranks(error: MvlError | None) -> None:
    """Raise the first error that any rank has on all of them. Collective.

    Args:
        error: This rank's; None: it has none.

    Raises:
        MvlError: The error, with its class, message and hint.
    """
    if raised_errors := [error for error in gather_from_all_ranks(error) if error is not None]:
        raise raised_errors[0]


def gather_from_all_ranks(value: _T) -> list[_T]:
    """Return the values of all ranks, in their order, on each. Collective.

    Args:
        value: This rank's; it must be picklable.
    """
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, group=_control_group)
    return values
