"""Estimates for fetching and ingesting: bytes, files, hours, disk. Uses no network; what the lock lacks is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.fetch.lock import LockedSource, Lockfile
from mvl_assets.fetch.overview import compute_source_state, measure_folder
from mvl_assets.fetch.state import FetchState, load_state

LAKE_BYTES_PER_ARCHIVE_BYTE = 1.1
"""Bytes of lake per byte of archives: images keep their bytes; a tenth is for text, indexes and versions."""


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """Estimate for one source, or for all of them together. None means unknown.

    Attributes:
        source: Slug, or "all".
        category: Category of the source.
        state: State of the source's files (`overview.SourceState`).
        n_files: Files of the source.
        n_files_present: Files that have arrived.
        total_bytes: Bytes of all files.
        present_bytes: Bytes of the files that have arrived.
        bytes_to_fetch: Bytes of the rest.
        fetch_hours: Hours to fetch them.
        archive_bytes: Largest number of bytes that the folder will hold.
        lake_bytes: Estimated bytes of the rows in the lake.
        note: Why something is unknown.
    """

    source: str
    category: str
    state: str
    n_files: int | None
    n_files_present: int
    total_bytes: int | None
    present_bytes: int
    bytes_to_fetch: int | None
    fetch_hours: float | None
    archive_bytes: int | None
    lake_bytes: int | None
    note: str | None = None


def plan_ingest(source: SourceSpec, lockfile: Lockfile, *, limit: int | None, bandwidth_mbit: float) -> IngestPlan:
    """Return the plan of one source.

    Args:
        source: The source.
        lockfile: Files and sizes, as far as they were locked.
        limit: Rows that the profile reads per source; None for all.
        bandwidth_mbit: Speed of the network in Mbit/s.
    """
    state, entry = load_state(source), lockfile.get_entry(source)
    source_state = compute_source_state(source, entry, state)
    if source_state == "removed" or (source_state in ("fetched", "local")):
        return _plan_present_source(source, source_state, state, limit)
    if entry is None:
        lockfile_entry = lockfile.sources.get(source.slug)
        note = (lockfile_entry.reason if lockfile_entry else None) or (
            "run `mvl sources lock`" if source_state != "declared" else None
        )
        return IngestPlan(
            source.slug,
            source.category,
            source_state,
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
    present_sizes = _list_present_sizes(source, entry, state)
    total_bytes = entry.total_bytes
    bytes_to_fetch = None if total_bytes is None else total_bytes - sum(present_sizes)
    return IngestPlan(
        source=source.slug,
        category=source.category,
        state=source_state,
        n_files=len(entry.files),
        n_files_present=len(present_sizes),
        total_bytes=total_bytes,
        present_bytes=sum(present_sizes),
        bytes_to_fetch=bytes_to_fetch,
        fetch_hours=_estimate_fetch_hours(bytes_to_fetch, bandwidth_mbit),
        archive_bytes=total_bytes,
        lake_bytes=_estimate_lake_bytes(source, total_bytes, limit),
        note="the server gives no size" if total_bytes is None else entry.reason,
    )


def sum_plans(
    plans: Sequence[IngestPlan],
    sources: Sequence[SourceSpec],
    lockfile: Lockfile,
    *,
    bandwidth_mbit: float,
    keep_archives: bool,
) -> IngestPlan:
    """Return the plan of all sources together, as far as it is known.

    A file that several sources share counts once: it is fetched and stored once, and each source ingests its own rows.
    Without `keep_archives` the folders hold one source at a time, so the largest counts.

    Args:
        plans: One plan per source.
        sources: The planned sources.
        lockfile: Tells which files sources share.
        bandwidth_mbit: Speed of the network in Mbit/s.
        keep_archives: Whether fetched files stay after their ingest.
    """
    shared_bytes, shared_lake_bytes = _count_shared_bytes(sources, plans, lockfile)
    sized_plans = [p for p in plans if p.bytes_to_fetch is not None]
    bytes_to_fetch = (
        sum(p.bytes_to_fetch or 0 for p in sized_plans) - shared_bytes if sized_plans or not plans else None
    )
    archive_sizes = [p.archive_bytes or 0 for p in sized_plans]
    n_unsized, n_without_lake = len(plans) - len(sized_plans), sum(p.lake_bytes is None for p in sized_plans)
    notes = [f"without {n_unsized} of unknown size"] if n_unsized else []
    notes += [f"lake without {n_without_lake} of unknown row count"] if n_without_lake else []
    return IngestPlan(
        source="all",
        category="",
        state="",
        n_files=sum(p.n_files or 0 for p in plans),
        n_files_present=sum(p.n_files_present for p in plans),
        total_bytes=sum(p.total_bytes or 0 for p in sized_plans) - shared_bytes if sized_plans or not plans else None,
        present_bytes=sum(p.present_bytes for p in plans),
        bytes_to_fetch=bytes_to_fetch,
        fetch_hours=_estimate_fetch_hours(bytes_to_fetch, bandwidth_mbit),
        archive_bytes=None
        if bytes_to_fetch is None
        else sum(archive_sizes) - shared_bytes
        if keep_archives
        else max(archive_sizes, default=0),
        lake_bytes=sum(p.lake_bytes or 0 for p in sized_plans) - shared_lake_bytes
        if sized_plans or not plans
        else None,
        note="; ".join(notes) or None,
    )


def _plan_present_source(
    source: SourceSpec, source_state: str, state: FetchState | None, limit: int | None
) -> IngestPlan:
    if source_state == "removed" and state is not None:
        total_bytes, n_files, present_bytes = sum(f.size for f in state.files.values()), len(state.files), 0
    else:
        n_files, total_bytes = measure_folder(source.root)
        present_bytes = total_bytes
    return IngestPlan(
        source=source.slug,
        category=source.category,
        state=source_state,
        n_files=n_files,
        n_files_present=n_files if present_bytes else 0,
        total_bytes=total_bytes,
        present_bytes=present_bytes,
        bytes_to_fetch=0,
        fetch_hours=0.0,
        archive_bytes=present_bytes,
        # Files put there by hand may be a part of the source, whose number of rows is unknown.
        lake_bytes=_estimate_lake_bytes(source, total_bytes, None if source_state == "local" else limit),
    )


def _list_present_sizes(source: SourceSpec, entry: LockedSource, state: FetchState | None) -> list[int]:
    """Return the sizes of the entry's files that have arrived."""
    if state is None:
        return []
    return [state.files[f.name].size for f in entry.files if state.has_intact_file(source.root, f.name)]


