"""`keep_archives: false`: fetched files go once their rows are all in the lake, and what they were is remembered.

While nothing asks for the files again (another commit in the lock, another limit, another field map), the source counts
as ingested; so its missing files are never taken for rows that are gone. Files a person put there stay.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.settings import UNPACKED_DIR
from mvl_assets.fetch.lock import read_lockfile
from mvl_assets.fetch.overview import matches_lock
from mvl_assets.fetch.progress import LogFn, format_bytes
from mvl_assets.fetch.state import FetchState, IngestRecord, load_state, save_state, source_lock


def load_removed_files_record(source: SourceSpec, config_digest: str) -> IngestRecord | None:
    """What came of the source's files when they were removed and are still not needed; else None."""
    state = load_state(source)
    if state is None or state.removed is None or state.removed.config_digest != config_digest:
        return None
    if not matches_lock(state, read_lockfile().get_entry(source)):
        return None
    _delete_files(source.root, state)
    return state.removed


def remove_files(source: SourceSpec, ingested: IngestRecord, log: LogFn) -> None:
    """Removes what was fetched, all or nothing, after `ingested` came of it. Says why when it does not."""
    with source_lock(source.slug):
        state = load_state(source)
        reason = _get_keep_reason(source.root, state)
        if state is None or reason is not None:
            log(f"{source.slug}: the files stay: {reason}")
            return
        # Remembered first: a process that is killed in between leaves files, never rows without a reason.
        state = state.model_copy(update={"removed": ingested})
        save_state(source.slug, state)
        _delete_files(source.root, state)
        total_bytes = sum(file.size for file in state.files.values())
        log(f"{source.slug}: {len(state.files)} files removed after they were ingested, {format_bytes(total_bytes)}")


def _get_keep_reason(root: Path, state: FetchState | None) -> str | None:
    if state is None or any(file.user_managed for file in state.files.values()):
        return "they were put there by hand"
    if not state.complete or not all(state.has_intact_file(root, name) for name in state.files):
        return "they are not as they were fetched"
    return None


def _delete_files(root: Path, state: FetchState) -> None:
    for name in state.files:
        if state.has_intact_file(root, name):
            (root / name).unlink()
    shutil.rmtree(root / UNPACKED_DIR, ignore_errors=True)
