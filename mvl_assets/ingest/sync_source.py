"""A source from wherever it is into the lake: fetched and, when all is read, removed again, as the profile says.

Belongs here: the order of the three. Does not: how files are fetched (`fetch/`) or how they become rows (`ingest`).
"""

from __future__ import annotations

import time

from mvl_assets.common.digest import digest_hex
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.errors import SourceError
from mvl_assets.fetch.lock import read_lock
from mvl_assets.fetch.overview import agrees, is_fetchable, lacks
from mvl_assets.fetch.progress import Say, quiet
from mvl_assets.fetch.retention import remembered, remove_archives
from mvl_assets.fetch.rules import supply
from mvl_assets.fetch.source import fetch_source
from mvl_assets.fetch.state import Ingested, load_state, state_path
from mvl_assets.ingest.ingest import IngestReport, ingest_source
from mvl_assets.lake import sql
from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.tombstones import PURGED_CLASS, purged_of
from mvl_assets.readers.json_stream import BROKEN_FILE

UNREAD = frozenset(
    {
        BROKEN_FILE,
        "broken_archive",
        "encrypted_member",
        "missing_html",
        "missing_picture",
        "missing_video",
        "unreadable_file",
        "unreadable_picture",
        "unreadable_video",
        "unsupported_member",
    }
)
"""Rejects that say a row is not lost for good: another copy of the files, or a later reader, may still bring it."""


def bring_in(lake: Lake, source: SourceSpec, profile: Profile, *, run_id: str, say: Say = quiet) -> IngestReport:
    """Brings the lake up to date with the source; with `profile.fetch` its files are fetched where they are lacking.

    A source whose archives were removed after they were ingested is left as it is, and reported as it was then.
    Raises `SourceError` when its files are lacking and may not or cannot be fetched; of a source that was purged as a
    whole nothing is fetched.
    """
    begun = time.monotonic()
    made_with = digest_hex(
        source.format,
        source.records.model_dump_json(exclude_defaults=True) if source.records else None,
        source.license,
        profile.limit,
    )
    before = remembered(source, made_with)
    if before is not None and _holds(lake, source, before):
        say(f"{source.slug}: ingested, archives removed: nothing to read")
        return IngestReport(
            rows=before.rows,
            new=0,
            changed=0,
            withdrawn=0,
            rejects=before.rejects,
            pictures=0,
            bytes=0,
            seconds=time.monotonic() - begun,
            data_version=lake.table("samples").data_version(sql.equals("source", source.slug)),
        )
    _make_ready(lake, source, profile, say)
    report = ingest_source(lake, source, source.root, run_id=run_id, limit=profile.limit)
    _check_that_some_came(lake, source, report)
    if not profile.keep_archives and load_state(source) is not None:
        unread = _unread(report, profile.limit)
        if unread is None:
            purged = len(purged_of(lake, source.slug).sample_ids)
            ingested = Ingested(made_with=made_with, rows=report.rows, rejects=report.rejects, purged=purged)
            remove_archives(source, ingested, say)
        else:
            say(f"{source.slug}: the files stay: {unread}")
    return report


def _make_ready(lake: Lake, source: SourceSpec, profile: Profile, say: Say) -> None:
    lacking, state = lacks(source), load_state(source)
    if purged_of(lake, source.slug).whole:
        if lacking is not None:
            raise SourceError(
                source.slug,
                "it was purged from the lake, so its files are not fetched",
                hint=f"`mvl purge allow source {source.slug}` lets it come back",
            )
        return
    outdated = state is not None and not agrees(state, read_lock().of(source))
    if profile.fetch and is_fetchable(source) and (lacking is not None or outdated):
        fetch_source(source, say=say, again=True)
    elif lacking is not None and state is not None:
        raise SourceError(
            source.slug,
            lacking,
            hint=f"run `mvl sources fetch --again --source {source.slug}`, "
            f"or remove {state_path(source.slug)} if the folder is your own now",
        )
    elif not source.root.is_dir():
        raise SourceError(
            source.slug,
            f"there is no folder {source.root}",
            hint=f"run `mvl demo-data` for drawn data, {_or_fetch(source)}or {supply(source)}",
        )


def _or_fetch(source: SourceSpec) -> str:
    return f"`mvl sources fetch --source {source.slug}`, " if is_fetchable(source) else ""


def _check_that_some_came(lake: Lake, source: SourceSpec, report: IngestReport) -> None:
    """Raises `SourceError` when every row was rejected: then it is not the rows that are wrong."""
    rejects = {error: rows for error, rows in report.rejects.items() if error != PURGED_CLASS}
    if not report.rows or sum(rejects.values()) < report.rows:
        return
    error = max(rejects, key=lambda error: rejects[error])
    own = f"{sql.equals('source', source.slug)} AND {sql.equals('stage', 'raw')} AND {sql.equals('error', error)}"
    message = next((row["message"] for row in lake.table("rejects").rows(["message"], own)), "")
    raise SourceError(
        source.slug,
        f"all {report.rows} rows were rejected, {rejects[error]} as {error}: {message[:200]}",
        hint="correct the format or the field map in the catalog, or the files; what the lake has of it stays",
    )


def _unread(report: IngestReport, limit: int | None) -> str | None:
    """Why the files may still hold what the lake does not; None when all of it is there."""
    if limit is not None and report.rows >= limit:
        return f"the profile reads at most {limit} rows of them"
    lost = sorted(UNREAD & report.rejects.keys())
    return f"rows were rejected as {', '.join(lost)}" if lost else None


def _holds(lake: Lake, source: SourceSpec, taken: Ingested) -> bool:
    """Whether this lake (and not another one) has all that was taken in, but for what was purged from it since and is
    not wanted back."""
    purged = purged_of(lake, source.slug)
    if purged.whole:
        return True
    found = lake.table("samples").scan(["sample_id"], sql.equals("source", source.slug))
    there = IdSet(batch.column(0).to_pylist() for batch in found)
    rows = taken.rows - sum(taken.rejects.values())
    return len(there) + len(purged.sample_ids) >= rows and len(purged.sample_ids) >= taken.purged
