"""Launcher resource: runs a command as a supervised process group in a Dagster step, with a Pipes session.

`dg.PipesSubprocessClient` interrupts its direct child only and never escalates, which leaves torchrun's workers running
after a cancel. Here a cancel stops every process that was started, and a group orphaned by a kill -9 of the run worker
is stopped by the next start in the same run folder.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import dagster as dg

from mvl_assets.common.installation import require_training_packages
from mvl_training.runs.process_group import run_process_group
from mvl_training.trainer.run_files import read_save_grace_s


class Launcher(dg.ConfigurableResource):
    """Starts the processes of this code location, the only ones that import torch."""

    grace_s: float = float(read_save_grace_s())
    """How long a process may take to save its state after SIGINT, and again after SIGTERM, before it is killed."""

    def run(
        self,
        context: dg.AssetExecutionContext,
        command: Sequence[str],
        *,
        run_dir: Path,
    ) -> None:
        """Run a command to its end.

        Its Pipes log lines appear in the event log at once, its stdout and stderr in the step's compute log. Results
        are files that the command writes, not Pipes messages, so that a later run finds them without running it again.

        Args:
            context: Context of the step.
            command: Program and arguments.
            run_dir: Folder of the run; gets the log.

        Raises:
            CommandFailed: The command ended with an error.
            FolderBusy: Another run uses the folder.
            MvlError: A package that training needs is not installed.
        """
        require_training_packages()
        pipes_session = dg.open_pipes_session(
            context=context,
            context_injector=dg.PipesTempFileContextInjector(),
            message_reader=dg.PipesTempFileMessageReader(),
        )
        with ExitStack() as stack:
            with warnings.catch_warnings():
                # Dagster warns of a preview feature that its own Pipes reader uses.
                warnings.simplefilter("ignore", dg.PreviewWarning)
                session = stack.enter_context(pipes_session)
            run_process_group(
                command,
                run_dir=run_dir,
                env={**build_openmp_env(), **session.get_bootstrap_env_vars()},
                on_output=_write_stdout,
                grace_s=self.grace_s,
            )


def build_openmp_env() -> dict[str, str]:
    """Return environment variables that make waiting OpenMP threads sleep, except those that the user has set.

    Spinning threads starve a model server on the same processors.
    """
    return {k: v for k, v in {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}.items() if k not in os.environ}


def _write_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
