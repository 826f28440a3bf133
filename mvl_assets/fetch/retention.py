"""`keep_archives: false`: fetched files go once their rows are all in the lake, and what they were is remembered.

While nothing asks for the files again (another commit in the lock, another limit, another field map), the source counts
as ingested; so its missing files are never taken for rows that are gone. Files a person put there stay.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.settings import UNPACKED
from mvl_assets.fetch.lock import read_lock
from mvl_assets.fetch.overview import agrees
from mvl_assets.fetch.progress import Say, size_text
from mvl_assets.fetch.state import FetchState, Ingested, alone, load_state, save_state


def remembered(source: SourceSpec, made_with: str) -> Ingested | None:
    """What came of the source's files when they were removed and are still not needed; else None."""
    state = load_state(source)
    if state is None or state.removed is None or state.removed.made_with != made_with:
        return None
    if not agrees(state, read_lock().of(source)):
        return None
    _sweep(source.root, state)
    return state.removed


def remove_archives(source: SourceSpec, ingested: Ingested, say: Say) -> None:
    """Removes what was fetched, all or nothing, after `ingested` came of it. Says why when it does not."""
    with alone(source.slug):
        state = load_state(source)
        reason = _why_not(source.root, state)
        if state is None or reason is not None:
            say(f"{source.slug}: the files stay: {reason}")
            return
        # Remembered first: a process that is killed in between leaves files, never rows without a reason.
        state = state.model_copy(update={"removed": ingested})
        save_state(source.slug, state)
        _sweep(source.root, state)
        total = sum(file.size for file in state.files.values())
        say(f"{source.slug}: {len(state.files)} files removed after they were ingested, {size_text(total)}")


def _why_not(root: Path, state: FetchState | None) -> str | None:
    if state is None or any(file.by_hand for file in state.files.values()):
        return "they were put there by hand"
    if not state.complete or not all(state.has(root, name) for name in state.files):
        return "they are not as they were fetched"
    return None


def _sweep(root: Path, state: FetchState) -> None:
    for name in state.files:
        if state.has(root, name):
            (root / name).unlink()
    shutil.rmtree(root / UNPACKED, ignore_errors=True)
