"""Where temporary files of any size go: `MVL_SCRATCH`, by default `scratch` below `MVL_HOME`.

Not the system's temporary folder: that is often a small disk or memory, and sorting a large source takes gigabytes. The
disk of `MVL_HOME` was chosen for large files. It has to be a disk of the machine, because files are locked and mapped
into memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mvl_assets.common.project_root import find_project_root
from mvl_assets.errors import InfrastructureError, MvlError

SCRATCH_HINT = "set MVL_SCRATCH to a folder on a disk of this machine with free space"


def resolve_home() -> Path:
    """Return the folder of everything that the pipeline writes on this machine: `.mvl` of the project by default."""
    return resolve_local_dir("MVL_HOME", (find_project_root() or Path.cwd()) / ".mvl")


def resolve_local_dir(variable: str, default: Path) -> Path:
    """Return the folder that a variable names.

    Raises:
        MvlError: It names an object store.
    """
    value = os.environ.get(variable) or str(default)
    if "://" in value:
        raise MvlError(
            f"{variable}={value} is not a folder of this machine",
            hint=f"set {variable} to a path; only MVL_LAKE and MVL_EXPORT may be in an object store",
        )
    return Path(value).expanduser().absolute()


def resolve_scratch_dir() -> Path:
    """Return the folder for temporary files, which need not exist. Raises as `resolve_local_dir` does."""
    return resolve_local_dir("MVL_SCRATCH", resolve_home() / "scratch")


def create_scratch_parent() -> Path:
    """Create the folder for temporary files and return it.

    Raises:
        InfrastructureError: It cannot be created.
    """
    folder = resolve_scratch_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InfrastructureError(
            f"the folder for temporary files {folder} cannot be created: {error.strerror}", hint=SCRATCH_HINT
        ) from error
    return folder


def open_scratch_file(mode: str = "w+b", encoding: str | None = None) -> IO[Any]:
    """Open an unnamed temporary file, which is gone when it is closed. Raises as `create_scratch_parent` does."""
    return tempfile.TemporaryFile(mode, encoding=encoding, dir=create_scratch_parent())


def find_filesystem_type(path: Path) -> str:
    """Return the kind of file system that a path is on or would be on, such as `ext4` or `tmpfs`; `` if unknown."""
    path = path.resolve()
    matches = [
        (len(mount_point), filesystem_type)
        for mount_point, filesystem_type in _iter_mounts()
        if path.is_relative_to(mount_point)
    ]
    return max(matches, default=(0, ""))[1]


def _iter_mounts() -> Iterator[tuple[str, str]]:
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            _, mount_point, filesystem_type, *_ = line.split(" ")
            yield mount_point.replace("\\040", " "), filesystem_type
