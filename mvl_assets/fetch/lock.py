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
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.fetch.state import to_canonical_json, write_atomic

LOCKFILE_VERSION = 1


class _StoredModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LockedFile(_StoredModel):
    """A file the source needs: its place below the folder, its path in the repository (or its address), its size in
    bytes, and what its content is called. A value nobody told is null."""

    name: str
    path: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None


class SourceDeclaration(_StoredModel):
    """What of the catalog decided the files. A lock of another declaration counts as none."""

    repo: str | None
    config: str | None
    patterns: list[str]
    url: str | None
    format: str | None


class LockedSource(_StoredModel):
    """One source at one commit; without `files` it could not be looked up, and `reason` and `hint` say why.

    `card_license` is what the repository's card says, `license` what the catalog says: they may differ, as a card of
    an aggregator does not speak for its parts. `gated` is how the repository gives access, null where all may read.
    A reason without a hint is one that no look-up mends: the files have to be supplied by hand. With files, a reason
    says why they are those of an earlier look-up, or what of the entry was not found beside them.
    """

    declaration: SourceDeclaration
    commit: str | None = None
    gated: str | None = None
    license: str | None = None
    card_license: str | None = None
    files: list[LockedFile] = []
    reason: str | None = None
    hint: str | None = None

    @property
    def total_bytes(self) -> int | None:
        """Bytes of all files; None as soon as one is unknown, or when nothing is locked."""
        sizes = [f.size for f in self.files]
        return sum(s for s in sizes if s is not None) if sizes and None not in sizes else None


class Lockfile(_StoredModel):
    """All sources that were looked up, by slug."""

    version: int = LOCKFILE_VERSION
    sources: dict[str, LockedSource] = {}

    def get_entry(self, source: SourceSpec) -> LockedSource | None:
        """The source's files as they were locked; None when they are not, or the catalog says otherwise by now."""
        entry = self.sources.get(source.slug)
        return entry if entry is not None and entry.files and entry.declaration == build_declaration(source) else None


def build_declaration(source: SourceSpec) -> SourceDeclaration:
    hub_dataset = source.hub
    return SourceDeclaration(
        repo=hub_dataset.repo if hub_dataset else None,
        config=hub_dataset.config if hub_dataset else None,
        patterns=list(hub_dataset.files) if hub_dataset else [],
        url=None if hub_dataset else source.url,
        format=source.format,
    )


def read_lockfile(path: Path | None = None) -> Lockfile:
    """The lock file, empty when there is none. Raises `MvlError` for one that is damaged or of another version."""
    path = path or load_settings().lock_file
    try:
        return _read_cached(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return Lockfile()


@lru_cache(maxsize=4)
def _read_cached(path: Path, mtime_ns: int) -> Lockfile:
    try:
        lockfile = Lockfile.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first_error = error.errors()[0]
        field_path = ".".join(str(part) for part in first_error["loc"])
        raise MvlError(
            f"{path}: {field_path}: {first_error['msg']}",
            hint="restore the file, or remove it and run `mvl sources lock`",
        ) from error
    if lockfile.version != LOCKFILE_VERSION:
        raise MvlError(
            f"{path} is of version {lockfile.version}, this program writes {LOCKFILE_VERSION}", hint="lock again"
        )
    return lockfile


def write_lockfile(lockfile: Lockfile, path: Path | None = None) -> None:
    write_atomic(path or load_settings().lock_file, to_canonical_json(lockfile.model_dump()))
