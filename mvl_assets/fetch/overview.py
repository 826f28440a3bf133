"""Where a source's files are, in one word and in a sentence, for lists and for the graph."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.settings import UNPACKED
from mvl_assets.fetch.lock import Lock, LockedSource
from mvl_assets.fetch.rules import supply
from mvl_assets.fetch.state import PARTS, FetchState, load_state

State = Literal["declared", "unverified", "locked", "fetching", "fetched", "files", "removed"]


def file_state(source: SourceSpec, entry: LockedSource | None, state: FetchState | None) -> State:
    """`declared`: no public home is known. `unverified`: one is named, and was not looked up. `locked`: looked up.
    `fetching`: begun and not finished. `fetched`: all there. `files`: put there by hand. `removed`: ingested, and the
    archives removed after it."""
    if state is not None and state.removed is not None:
        return "removed"
    there = [state.has(source.root, name) for name in state.files] if state is not None else []
    if state is not None and any(there):
        return "fetched" if state.complete and all(there) else "fetching"
    # A file takes its name before the state tells of it, so a fetch that just ended may have files it does not name.
    begun = state is not None and not state.complete
    if has_files(source.root):
        return "fetching" if begun else "files"
    if entry is not None:
        return "fetching" if begun else "locked"
    return "unverified" if is_fetchable(source) else "declared"


def sentence(source: SourceSpec, lock: Lock, state: FetchState | None = None) -> str:
    """The state with what a person needs to know of it: the commit, the reason, what to do."""
    entry, state = lock.of(source), state or load_state(source)
    kind = file_state(source, entry, state)
    if kind == "removed":
        return f"ingested, archives removed{_at(state)}"
    if kind == "fetched":
        return f"fetched{_at(state)}"
    if kind == "fetching":
        return f"fetching{_at(state)}, not finished: `mvl sources fetch --source {source.slug}` goes on"
    if kind == "files":
        return f"files in {source.root} that were not fetched by `mvl`"
    if kind == "locked" and entry is not None:
        gated = ", gated: accept its terms on the hub and set HF_TOKEN" if entry.gated else ""
        at = f" at {entry.commit[:12]}" if entry.commit else ""
        lacking = f"; {entry.reason}" if entry.reason else ""
        return f"locked{at}{gated}, not fetched{lacking}"
    listed = lock.sources.get(source.slug)
    if listed is not None and listed.reason is not None:
        return f"{kind}: {listed.reason}; {listed.hint or supply(source)}"
    if kind == "unverified":
        return "unverified: `mvl sources lock` has not looked it up"
    home = "no public home is known" if source.path is None else "its `path:` names a folder without files"
    return f"declared: {home}; {supply(source)}"


def is_fetchable(source: SourceSpec) -> bool:
    """Whether the catalog names a place to fetch it from."""
    return source.path is None and (source.hub is not None or source.url is not None)


def lacks(source: SourceSpec) -> str | None:
    """Why the source's folder is not as a fetch leaves it; None when it is, or when it is a person's own."""
    state = load_state(source)
    if state is None:
        return None if has_files(source.root) else "its files are not there"
    if state.removed is not None:
        return "its archives were removed after they were ingested"
    if not state.complete:
        return "its fetch is not finished"
    gone = next((name for name in state.files if not state.has(source.root, name)), None)
    return None if gone is None else f"{gone} is gone or was changed since it was fetched"


def agrees(state: FetchState, entry: LockedSource | None) -> bool:
    """Whether what was fetched is what the lock names; without a lock it is whatever was there."""
    if entry is None:
        return True
    return state.commit == entry.commit and state.files.keys() == {file.name for file in entry.files}


def files_in(root: Path) -> list[str]:
    """Names of all files below a source's folder, in order, without what a fetch has not finished, and without what
    reading archives has left beside them."""
    return sorted(_walk(root))


def has_files(root: Path) -> bool:
    return next(_walk(root), None) is not None


def folder_size(root: Path) -> tuple[int, int]:
    """Number and bytes of the files below a folder."""
    sizes = [(root / name).stat().st_size for name in files_in(root) if (root / name).exists()]
    return len(sizes), sum(sizes)


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        if Path(folder) == root:
            folders[:] = [name for name in folders if name not in (PARTS, UNPACKED)]
        for name in names:
            yield (Path(folder) / name).relative_to(root).as_posix()


def _at(state: FetchState | None) -> str:
    if state is None or state.commit is None:
        return ""
    return f" at {state.commit[:12]}" + ("" if state.locked else " (unverified: there was no lock)")
