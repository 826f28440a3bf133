"""A small file system of a command's own."""

from __future__ import annotations

from pathlib import Path

SMALL_DISK = ("unshare", "--map-root-user", "--mount", "sh", "-c")


def small_disk(folder: Path) -> tuple[str, ...]:
    """The start of a command that runs with a file system of two megabytes at `folder`, its own."""
    return (*SMALL_DISK, 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"', str(folder))
