"""What is known of a source's files on this machine: one small JSON file a source in `$MVL_HOME/fetched/`.

It outlives the files: when archives are removed after they were ingested, it says what they were. A source without
one was put there by hand, or is not there.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.fetch.errors import FetchError

PARTIAL_DIR = ".fetch"
"""Folder inside a source's folder for what has not arrived whole."""


class _StoredModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StoredFile(_StoredModel):
    """A file that was fetched and checked. `mtime_ns` tells whether somebody changed it since.

    `user_managed` was put there by a person and found right; it is never removed.
    """

    size: int
    sha256: str
    mtime_ns: int
    user_managed: bool = False


class IngestRecord(_StoredModel):
    """What came of the files before they were removed: rows looked at, rejects by class, and what decided both.
    `n_purged` counts the samples that were not wanted then."""

    config_digest: str
    n_rows: int
    reject_counts: dict[str, int]
    n_purged: int = 0


class FetchState(_StoredModel):
    """`complete` when every file of the commit is there; `removed` says what was ingested before the files went.

    `locked` is false when there was no lock and the repository was taken as it was that day.
    """

    commit: str | None
    locked: bool
    complete: bool = False
    files: dict[str, StoredFile] = {}
    removed: IngestRecord | None = None

    def has_intact_file(self, root: Path, name: str) -> bool:
        """Whether the file lies in the source's folder as it was fetched."""
        stored = self.files.get(name)
        try:
            stat = (root / name).stat()
        except OSError:
            return False
        return stored is not None and (stat.st_size, stat.st_mtime_ns) == (stored.size, stored.mtime_ns)


def get_state_path(slug: str) -> Path:
    return load_settings().home / "fetched" / f"{slug}.json"


def load_state(source: SourceSpec) -> FetchState | None:
    """None when nothing was fetched here, or the source now has a folder of a person's own (`path:`).

    Raises `MvlError` for a file that somebody damaged.
    """
    return _load_by_slug(source.slug) if source.path is None else None


def _load_by_slug(slug: str) -> FetchState | None:
    path = get_state_path(slug)
    try:
        return FetchState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise MvlError(
            f"{path} is not a fetch state: {error.errors()[0]['msg']}",
            hint=f"remove it and run `mvl sources fetch --source {slug}`: files that are right are kept",
        ) from error


def iter_states() -> Iterator[tuple[str, FetchState]]:
    """The states of all sources, by slug."""
    for path in sorted((load_settings().home / "fetched").glob("*.json")):
        state = _load_by_slug(path.stem)
        if state is not None:
            yield path.stem, state


def save_state(slug: str, state: FetchState) -> None:
    write_atomic(get_state_path(slug), state.model_dump_json(indent=1))


def write_atomic(path: Path, text: str) -> None:
    """Replaces a small file in one step, so that a killed process leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp_path = path.with_name(f".{path.name}.{os.getpid()}")
    with temp_path.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temp_path.replace(path)


@contextmanager
def source_lock(slug: str) -> Iterator[None]:
    """One process at a time fetches a source or removes its files; the kernel gives way when that process ends."""
    path = get_state_path(slug).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FetchError(slug, "another process is fetching it", hint="wait for that one, then run again") from None
        yield


def to_canonical_json(value: object) -> str:
    """JSON with keys in order, so that equal things are equal files."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
