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
from mvl_assets.config.settings import settings
from mvl_assets.errors import MvlError
from mvl_assets.fetch.errors import FetchError

PARTS = ".fetch"
"""Folder inside a source's folder for what has not arrived whole."""


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StoredFile(_Stored):
    """A file that was fetched and checked. `mtime_ns` tells whether somebody changed it since.

    `by_hand` was put there by a person and found right; it is never removed.
    """

    size: int
    sha256: str
    mtime_ns: int
    by_hand: bool = False


class Ingested(_Stored):
    """What came of the files before they were removed: rows looked at, rejects by class, and what decided both.
    `purged` counts the samples that were not wanted then."""

    made_with: str
    rows: int
    rejects: dict[str, int]
    purged: int = 0


class FetchState(_Stored):
    """`complete` when every file of the commit is there; `removed` says what was ingested before the files went.

    `locked` is false when there was no lock and the repository was taken as it was that day.
    """

    commit: str | None
    locked: bool
    complete: bool = False
    files: dict[str, StoredFile] = {}
    removed: Ingested | None = None

    def has(self, root: Path, name: str) -> bool:
        """Whether the file lies in the source's folder as it was fetched."""
        known = self.files.get(name)
        try:
            found = (root / name).stat()
        except OSError:
            return False
        return known is not None and (found.st_size, found.st_mtime_ns) == (known.size, known.mtime_ns)


def state_path(slug: str) -> Path:
    return settings().home / "fetched" / f"{slug}.json"


def load_state(source: SourceSpec) -> FetchState | None:
    """None when nothing was fetched here, or the source now has a folder of a person's own (`path:`).

    Raises `MvlError` for a file that somebody damaged.
    """
    return _load(source.slug) if source.path is None else None


def _load(slug: str) -> FetchState | None:
    path = state_path(slug)
    try:
        return FetchState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise MvlError(
            f"{path} is not a fetch state: {error.errors()[0]['msg']}",
            hint=f"remove it and run `mvl sources fetch --source {slug}`: files that are right are kept",
        ) from error


def all_states() -> Iterator[tuple[str, FetchState]]:
    """The states of all sources, by slug."""
    for path in sorted((settings().home / "fetched").glob("*.json")):
        state = _load(path.stem)
        if state is not None:
            yield path.stem, state


def save_state(slug: str, state: FetchState) -> None:
    write_whole(state_path(slug), state.model_dump_json(indent=1))


def write_whole(path: Path, text: str) -> None:
    """Replaces a small file in one step, so that a killed process leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


@contextmanager
def alone(slug: str) -> Iterator[None]:
    """One process at a time fetches a source or removes its files; the kernel gives way when that process ends."""
    path = state_path(slug).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FetchError(slug, "another process is fetching it", hint="wait for that one, then run again") from None
        yield


def canonical(value: object) -> str:
    """JSON with keys in order, so that equal things are equal files."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
