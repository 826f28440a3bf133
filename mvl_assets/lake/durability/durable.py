"""Making commits survive a power cut on a local disk, and repairing a table whose newest version did not.

Lance does not call fsync on local files, so a commit that it has acknowledged can still be lost or torn by a power cut
(a kill of the process cannot do that). An object store is durable once it answers; for it the functions here do
nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import lance
import pyarrow.fs as pafs

from mvl_assets.common.file_lock import hold_lock
from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.storage import open_filesystem, resolve_local_path

DATA_DIR = "data"
LANCE_DIRS = (DATA_DIR, "_versions", "_transactions", "_deletions")
LANCE_MAGIC = b"LANC"
# Only files of the last few versions can be torn: everything older was fsynced before it was built upon.
MAX_UNSYNCED_VERSIONS = 8


class Fsyncer:
    """Fsyncs the files of one table, each once.

    At first no file counts as synced: a killed process may have left a commit that was never fsynced, and what is built
    on that commit is only as durable as it is.
    """

    def __init__(self, uri: str) -> None:
        self.root = resolve_local_path(uri)
        self._synced_paths: dict[str, set[str]] = {}

    def sync(self, *, has_new_data: bool = True) -> None:
        """Fsync all files that are new since the last call, then their folders.

        Args:
            has_new_data: False if data files that are new were fsynced before they were committed. Then their folder,
                which holds all files of the table, is listed by the first call alone.
        """
        if self.root is None or not self.root.exists():
            return
        is_first = not self._synced_paths
        for dir_name in LANCE_DIRS:
            if dir_name == DATA_DIR and not has_new_data and not is_first:
                continue
            folder = self.root / dir_name
            entries = list(os.scandir(folder)) if folder.is_dir() else []
            new_entries = [e for e in entries if e.path not in self._synced_paths.get(dir_name, ())]
            for entry in new_entries:
                if entry.is_dir():  # large blobs of a data file are stored in a folder of their own
                    for inner_entry in os.scandir(entry.path):
                        _fsync(inner_entry.path)
                _fsync(entry.path)
            if new_entries:
                _fsync(str(folder))
            self._synced_paths[dir_name] = {e.path for e in entries}
        _fsync(str(self.root))
        if is_first:
            for parent in list(self.root.parents)[:3]:
                _fsync(str(parent))


def fsync_data_files(uri: str, files: Iterable[str]) -> None:
    """Fsync data files, relative to the table's `data` folder, with their large blobs, before a commit names them."""
    root = resolve_local_path(uri)
    if root is None:
        return
    for file in files:
        path = root / DATA_DIR / file
        blob_dir = path.with_suffix("")
        if blob_dir.is_dir():
            for entry in os.scandir(blob_dir):
                _fsync(entry.path)
            _fsync(str(blob_dir))
        _fsync(str(path))
    _fsync(str(root / DATA_DIR))


def remove_data_files(uri: str, files: Iterable[str]) -> None:
    """Remove data files that no version refers to, with their large blobs."""
    filesystem, root = open_filesystem(uri)
    for file in files:
        blob_dir = f"{root}/{DATA_DIR}/{file.removesuffix('.lance')}"
        if filesystem.get_file_info(blob_dir).type == pafs.FileType.Directory:
            filesystem.delete_dir(blob_dir)
        filesystem.delete_file(f"{root}/{DATA_DIR}/{file}")


def _fsync(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):  # removed since it was listed; a parent of another user
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def repair(root: Path) -> Path | None:
    """Move torn newest manifests of a local table aside, so that the version before them is the newest again.

    A manifest is torn if it, or a data file that its version added, does not end with Lance's magic bytes. A power cut
    does that to commits that were not fsynced yet, and those were never acknowledged. Lance links a manifest to its
    name only when it is complete, so one that is being written is never taken for torn.

    Returns:
        The new path of the last manifest that was moved; None if the table is healthy.

    Raises:
        LakeError: The table is damaged in another way.
    """
    aside_path: Path | None = None
    # Without the lock one process could move aside what another has just written in place of a torn manifest.
    with hold_lock(root.with_suffix(".repair")):
        while manifests := _list_manifests(root):
            newest = manifests[0]
            if not _is_torn_file(newest) and not _adds_torn_data(root, manifests):
                break
            aside_path = newest.with_name(f"torn-{time.time_ns()}-{newest.name}.aside")
            newest.rename(aside_path)
    return aside_path


def has_torn_manifest(root: Path) -> bool:
    """Return whether the newest manifest of a local table is torn."""
    manifests = _list_manifests(root)
    return bool(manifests) and _is_torn_file(manifests[0])


def _list_manifests(root: Path) -> list[Path]:
    """List the manifests of a table, newest first."""
    manifests = [p for p in (root / "_versions").glob("*.manifest") if p.stem.isdigit()]
    return sorted(manifests, key=_parse_version, reverse=True)


def _parse_version(manifest: Path) -> int:
    """Read the version from a name, which is the version or 2^64-1 minus it, so that listings start with the newest."""
    number = int(manifest.stem)
    return (1 << 64) - 1 - number if number > 1 << 63 else number


def _adds_torn_data(root: Path, manifests: list[Path]) -> bool:
    intact_manifests = list(islice((m for m in manifests[1:] if not _is_torn_file(m)), MAX_UNSYNCED_VERSIONS))
    earlier_files = _list_data_files(root, intact_manifests[-1]) if intact_manifests else set()
    new_files = sorted(_list_data_files(root, manifests[0]) - earlier_files)
    torn_files = [name for name in new_files if _is_torn_file(root / DATA_DIR / name)]
    if torn_files and not intact_manifests:
        raise LakeError(f"{root}: {torn_files[0]} is damaged and there is no earlier version", hint="restore the table")
    return bool(torn_files)


def _list_data_files(root: Path, manifest: Path) -> set[str]:
    dataset = lance.dataset(str(root), version=_parse_version(manifest))
    return {file.path for fragment in dataset.get_fragments() for file in fragment.data_files()}


def _is_torn_file(path: Path) -> bool:
    """Return whether a file lacks Lance's magic bytes at its end, as a missing, empty or zeroed one does."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(LANCE_MAGIC)))
            return file.read(len(LANCE_MAGIC)) != LANCE_MAGIC
    except FileNotFoundError:
        return True
