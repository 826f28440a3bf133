"""The lock file: which commit and which files each source is, looked up once (`mvl sources lock`).

The project ships none. It is JSON in a fixed order without dates, so that looking up an unchanged hub again gives the
same bytes and a version control system shows what changed. A source that could not be looked up stays listed with the
reason; one that was locked before keeps its files and gets the reason beside them.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.settings import settings
from mvl_assets.errors import MvlError
from mvl_assets.fetch.state import canonical, write_whole

VERSION = 1


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LockedFile(_Stored):
    """A file the source needs: its place below the folder, its path in the repository (or its address), its size in
    bytes, and what its content is called. A value nobody told is null."""

    name: str
    path: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None


class Declared(_Stored):
    """What of the catalog decided the files. A lock of another declaration counts as none."""

    repo: str | None
    config: str | None
    patterns: list[str]
    url: str | None
    format: str | None


class LockedSource(_Stored):
    """One source at one commit; without `files` it could not be looked up, and `reason` and `hint` say why.

    `card_license` is what the repository's card says, `license` what the catalog says: they may differ, as a card of
    an aggregator does not speak for its parts. `gated` is how the repository gives access, null where all may read.
    A reason without a hint is one that no look-up mends: the files have to be supplied by hand. With files, a reason
    says why they are those of an earlier look-up, or what of the entry was not found beside them.
    """

    declared: Declared
    commit: str | None = None
    gated: str | None = None
    license: str | None = None
    card_license: str | None = None
    files: list[LockedFile] = []
    reason: str | None = None
    hint: str | None = None

    @property
    def size(self) -> int | None:
        """Bytes of all files; None as soon as one is unknown, or when nothing is locked."""
        sizes = [f.size for f in self.files]
        return sum(s for s in sizes if s is not None) if sizes and None not in sizes else None


class Lock(_Stored):
    """All sources that were looked up, by slug."""

    version: int = VERSION
    sources: dict[str, LockedSource] = {}

    def of(self, source: SourceSpec) -> LockedSource | None:
        """The source's files as they were locked; None when they are not, or the catalog says otherwise by now."""
        found = self.sources.get(source.slug)
        return found if found is not None and found.files and found.declared == declared(source) else None


def declared(source: SourceSpec) -> Declared:
    hub_ = source.hub
    return Declared(
        repo=hub_.repo if hub_ else None,
        config=hub_.config if hub_ else None,
        patterns=list(hub_.files) if hub_ else [],
        url=None if hub_ else source.url,
        format=source.format,
    )


def read_lock(path: Path | None = None) -> Lock:
    """The lock file, empty when there is none. Raises `MvlError` for one that is damaged or of another version."""
    path = path or settings().lock_file
    try:
        return _read(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return Lock()


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> Lock:
    try:
        lock = Lock.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise MvlError(
            f"{path}: {place}: {first['msg']}", hint="restore the file, or remove it and run `mvl sources lock`"
        ) from error
    if lock.version != VERSION:
        raise MvlError(f"{path} is of version {lock.version}, this program writes {VERSION}", hint="lock again")
    return lock


def write_lock(lock: Lock, path: Path | None = None) -> None:
    write_whole(path or settings().lock_file, canonical(lock.model_dump()))
