"""Synchronisation of the lake with a source: fetch, ingest and, if the profile says so, remove the files again."""

from __future__ import annotations

import time

from pydantic import BaseModel

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.errors import SourceError
from mvl_assets.execution.create import create_executor
from mvl_assets.fetch.lock import read_lockfile
from mvl_assets.fetch.overview import format_missing_hint, get_missing_reason, is_fetchable, matches_lock
from mvl_assets.fetch.progress import LogFn, log_nothing
from mvl_assets.fetch.retention import load_removed_files_record, remove_files
from mvl_assets.fetch.rules import format_manual_instructions
from mvl_assets.fetch.source import fetch_source
from mvl_assets.fetch.state import IngestRecord, get_state_path, load_state
from mvl_assets.ingest.ingest import IngestReport, ingest_source
from mvl_assets.lake import sql
from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.removal.tombstones import PURGED_ERROR_CLASS, load_tombstones
from mvl_assets.readers.detect_format import detect_format
from mvl_assets.readers.files import NATIVE_FILES_HINT
from mvl_assets.readers.parsers.json_stream import BROKEN_FILE
from mvl_assets.stages import RAW

RECOVERABLE_REJECTS = frozenset(
    {
        BROKEN_FILE,
        "broken_archive",
        "encrypted_member",
        "missing_html",
        "missing_image",
        "missing_video",
        "unreadable_file",
        "unreadable_image",
        "unreadable_video",
        "unsupported_member",
    }
)
"""Classes of rejects that may be readable later, from another copy of the files or by a later reader."""


def sync_source(
    lake: Lake, source: SourceSpec, profile: Profile, *, run_id: str, log: LogFn = log_nothing
) -> IngestReport:
    """Bring the lake up to date with the source.

    A source whose archives were removed after they were ingested is left as it is, and its earlier report is repeated.

    Args:
        lake: The lake.
        source: The source.
        profile: Says how many rows to read, and in `fetch` whether missing files may be fetched.
        run_id: Stored with every new row.
        log: Takes one line per step.

    Raises:
        SourceError: Files are missing and may not or cannot be fetched, or every row was rejected. Nothing is fetched
            for a source that was purged as a whole.
    """
    started_at = time.monotonic()
    config_digest = compute_digest(
        *(f.model_dump_json(exclude_defaults=True) if isinstance(f, BaseModel) else f for f in source.reading_fields),
        source.license,
        profile.limit,
    )
    previous = load_removed_files_record(source, config_digest)
    if previous is not None and _is_lake_complete(lake, source, previous):
        log(f"{source.slug}: ingested, archives removed: nothing to read")
        return IngestReport(
            n_rows=previous.n_rows,
            n_new=0,
            n_changed=0,
            n_withdrawn=0,
            reject_counts=previous.reject_counts,
            n_new_images=0,
            new_image_bytes=0,
            duration_s=time.monotonic() - started_at,
            data_version=lake.get_table("samples").compute_data_version(source.slug),
        )
    _ensure_files(lake, source, profile, log)
    source = _apply_format(source, log)
    try:
        report = ingest_source(
            lake,
            source,
            source.root,
            run_id=run_id,
            limit=profile.limit,
            # One process decodes in threads, and needs no second one to hand rows to.
            executor=None if profile.executor.processes == 1 else create_executor(profile.executor),
            progress=lambda n_rows: log(f"{source.slug}: {n_rows:,} rows read and stored"),
        )
    except SourceError as error:
        if error.hint == NATIVE_FILES_HINT:
            problem = error.message.removeprefix(f"{source.slug}: ")
            raise SourceError(source.slug, problem, hint=format_manual_instructions(source)) from error
        raise
    _require_rows(lake, source, report)
    if not profile.keep_archives and load_state(source) is not None:
        incomplete_reason = _get_incomplete_reason(report, profile.limit)
        if incomplete_reason is None:
            n_purged = len(load_tombstones(lake, source.slug).sample_ids)
            ingested = IngestRecord(
                config_digest=config_digest, n_rows=report.n_rows, reject_counts=report.reject_counts, n_purged=n_purged
            )
            remove_files(source, ingested, log)
        else:
            log(f"{source.slug}: the files are kept: {incomplete_reason}")
    return report


