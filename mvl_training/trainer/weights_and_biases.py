"""Metrics of a training in Weights & Biases, where `WANDB_PROJECT` names a project.

Everything else is set by the variables that wandb itself reads (`WANDB_MODE`, `WANDB_ENTITY`, `WANDB_API_KEY`, …).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvl_assets.common.text import format_exception_line
from mvl_assets.errors import MvlError

PROJECT_ENV = "WANDB_PROJECT"


def open_wandb_run(folder: Path, stage: str, config: Mapping[str, Any]) -> Any:
    """Start the run of a training folder, or go on with it; return None where no project is named.

    Args:
        folder: Folder of the training, whose name is the run's id: a resumed training goes on in the same run.
        stage: The training stage; runs of one stage are a group.
        config: The recipe, as plain data.

    Raises:
        MvlError: wandb is not installed, or cannot start the run.
    """
    if not os.environ.get(PROJECT_ENV):
        return None
    try:
        import wandb
    except ImportError as error:
        raise MvlError(
            f"{PROJECT_ENV} is set and wandb is missing", hint="pip install 'mvl[wandb]', or unset it"
        ) from error
    try:
        run = wandb.init(
            id=folder.name,
            name=f"{stage}-{folder.name[:8]}",
            group=stage,
            resume="allow",
            dir=folder,
            config=dict(config),
            settings=wandb.Settings(console="off", disable_git=True, save_code=False),
        )
    except wandb.Error as error:
        raise MvlError(
            f"the run cannot be started in Weights & Biases ({format_exception_line(error)})",
            hint="run `wandb login`, set WANDB_MODE=offline, or unset WANDB_PROJECT",
        ) from error
    # Steps after the checkpoint are trained again: wandb's own count of steps does not go back.
    run.define_metric("*", step_metric="step")
    return run
