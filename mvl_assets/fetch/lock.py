"""The lock file: the commit and the files of each source, as looked up by `mvl sources lock`.

The project does not ship one. It is JSON in a fixed order without dates, so that looking up an unchanged hub again
gives the same bytes and version control shows what changed. A source that could not be looked up is listed with the
reason; one that was locked before keeps its files and gets the reason in addition.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from pydantic import Field, ValidationError

from mvl_assets.common.atomic_write import write_text_atomic
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.fetch.state import StoredModel

LOCKFILE_VERSION = 1


class LockedFile(StoredModel):
    """A file that the source needs; null where the repository gives no value.

    Attributes:
        name: Path below the source's folder.
        path: Path in the repository, or the URL.
        size: Bytes.
        sha256: Checksum of a file in large-file storage.
        git_sha1: Git's object id of a small file.
    """

    name: str
    path: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None


class SourceDeclaration(StoredModel):
    """The part of a catalog entry that decides the files. A lock of another declaration is ignored."""

    repo: str | None
    config: str | None
    patterns: list[str]
    url: str | None
    format: str | None


class LockedSource(StoredModel):
    """One source at one commit; without `files` it could not be looked up, and `reason` and `hint` say why.

    A reason without a hint means that looking up again will not help: the files must be supplied by hand. Where there
    are files, the reason says why they are from an earlier look-up, or which part of the entry was not found.

    Attributes:
        declaration: What the catalog said.
        commit: Commit of the repository; None for a plain URL.
        gated: How the repository gives access; None if everyone may read.
        license: The catalog's licence.
        card_license: The licence on the repository's card, which need not be that of the source: an aggregator's card
            does not speak for its parts.
        files: The files to fetch.
        reason: What went wrong.
        hint: What to do.
    """

    declaration: SourceDeclaration
    commit: str | None = None
    gated: str | None = None
    license: str | None = None
    card_license: str | None = None
    files: list[LockedFile] = Field(default_factory=list)
    reason: str | None = None
    hint: str | None = None

    @property
    def total_bytes(self) -> int | None:
        """Bytes of all files; None if any is unknown or nothing is locked."""
        sizes = [f.size for f in self.files]
        return sum(s for s in sizes if s is not None) if sizes and None not in sizes else None


class Lockfile(StoredModel):
    """All sources that were looked up, by slug."""

    version: int = LOCKFILE_VERSION
    sources: dict[str, LockedSource] = Field(default_factory=dict)

    def get_entry(self, source: SourceSpec) -> LockedSource | None:
        """Return the source's entry; None without files, or if the catalog declares something else by now."""
        entry = self.sources.get(source.slug)
        return entry if entry is not None and entry.files and entry.declaration == build_declaration(source) else None


def build_declaration(source: SourceSpec) -> SourceDeclaration:
    """Return the part of a catalog entry that decides the files."""
    hub_dataset = source.hub
    return SourceDeclaration(
        repo=hub_dataset.repo if hub_dataset else None,
        config=hub_dataset.config if hub_dataset else None,
        patterns=list(hub_dataset.files) if hub_dataset else [],
        url=None if hub_dataset else source.url,
        format=source.format,
    )


def read_lockfile(path: Path | None = None) -> Lockfile:
    """Return the lock file, empty if there is none. Raises `MvlError` if it is damaged or of another version."""
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
            f"{path} has version {lockfile.version}, this program needs {LOCKFILE_VERSION}",
            hint="run `mvl sources lock`",
        )
    return lockfile


def write_lockfile(lockfile: Lockfile, path: Path | None = None) -> None:
    """Replace the lock file in one step; equal locks are equal bytes."""
    path = path or load_settings().lock_file
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(lockfile.model_dump(), indent=1, sort_keys=True, ensure_ascii=False)
    write_text_atomic(path, text + "\n", fsync=True)
