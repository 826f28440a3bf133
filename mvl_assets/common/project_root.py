"""The project that a command works on: the nearest folder, from the current one upwards, that holds `mvl.yaml`."""

from __future__ import annotations

import os
from pathlib import Path

from mvl_assets.errors import MvlError

PROJECT_FILE = "mvl.yaml"
"""The file that marks a project and holds its settings (`config/project.py`)."""

INIT_HINT = "go to your project's folder, or make one: `mvl init my-lake`"


def find_project_root() -> Path | None:
    """Return the folder of the project: `MVL_PROJECT`, or the nearest folder upwards with a `mvl.yaml`; None without.

    Raises:
        MvlError: `MVL_PROJECT` names a folder that is no project.
    """
    if named_folder := os.environ.get("MVL_PROJECT"):
        folder = Path(named_folder)
        if not folder.is_absolute():
            folder = folder.expanduser().absolute()
        if not (folder / PROJECT_FILE).is_file():
            raise MvlError(f"MVL_PROJECT={folder} is no project: it has no {PROJECT_FILE}", hint=INIT_HINT)
        return folder
    current_folder = Path.cwd()
    return next(
        (folder for folder in (current_folder, *current_folder.parents) if (folder / PROJECT_FILE).is_file()), None
    )


def require_project() -> None:
    """Raise `MvlError` where there is neither a project nor a `MVL_HOME`: nothing may be made in a folder by chance."""
    if not os.environ.get("MVL_HOME") and find_project_root() is None:
        raise MvlError(f"no mvl project: there is no {PROJECT_FILE} in {Path.cwd()} or above it", hint=INIT_HINT)
