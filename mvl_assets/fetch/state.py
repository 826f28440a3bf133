"""State of a source's files on this machine: one small JSON file per source in `$MVL_HOME/fetched/`.

It outlives the files: if archives are removed after they were ingested, it records what they were. Files of a source
without a state were put there by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mvl_assets.common.atomic_write import write_text_atomic
from mvl_assets.common.file_lock import try_lock
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.fetch.errors import FetchError

PARTIAL_DIR = ".fetch"
"""Folder inside a source's folder for incomplete downloads."""


class StoredModel(BaseModel):
    """Base class of models stored as JSON: unknown keys are errors, and instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StoredFile(StoredModel):
    """A file that was fetched and checked. `mtime_ns` shows whether it was changed since.

    A `user_managed` file was put there by the user and verified; it is never removed.
    """

    size: int
    sha256: str
    mtime_ns: int
    user_managed: bool = False


class IngestRecord(StoredModel):
    """Record of what was ingested before the files were removed.

    Attributes:
        config_digest: Digest of the settings that decide which rows are read and how.
        n_rows: Rows read.
        reject_counts: Rejects by class.
        n_purged: Purged samples at that time.
    """

    config_digest: str
    n_rows: int
    reject_counts: dict[str, int]
    n_purged: int = 0


class FetchState(StoredModel):
    """State of a source's fetch.

    Attributes:
        commit: Commit of the repository; None for a plain URL.
        locked: False if there was no lock, so that the repository was taken as it was on that day.
        complete: Every file has arrived.
        files: The fetched files by name.
        removed: What was ingested before the files were removed; None while they are kept.
    """

    commit: str | None
    locked: bool
    complete: bool = False
    files: dict[str, StoredFile] = {}
    removed: IngestRecord | None = None

    def has_intact_file(self, root: Path, name: str) -> bool:
        """Return whether the file is in the source's folder, unchanged since it was fetched."""
        stored = self.files.get(name)
        try:
            stat = (root / name).stat()
        except OSError:
            return False
        return stored is not None and (stat.st_size, stat.st_mtime_ns) == (stored.size, stored.mtime_ns)


def get_state_path(slug: str) -> Path:
    """Return the path of a source's state file."""
    return load_settings().home / "fetched" / f"{slug}.json"


def load_state(source: SourceSpec) -> FetchState | None:
    """Return a source's state; None if nothing was fetched here, or if the source has the user's own folder (`path:`).

    Raises:
        MvlError: The state file is damaged.
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
            hint=f"remove it and run `mvl sources fetch --source {slug}`: intact files are kept",
        ) from error


def iter_states() -> Iterator[tuple[str, FetchState]]:
    """Yield slug and state of every source that has one."""
    for path in sorted((load_settings().home / "fetched").glob("*.json")):
        state = _load_by_slug(path.stem)
        if state is not None:
            yield path.stem, state


def save_state(slug: str, state: FetchState) -> None:
    """Replace a source's state file in one step."""
    path = get_state_path(slug)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(path, state.model_dump_json(indent=1) + "\n", fsync=True)


@contextmanager
def hold_source_lock(slug: str) -> Iterator[None]:
    """Hold the lock under which one process at a time fetches a source or removes its files. Raises `FetchError`."""
    path = get_state_path(slug).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with try_lock(path) as is_held:
        if not is_held:
            raise FetchError(slug, "another process is fetching it", hint="wait for that one, then run again")
        yield
