"""Writes the checkpoints of a run, straight into their folder or by way of a disk of each machine.

A staged checkpoint goes to the scratch folder (`MVL_SCRATCH`: a local disk, or memory), and steps wait for that only. A
thread of each machine copies its files into the checkpoint's folder while the steps go on, and rank 0 publishes the
checkpoint when all machines have done so. One checkpoint is on its way at a time: the next save waits for it.
"""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed as dist

from mvl_assets.common.atomic_write import fsync_path
from mvl_training.recipe import StageConfig
from mvl_training.trainer import checkpoint as checkpoints
from mvl_training.trainer.checkpoint import CheckpointError, CheckpointState
from mvl_training.trainer.collective import CONTROL_TIMEOUT, raise_on_all_ranks, wait_for_all_ranks

_COPIED, _FAILED = ".copied-", ".failed-"
_POLL_INTERVAL_S = 0.1


class CheckpointWriter:
    """Writes the checkpoints of a run. Its methods are collective.

    Args:
        checkpoints_dir: Folder of the run's checkpoints.
        model_dir: Config and tokenizer, copied into each.
        stage_config: Says which checkpoints stay.
        staging_dir: A folder of each machine that checkpoints go by way of; None: they are written in their folder.

    Attributes:
        write_time_s: Seconds from the beginning of the last checkpoint that is complete until it was.
    """

    def __init__(
        self, checkpoints_dir: Path, model_dir: Path, stage_config: StageConfig, staging_dir: Path | None
    ) -> None:
        self.write_time_s = 0.0
        self._checkpoints_dir, self._model_dir, self._stage_config = checkpoints_dir, model_dir, stage_config
        self._staging_dir = staging_dir
        # Its thread is waited for when the process ends, whatever ends it.
        self._executor = ThreadPoolExecutor(1, "checkpoint")
        self._is_on_its_way = False
        self._copying: Future[float] | None = None

    def save(self, engine: Any, state: CheckpointState) -> None:
        """Write a checkpoint; of a staged one, return when it lies in the staging folder.

        Args:
            engine: DeepSpeed's.
            state: Content of `state.json`; `file_sizes` is filled in.

        Raises:
            CheckpointError: It could not be written, or the one before could not be copied.
        """
        self.finish()
        started_at = time.monotonic()
        building_dir = checkpoints.create_building_dir(self._checkpoints_dir, state.step)
        if self._staging_dir is None:
            checkpoints.write_shards(engine, building_dir)
            if dist.get_rank() == 0:
                checkpoints.publish(building_dir, state, self._model_dir, self._stage_config)
            wait_for_all_ranks()
            self.write_time_s = time.monotonic() - started_at
            return
        is_machine_leader = os.environ.get("LOCAL_RANK", "0") == "0"
        if is_machine_leader:
            shutil.rmtree(self._staging_dir, ignore_errors=True)
            # DeepSpeed makes its folder on the machine of rank 0 only.
            (self._staging_dir / checkpoints.DEEPSPEED_TAG).mkdir(parents=True)
        wait_for_all_ranks()
        checkpoints.write_shards(engine, self._staging_dir)
        self._is_on_its_way = True
        if is_machine_leader:
            self._copying = self._executor.submit(
                self._copy_and_publish, self._staging_dir, building_dir, state, started_at, dist.get_rank() == 0
            )

    def finish(self) -> None:
        """Return when no checkpoint is on its way.

        Raises:
            CheckpointError: It could not be copied.
        """
        if not self._is_on_its_way:
            return
        self._is_on_its_way = False
        error = None
        if self._copying is not None:
            try:
                self.write_time_s = self._copying.result()
            except CheckpointError as copy_error:
                error = copy_error
        raise_on_all_ranks(error)

    def _copy_and_publish(
        self, staging_dir: Path, building_dir: Path, state: CheckpointState, started_at: float, is_rank_0: bool
    ) -> float:
        machine = os.environ.get("GROUP_RANK", "0")
        try:
            _copy_files(staging_dir, building_dir, machine)
        except OSError as error:
            (building_dir / f"{_FAILED}{machine}").touch()
            raise checkpoints.build_write_error(building_dir, error) from error
        (building_dir / f"{_COPIED}{machine}").touch()
        shutil.rmtree(staging_dir, ignore_errors=True)
        if is_rank_0:
            _wait_for_machines(building_dir, int(os.environ.get("GROUP_WORLD_SIZE", "1")))
            checkpoints.publish(building_dir, state, self._model_dir, self._stage_config)
        return time.monotonic() - started_at


def _copy_files(staging_dir: Path, building_dir: Path, machine: str) -> None:
    """Copy the files of this machine and bring them to the disk; one that all machines have is the same on each."""
    for source in sorted(path for path in staging_dir.rglob("*") if path.is_file()):
        target = building_dir / source.relative_to(staging_dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{machine}")
        shutil.copyfile(source, temporary)
        fsync_path(temporary)
        temporary.rename(target)


def _wait_for_machines(building_dir: Path, n_machines: int) -> None:
    """Return when all machines have copied their files; remove what they left to say so."""
    deadline = time.monotonic() + CONTROL_TIMEOUT.total_seconds()
    while len(copied := list(building_dir.glob(f"{_COPIED}*"))) < n_machines:
        if failed := list(building_dir.glob(f"{_FAILED}*")):
            raise CheckpointError(
                f"{building_dir.parent}: machine {failed[0].name.removeprefix(_FAILED)} failed to copy"
            )
        if time.monotonic() >= deadline:
            raise CheckpointError(
                f"{building_dir.parent}: only {len(copied)} of {n_machines} machines copied their files"
            )
        time.sleep(_POLL_INTERVAL_S)
    for marker in copied:
        marker.unlink()