def _count_shared_bytes(
    sources: Sequence[SourceSpec], plans: Sequence[IngestPlan], lockfile: Lockfile
) -> tuple[int, int]:
    """Return the bytes of files, and of the lake, that the sources to be fetched share with an earlier one."""
    pending_plans = {p.source: p for p in plans if p.bytes_to_fetch}
    seen_sha256: set[str] = set()
    shared_bytes, shared_lake_bytes = 0, 0.0
    for source in sources:
        plan = pending_plans.get(source.slug)
        entry = lockfile.get_entry(source) if plan is not None else None
        for file in entry.files if entry is not None else ():
            if plan is None or file.sha256 is None or file.size is None:
                continue
            if file.sha256 in seen_sha256:
                shared_bytes += file.size
                shared_lake_bytes += file.size * (plan.lake_bytes or 0) / (plan.total_bytes or 1)
            seen_sha256.add(file.sha256)
    return shared_bytes, round(shared_lake_bytes)


def _estimate_lake_bytes(source: SourceSpec, archive_bytes: int | None, limit: int | None) -> int | None:
    """Return the bytes of the selected rows; None if a limit is set and the number of rows is not declared."""
    if archive_bytes is None:
        return None
    if limit is None:
        return round(archive_bytes * LAKE_BYTES_PER_ARCHIVE_BYTE)
    if source.expected is None or source.expected.unit != "rows":
        return None
    return round(archive_bytes * LAKE_BYTES_PER_ARCHIVE_BYTE * min(1.0, limit / source.expected.count))


def _estimate_fetch_hours(n_bytes: int | None, bandwidth_mbit: float) -> float | None:
    return None if n_bytes is None else n_bytes * 8 / (bandwidth_mbit * 1e6) / 3600
