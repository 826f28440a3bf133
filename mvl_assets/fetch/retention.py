"""Removing fetched files once all their rows are in the lake (`keep_archives: false`), with a record of what they were.

Unless something needs the files again (another commit in the lock, another limit, another field map), the source counts
as ingested, so its missing files are not mistaken for rows that are gone. Files that the user put there stay.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.settings import resolve_unpacked_dir
from mvl_assets.fetch.lock import read_lockfile
from mvl_assets.fetch.overview import matches_lock
from mvl_assets.fetch.progress import LogFn, format_bytes
from mvl_assets.fetch.state import FetchState, IngestRecord, hold_source_lock, load_state, save_state


def load_removed_files_record(source: SourceSpec, config_digest: str) -> IngestRecord | None:
    """Return what was ingested before the source's files were removed; None if the files are there or needed again."""
    state = load_state(source)
    if state is None or state.removed is None or state.removed.config_digest != config_digest:
        return None
    if not matches_lock(state, read_lockfile().get_entry(source)):
        return None
    _delete_files(source.root, state)
    return state.removed


def remove_files(source: SourceSpec, ingested: IngestRecord, log: LogFn) -> None:
    """Remove all fetched files, or none and log why; `ingested` records what was read from them."""
    with hold_source_lock(source.slug):
        state = load_state(source)
        reason = _get_keep_reason(source.root, state)
        if state is None or reason is not None:
            log(f"{source.slug}: the files stay: {reason}")
            return
        # The record comes first: a process killed in between leaves files, never a source that looks incomplete.
        state = state.model_copy(update={"removed": ingested})
        save_state(source.slug, state)
        _delete_files(source.root, state)
        total_bytes = sum(file.size for file in state.files.values())
        log(f"{source.slug}: {len(state.files)} files removed after they were ingested, {format_bytes(total_bytes)}")


def _get_keep_reason(root: Path, state: FetchState | None) -> str | None:
    if state is None or any(file.user_managed for file in state.files.values()):
        return "they were put there by hand"
    if not state.complete or not all(state.has_intact_file(root, name) for name in state.files):
        return "they have changed since they were fetched"
    return None


def _delete_files(root: Path, state: FetchState) -> None:
    for name in state.files:
        if state.has_intact_file(root, name):
            (root / name).unlink()
    shutil.rmtree(resolve_unpacked_dir(root), ignore_errors=True)
