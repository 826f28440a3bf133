"""Making a commit survive a power cut on a local disk, and opening a table whose newest manifest did not.

Lance makes no fsync call on local files, so a commit it has acknowledged can still be lost or torn by a power cut
(a kill of the process cannot do that). Object stores are durable when they answer; for them everything here is a no-op.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import lance

FOLDERS = ("data", "_versions", "_transactions", "_deletions")


def local_path(uri: str) -> Path | None:
    """The folder behind a local URI, or None for an object store."""
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    return None if "://" in uri else Path(uri)


class Syncer:
    """Remembers which files of one table are already on disk and fsyncs the rest."""

    def __init__(self, uri: str) -> None:
        self.root = local_path(uri)
        self._seen: set[str] = set(self._files()) if self.root else set()

    def _files(self) -> list[str]:
        assert self.root is not None
        found: list[str] = []
        for folder in FOLDERS:
            path = self.root / folder
            if path.is_dir():
                found.extend(e.path for e in os.scandir(path) if e.is_file())
        return found

    def sync(self) -> None:
        """Fsyncs every file that appeared since the last call, then the folders that hold them."""
        if self.root is None or not self.root.exists():
            return
        present = set(self._files())
        fresh = present - self._seen
        folders = {str(self.root)}
        for name in fresh:
            _fsync(name)
            folders.add(os.path.dirname(name))  # noqa: PTH120 - hot path, names are plain strings
        first = not self._seen
        for folder in folders:
            _fsync(folder)
        if first:
            _fsync(str(self.root.parent))
        self._seen = present


def _fsync(path: str) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # compaction and clean-up may remove a file between listing and opening
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_repaired(uri: str) -> tuple[lance.LanceDataset, Path | None]:
    """Opens a local table; a torn newest manifest is moved aside so that the version before it is the newest again.

    Only for the holder of the table's lease: a manifest that is being written looks torn too. Returns the dataset and
    where the torn manifest was put (None: it was healthy). Raises what Lance raises when no version opens.
    """
    root = local_path(uri)
    moved: Path | None = None
    while True:
        try:
            dataset = lance.dataset(uri)
            # All-zero bytes open without an error, as version 0 with no columns.
            if len(dataset.schema) and dataset.version > 0:
                return dataset, moved
            failure: Exception = OSError(f"{uri}: the newest manifest is empty")
        except (OSError, ValueError) as error:
            failure = error
        newest = _newest_manifest(root) if root else None
        if newest is None or not _looks_torn(newest):
            raise failure
        moved = newest.with_name(f"torn-{time.time_ns()}-{newest.name}.aside")
        newest.rename(moved)


def _newest_manifest(root: Path) -> Path | None:
    versions = root / "_versions"
    if not versions.is_dir():
        return None

    # Names are either the version or 2^64-1 minus it (so that a plain listing starts with the newest).
    def version(path: Path) -> int:
        number = int(path.stem)
        return (1 << 64) - 1 - number if number > 1 << 63 else number

    named = [p for p in versions.glob("*.manifest") if p.stem.isdigit()]
    return max(named, key=version, default=None)


def _looks_torn(manifest: Path) -> bool:
    """A whole manifest ends with the format's magic bytes; an empty or zeroed one does not."""
    with manifest.open("rb") as handle:
        size = handle.seek(0, os.SEEK_END)
        handle.seek(max(0, size - 4))
        return handle.read(4) != b"LANC"
