"""What fetching would take: bytes, files, hours, disk. Nothing is asked of a network; what no lock tells is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.fetch.lock import Lock, LockedSource
from mvl_assets.fetch.overview import file_state, folder_size
from mvl_assets.fetch.state import FetchState, load_state

LAKE_SHARE = 1.1
"""Bytes of lake for one byte of archives: pictures keep their bytes; a tenth is for text, indexes and versions."""


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What one source would take, or all of them together. None is unknown, never a guess.

    Bytes: `size` of all files, `here` of those that are there, `to_fetch` of the rest; `archives` is what the folder
    holds at most, `lake` what its rows take in the lake. `hours` of fetching. `note` says why something is unknown.
    """

    source: str
    category: str
    state: str
    files: int | None
    files_here: int
    size: int | None
    here: int
    to_fetch: int | None
    hours: float | None
    archives: int | None
    lake: int | None
    note: str | None = None


def plan_ingest(source: SourceSpec, lock: Lock, *, limit: int | None, mbit: float) -> IngestPlan:
    """One source. `limit` is the profile's rows per source, `mbit` the line's speed in Mbit/s."""
    state, entry = load_state(source), lock.of(source)
    kind = file_state(source, entry, state)
    if kind == "removed" or (kind in ("fetched", "files")):
        return _in_place(source, kind, state, limit)
    if entry is None:
        listed = lock.sources.get(source.slug)
        note = (listed.reason if listed else None) or ("run `mvl sources lock`" if kind != "declared" else None)
        return IngestPlan(
            source.slug,
            source.category,
            kind,
            None,
            0,
            None,
            0,
            None,
            None,
            None,
            None,
            note or "no public home is known",
        )
    here = _here(source, entry, state)
    size = entry.size
    to_fetch = None if size is None else size - sum(here)
    return IngestPlan(
        source=source.slug,
        category=source.category,
        state=kind,
        files=len(entry.files),
        files_here=len(here),
        size=size,
        here=sum(here),
        to_fetch=to_fetch,
        hours=_hours(to_fetch, mbit),
        archives=size,
        lake=_lake(source, size, limit),
        note="the address tells no size" if size is None else entry.reason,
    )


def total(
    plans: Sequence[IngestPlan], chosen: Sequence[SourceSpec], lock: Lock, *, mbit: float, keep_archives: bool
) -> IngestPlan:
    """All sources together, as far as it is known. A file that several sources share is fetched, kept and read into
    the lake once: each takes its own rows of it.

    Without `keep_archives` the folders hold one source at a time, so the largest counts.
    """
    shared, shared_lake = _counted_twice(chosen, plans, lock)
    known = [p for p in plans if p.to_fetch is not None]
    to_fetch = sum(p.to_fetch or 0 for p in known) - shared if known or not plans else None
    archives = [p.archives or 0 for p in known]
    unknown, without_lake = len(plans) - len(known), sum(p.lake is None for p in known)
    notes = [f"without {unknown} of unknown size"] if unknown else []
    notes += [f"lake without {without_lake} whose rows nobody counted"] if without_lake else []
    return IngestPlan(
        source="all",
        category="",
        state="",
        files=sum(p.files or 0 for p in plans),
        files_here=sum(p.files_here for p in plans),
        size=sum(p.size or 0 for p in known) - shared if known or not plans else None,
        here=sum(p.here for p in plans),
        to_fetch=to_fetch,
        hours=_hours(to_fetch, mbit),
        archives=None if to_fetch is None else sum(archives) - shared if keep_archives else max(archives, default=0),
        lake=sum(p.lake or 0 for p in known) - shared_lake if known or not plans else None,
        note="; ".join(notes) or None,
    )


def _in_place(source: SourceSpec, kind: str, state: FetchState | None, limit: int | None) -> IngestPlan:
    if kind == "removed" and state is not None:
        size, files, left = sum(f.size for f in state.files.values()), len(state.files), 0
    else:
        files, size = folder_size(source.root)
        left = size
    return IngestPlan(
        source=source.slug,
        category=source.category,
        state=kind,
        files=files,
        files_here=files if left else 0,
        size=size,
        here=left,
        to_fetch=0,
        hours=0.0,
        archives=left,
        # Files put there by hand may be a part, of which nobody declared the rows.
        lake=_lake(source, size, None if kind == "files" else limit),
    )


def _here(source: SourceSpec, entry: LockedSource, state: FetchState | None) -> list[int]:
    """Sizes of the entry's files that are there."""
    if state is None:
        return []
    return [state.files[f.name].size for f in entry.files if state.has(source.root, f.name)]


def _counted_twice(chosen: Sequence[SourceSpec], plans: Sequence[IngestPlan], lock: Lock) -> tuple[int, int]:
    """Bytes of files, and of the lake, that the sources still to be fetched name again after another has."""
    waiting = {p.source: p for p in plans if p.to_fetch}
    seen: set[str] = set()
    twice, lake = 0, 0.0
    for source in chosen:
        plan = waiting.get(source.slug)
        entry = lock.of(source) if plan is not None else None
        for file in entry.files if entry is not None else ():
            if plan is None or file.sha256 is None or file.size is None:
                continue
            if file.sha256 in seen:
                twice += file.size
                lake += file.size * (plan.lake or 0) / (plan.size or 1)
            seen.add(file.sha256)
    return twice, round(lake)


def _lake(source: SourceSpec, size: int | None, limit: int | None) -> int | None:
    """A limit takes its share of the rows; of a source whose number of rows nobody declared that share is unknown."""
    if size is None:
        return None
    if limit is None:
        return round(size * LAKE_SHARE)
    if source.expected is None or source.expected.unit != "rows":
        return None
    return round(size * LAKE_SHARE * min(1.0, limit / source.expected.count))


def _hours(size: int | None, mbit: float) -> float | None:
    return None if size is None else size * 8 / (mbit * 1e6) / 3600
