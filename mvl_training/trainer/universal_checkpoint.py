"""Checkpoints in DeepSpeed's universal form, which any number of ranks can load.

DeepSpeed's converter runs in one process. Its two passes (optimizer shards into fragments of parameters, fragments into
parameters) are lists of independent work, which are shared here among all ranks. What each reads before them (shapes,
and without ZeRO-3 the weights) every rank reads.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch.distributed as dist

from mvl_assets.common.text import format_exception_line
from mvl_training.model.cost_model import GIB
from mvl_training.trainer.checkpoint import DEEPSPEED_TAG, UNIVERSAL_PREFIX, CheckpointError
from mvl_training.trainer.collective import gather_from_all_ranks, run_on_all_ranks, run_on_rank_0

N_PASSES = 2


class _ShareDone(Exception):
    """This rank has done its share of both passes; what is left is small, and rank 0 does it."""


def convert_to_universal(checkpoint: Path) -> Path:
    """Write a checkpoint in universal form into a folder next to it. Collective; all ranks share the work and the disk.

    Args:
        checkpoint: The checkpoint's folder.

    Returns:
        The new folder. Those of earlier conversions are removed.

    Raises:
        CheckpointError: It cannot be converted; raised on all ranks.
    """
    universal_dir = checkpoint.with_name(f"{UNIVERSAL_PREFIX}{checkpoint.name}")
    run_on_rank_0(lambda: _prepare_disk(checkpoint))
    run_on_all_ranks(lambda: _convert(checkpoint, universal_dir))
    return universal_dir


def _prepare_disk(checkpoint: Path) -> None:
    """Remove earlier conversions; raise CheckpointError unless this one fits: fragments beside merged parameters."""
    for leftover in checkpoint.parent.glob(f"{UNIVERSAL_PREFIX}*"):
        shutil.rmtree(leftover)
    needed = 2 * sum(path.stat().st_size for path in (checkpoint / DEEPSPEED_TAG).iterdir())
    free = shutil.disk_usage(checkpoint).free
    if needed > free:
        raise CheckpointError(
            f"{checkpoint}: converting it for another number of ranks takes {needed / GIB:.3g} GiB, and"
            f" {free / GIB:.3g} GiB are free",
            hint="free as much, or run with the number of ranks that saved it",
        )


def _convert(checkpoint: Path, universal_dir: Path) -> None:
    from deepspeed.checkpoint import ds_to_universal

    arguments = Namespace(
        input_folder=str(checkpoint / DEEPSPEED_TAG),
        output_folder=str(universal_dir / DEEPSPEED_TAG),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with (
        _report_as_checkpoint_error(checkpoint),
        patch.object(ds_to_universal, "_do_parallel_work", _WorkSharer(checkpoint).run_pass),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(_ShareDone),
    ):
        ds_to_universal.main(arguments)


class _WorkSharer:
    """Takes the place of DeepSpeed's pool of processes."""

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint
        self._n_passes_done = 0

    def run_pass(self, do_work: Callable[[Any], Any], work_items: Iterable[Any], n_workers: int) -> list[Any]:
        """Do this rank's part of a pass, and return the results of all ranks. Collective.

        Raises:
            CheckpointError: Some rank failed.
        """
        # Names of parameters come as a set, which every process iterates over in another order.
        share = sorted(work_items, key=str)[dist.get_rank() :: dist.get_world_size()]

        def process_share() -> list[Any]:
            with _report_as_checkpoint_error(self._checkpoint):
                return [do_work(item) for item in share]

        results = gather_from_all_ranks(run_on_all_ranks(process_share))
        self._n_passes_done += 1
        if self._n_passes_done == N_PASSES and dist.get_rank() != 0:
            raise _ShareDone
        return [result for share_results in results for result in share_results]


@contextlib.contextmanager
def _report_as_checkpoint_error(checkpoint: Path) -> Iterator[None]:
    try:
        yield
    except (_ShareDone, CheckpointError):
        raise
    except Exception as error:  # whatever DeepSpeed raises of files that are not as it expects
        raise CheckpointError(
            f"{checkpoint} could not be converted for another number of ranks: {format_exception_line(error)}",
            hint="run with the number of ranks that saved it",
        ) from error