def _apply_format(source: SourceSpec, log: LogFn) -> SourceSpec:
    """Return the source with the format that its files have, which may be one of its alternates."""
    file_format = detect_format(source, source.root)
    if file_format == source.format:
        return source
    log(
        f"{source.slug}: the files are read as {file_format}, one of its alternates; {source.format} reads none of them"
    )
    return source.model_copy(update={"format": file_format})


def _ensure_files(lake: Lake, source: SourceSpec, profile: Profile, log: LogFn) -> None:
    missing_reason, state = get_missing_reason(source), load_state(source)
    if load_tombstones(lake, source.slug).is_whole_source:
        if missing_reason is not None:
            raise SourceError(
                source.slug,
                "it was purged from the lake, so its files are not fetched",
                hint=f"`mvl purge allow source {source.slug}` allows it again",
            )
        return
    is_stale = state is not None and not matches_lock(state, read_lockfile().get_entry(source))
    if profile.fetch and is_fetchable(source) and (missing_reason is not None or is_stale):
        fetch_source(source, log=log, refetch=True)
    elif missing_reason is not None and state is not None:
        raise SourceError(
            source.slug,
            missing_reason,
            hint=f"run `mvl sources fetch --refetch --source {source.slug}`, "
            f"or remove {get_state_path(source.slug)} if the folder is your own now",
        )
    elif not source.root.is_dir():
        raise SourceError(
            source.slug,
            f"the folder {source.root} does not exist",
            hint=format_missing_hint(source),
        )


def _require_rows(lake: Lake, source: SourceSpec, report: IngestReport) -> None:
    """Raise `SourceError` if every row was rejected: then the format or the files as a whole are wrong."""
    reject_counts = {error: n for error, n in report.reject_counts.items() if error != PURGED_ERROR_CLASS}
    if not report.n_rows or sum(reject_counts.values()) < report.n_rows:
        return
    error = max(reject_counts, key=lambda error: reject_counts[error])
    predicate = (
        f"{sql.equals('source', source.slug)} AND {sql.equals('stage', RAW.name)} AND {sql.equals('error', error)}"
    )
    message = next((row["message"] for row in lake.get_table("rejects").iter_rows(["message"], predicate)), "")
    raise SourceError(
        source.slug,
        f"all {report.n_rows} rows were rejected, {reject_counts[error]} as {error}: {message[:200]}",
        hint="correct the format or the field map in the catalog, or the files; the lake keeps what it has",
    )


def _get_incomplete_reason(report: IngestReport, limit: int | None) -> str | None:
    """Return why the files may hold rows that the lake lacks; None if the lake has them all."""
    if limit is not None and report.n_rows >= limit:
        return f"the profile reads at most {limit} rows of them"
    recoverable = sorted(RECOVERABLE_REJECTS & report.reject_counts.keys())
    return f"rows were rejected as {', '.join(recoverable)}" if recoverable else None


def _is_lake_complete(lake: Lake, source: SourceSpec, ingested: IngestRecord) -> bool:
    """Return whether this lake (not another one) has all ingested samples except those purged since."""
    purged = load_tombstones(lake, source.slug)
    if purged.is_whole_source:
        return True
    batches = lake.get_table("samples").scan(["sample_id"], partition_key=source.slug)
    sample_ids = IdSet(batch.column(0).to_pylist() for batch in batches)
    n_expected = ingested.n_rows - sum(ingested.reject_counts.values())
    return len(sample_ids) + len(purged.sample_ids) >= n_expected and len(purged.sample_ids) >= ingested.n_purged
