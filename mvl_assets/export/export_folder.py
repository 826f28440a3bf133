"""The folder that exports are written to, on a disk or in an object store. A file is there complete or not at all.

On a disk a file is renamed to its name when it is complete. For a store it is written to the scratch folder first and
then sent in one call, which nothing but the end of the process interrupts; a store shows an object when all of it has
arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

import pyarrow.fs as pafs

from mvl_assets.common.atomic_write import replace_file, write_bytes_atomic
from mvl_assets.lake.durability.scratch import create_scratch_dir
from mvl_assets.lake.errors import translate_store_errors
from mvl_assets.lake.storage import open_filesystem, resolve_local_path


class ExportFolder:
    """A folder of exports. Names of files are relative to it, with slashes. Can be pickled."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self.local_path = resolve_local_path(self.uri)
        self._filesystem, self._path = open_filesystem(self.uri)
        self._known_names: dict[str, set[str]] = {}

    def __reduce__(self) -> tuple[type[ExportFolder], tuple[str]]:
        return ExportFolder, (self.uri,)

    def __str__(self) -> str:
        return self.uri

    def join(self, name: str) -> ExportFolder:
        """Return a folder inside this one."""
        return ExportFolder(f"{self.uri}/{name}")

    @contextmanager
    def write_file(self, name: str) -> Iterator[Path]:
        """Yield a path to write to. Its file is there as `name` if the block ends without an error."""
        if self.local_path is not None:
            path = self.local_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with replace_file(path, fsync=True, unique=False) as temp_path:
                yield temp_path
        else:
            with create_scratch_dir("export") as scratch_dir:
                temp_path = scratch_dir / "file"
                yield temp_path
                self._send(temp_path, name)

    def write_images(self, images: Iterable[tuple[str, bytes]]) -> None:
        """Write many small files, given as name and content; those of one call go to a store together."""
        if self.local_path is not None:
            for name, data in images:
                path = self.local_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes_atomic(path, data, unique=False)
            return
        names = []
        with create_scratch_dir("export") as scratch_dir:
            for name, data in images:
                path = scratch_dir / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                names.append(name)
            if names:
                self._send(scratch_dir, "")
        for name in names:
            parent, _, file_name = name.rpartition("/")
            self._list_known(parent).add(file_name)

    def find_missing(self, names: Iterable[str]) -> set[str]:
        """Return those of the files that are not there. Each folder of a store is listed once."""
        if self.local_path is not None:
            return {name for name in names if not (self.local_path / name).exists()}
        parts = ((name, *name.rpartition("/")) for name in names)
        return {name for name, parent, _, file_name in parts if file_name not in self._list_known(parent)}

    def list_files(self, name: str = "") -> Iterator[str]:
        """Yield the names of all files below the folder, or below one inside it, folder by folder."""
        with translate_store_errors(self.uri):
            selector = pafs.FileSelector(self._resolve(name), allow_not_found=True)
            entries = sorted(self._filesystem.get_file_info(selector), key=lambda entry: entry.base_name)
        for entry in entries:
            entry_name = f"{name}/{entry.base_name}" if name else entry.base_name
            if entry.type == pafs.FileType.Directory:
                yield from self.list_files(entry_name)
            elif entry.type == pafs.FileType.File:
                yield entry_name

    def matches_any(self, pattern: str) -> bool:
        """Return whether there is a file of this name; with a star in its last part, a file beside which it fits.

        `<folder>/**` fits any file below the folder.
        """
        if "*" not in pattern:
            return not self.find_missing([pattern])
        if pattern.endswith("/**"):
            return any(True for _ in self.list_files(pattern.removesuffix("/**")))
        return any(PurePosixPath(name).match(pattern) for name in self.list_files(pattern.rpartition("/")[0]))

    def measure_folder(self, name: str) -> int:
        """Return the bytes of all files below a folder inside this one."""
        with translate_store_errors(self.uri):
            selector = pafs.FileSelector(self._resolve(name), allow_not_found=True, recursive=True)
            return sum(entry.size or 0 for entry in self._filesystem.get_file_info(selector))

    @contextmanager
    def open_file(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file to read it."""
        with translate_store_errors(self.uri), self._filesystem.open_input_file(self._resolve(name)) as file:
            yield file

    def delete_file(self, name: str) -> None:
        """Delete a file; that it is gone already is fine."""
        with translate_store_errors(self.uri):
            if self._filesystem.get_file_info(self._resolve(name)).type == pafs.FileType.File:
                self._filesystem.delete_file(self._resolve(name))

    def delete_folder(self, name: str) -> None:
        """Delete a folder inside this one, if it is there."""
        with translate_store_errors(self.uri):
            if self._filesystem.get_file_info(self._resolve(name)).type == pafs.FileType.Directory:
                self._filesystem.delete_dir(self._resolve(name))

    def _send(self, source: Path, name: str) -> None:
        with translate_store_errors(self.uri):
            pafs.copy_files(
                str(source),
                self._resolve(name),
                source_filesystem=pafs.LocalFileSystem(),
                destination_filesystem=self._filesystem,
            )

    def _resolve(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path

    def _list_known(self, parent: str) -> set[str]:
        names = self._known_names.get(parent)
        if names is None:
            with translate_store_errors(self.uri):
                selector = pafs.FileSelector(self._resolve(parent), allow_not_found=True)
                names = {entry.base_name for entry in self._filesystem.get_file_info(selector)}
            self._known_names[parent] = names
        return names
