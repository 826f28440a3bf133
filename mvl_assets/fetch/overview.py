"""The state of a source's files, as one word and as a sentence, for lists and for the asset graph."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from mvl_assets.config.catalog import SourceSpec, load_full_catalog
from mvl_assets.config.settings import UNPACKED_DIR
from mvl_assets.fetch.lock import LockedSource, Lockfile
from mvl_assets.fetch.rules import format_manual_instructions
from mvl_assets.fetch.state import PARTIAL_DIR, FetchState, load_state

SourceState = Literal["declared", "unverified", "locked", "fetching", "fetched", "local", "removed"]


def compute_source_state(source: SourceSpec, entry: LockedSource | None, state: FetchState | None) -> SourceState:
    """Return the state of a source's files.

    `declared`: no public home is known. `unverified`: one is declared but was not looked up. `locked`: looked up.
    `fetching`: started and not finished. `fetched`: complete. `local`: put there by hand. `removed`: ingested, and the
    archives removed afterwards.
    """
    if state is not None and state.removed is not None:
        return "removed"
    present = [state.has_intact_file(source.root, name) for name in state.files] if state is not None else []
    if state is not None and any(present):
        return "fetched" if state.complete and all(present) else "fetching"
    # A file is renamed before the state records it, so a fetch that was just killed may have files it does not record.
    is_unfinished = state is not None and not state.complete
    if has_files(source.root):
        return "fetching" if is_unfinished else "local"
    if entry is not None:
        return "fetching" if is_unfinished else "locked"
    return "unverified" if is_fetchable(source) else "declared"


def describe_state(source: SourceSpec, lockfile: Lockfile, state: FetchState | None = None) -> str:
    """Return the state as a sentence, with the commit, the reason and what to do."""
    entry, state = lockfile.get_entry(source), state or load_state(source)
    source_state = compute_source_state(source, entry, state)
    if source_state == "removed":
        return f"ingested, archives removed{_format_commit(state)}"
    if source_state == "fetched":
        return f"fetched{_format_commit(state)}"
    if source_state == "fetching":
        return f"fetching{_format_commit(state)}, not finished: `mvl sources fetch --source {source.slug}` resumes it"
    if source_state == "local":
        return f"files in {source.root} that were not fetched by `mvl`"
    if source_state == "locked" and entry is not None:
        gated = ", gated: accept its terms on the hub and set HF_TOKEN" if entry.gated else ""
        commit_suffix = f" at {entry.commit[:12]}" if entry.commit else ""
        reason_suffix = f"; {entry.reason}" if entry.reason else ""
        return f"locked{commit_suffix}{gated}, not fetched{reason_suffix}"
    lockfile_entry = lockfile.sources.get(source.slug)
    if lockfile_entry is not None and lockfile_entry.reason is not None:
        return f"{source_state}: {lockfile_entry.reason}; {lockfile_entry.hint or format_manual_instructions(source)}"
    if source_state == "unverified":
        return "unverified: `mvl sources lock` has not looked it up"
    home_note = "no public home is known" if source.path is None else "its `path:` names a folder without files"
    return f"declared: {home_note}; {format_manual_instructions(source)}"


def is_fetchable(source: SourceSpec) -> bool:
    """Return whether the catalog declares where to fetch it from."""
    return source.path is None and (source.hub is not None or source.url is not None)


def format_missing_hint(source: SourceSpec) -> str:
    """Return what to do about a source without files: draw some, fetch them, or put them there."""
    hints = [format_manual_instructions(source)]
    # A URL that names no file is that of the source's page, from which a person has to get the files.
    if is_fetchable(source) and (source.hub is not None or PurePosixPath(urlsplit(source.url or "").path).suffix):
        hints.insert(0, f"`mvl sources fetch --source {source.slug}` fetches them")
    if source.slug not in load_full_catalog().own_files:
        hints.insert(0, f"`mvl demo-data --source {source.slug}` draws some")
    return "; or ".join(hints)


def get_missing_reason(source: SourceSpec) -> str | None:
    """Return why the source's folder is incomplete or modified; None if it is intact or managed by the user."""
    state = load_state(source)
    if state is None:
        return None if has_files(source.root) else "its files are missing"
    if state.removed is not None:
        return "its archives were removed after they were ingested"
    if not state.complete:
        return "its fetch is not finished"
    missing_name = next((name for name in state.files if not state.has_intact_file(source.root, name)), None)
    return None if missing_name is None else f"{missing_name} is gone or was changed since it was fetched"


def matches_lock(state: FetchState, entry: LockedSource | None) -> bool:
    """Return whether the fetched files are those of the lock; without a lock any files match."""
    if entry is None:
        return True
    return state.commit == entry.commit and state.files.keys() == {file.name for file in entry.files}


def list_files(root: Path) -> list[str]:
    """Return the names of all files below a source's folder, in order.

    Incomplete downloads and unpacked archives are left out.
    """
    return sorted(_iter_files(root))


def has_files(root: Path) -> bool:
    """Return whether the folder has any file that `list_files` would list."""
    return next(_iter_files(root), None) is not None


def measure_folder(root: Path) -> tuple[int, int]:
    """Return the number and the bytes of the files below a folder."""
    sizes = [(root / name).stat().st_size for name in list_files(root) if (root / name).exists()]
    return len(sizes), sum(sizes)


def _iter_files(root: Path) -> Iterator[str]:
    for folder, subfolders, names in os.walk(root):
        if Path(folder) == root:
            subfolders[:] = [name for name in subfolders if name not in (PARTIAL_DIR, UNPACKED_DIR)]
        for name in names:
            yield (Path(folder) / name).relative_to(root).as_posix()


def _format_commit(state: FetchState | None) -> str:
    if state is None or state.commit is None:
        return ""
    return f" at {state.commit[:12]}" + ("" if state.locked else " (unverified: there was no lock)")
