"""Stages that stop in a worker once their shard's answers are stored, and how a test runs them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from mvl_assets.config.prompts import load_prompts
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.parts import StageReport
from mvl_assets.model_stage.sharded_run import run_table_stage
from mvl_assets.model_stage.stage import BuiltRows
from mvl_assets.rewriting.rewrite import RewriteStage
from tests.rewriting.small_source import MATH, profile


class HaltingStage(RewriteStage):
    """A stage that leaves a file when it begins to build the rows of a shard.

    Where `go` does not exist it waits for it; the first process of the shard named in `kill` is killed.
    """

    def __init__(self, lake: Lake, folder: Path, **arguments: Any) -> None:
        super().__init__(lake, MATH, **arguments)
        self._folder = folder

    def build_rows(self, subject: Any, resolutions: Sequence[Any]) -> BuiltRows:
        mark = self._folder / f"{self.shard_name}.{os.getpid()}"
        if not mark.exists():
            mark.touch()
            kill = self._folder / "kill"
            if kill.exists() and kill.read_text() == self.shard_name:
                kill.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            while not (self._folder / "go").exists():
                time.sleep(0.05)
        return super().build_rows(subject, resolutions)

    def iter_marks(self) -> Iterator[Path]:
        return self._folder.glob("[01]*.*")


def run_halting(lake: Lake, folder: Path, endpoint: Endpoint, **executor: Any) -> StageReport:
    config = profile(**executor)
    build_stage = partial(
        HaltingStage, folder=folder, profile=config, prompts=load_prompts(), run_id="r", endpoints=[endpoint]
    )
    return run_table_stage(lake, build_stage, config.executor)


def read_table(lake: Lake, name: str, dropped: Sequence[str] = ("run_id",)) -> pa.Table:
    """Return a table in the order of its rows' content."""
    table = pa.Table.from_pylist(list(lake.get_table(name).iter_rows()), lake.get_table(name).schema)
    return table.drop_columns(list(dropped)).sort_by("row_hash")
