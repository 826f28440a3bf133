"""Warnings about steps that ended well and made little: most rows or answers rejected, or a file that breaks off."""

from __future__ import annotations

from collections import Counter

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.rejects import count_rejects
from mvl_assets.lake_queries.removal.tombstones import PURGED_ERROR_CLASS
from mvl_assets.readers.files import is_demo_source
from mvl_assets.readers.parsers.json_stream import BROKEN_FILE, INCOMPLETE_FILE
from mvl_assets.stages import RAW

MAX_REJECTED_SHARE = 0.5
FILE_ERRORS = (BROKEN_FILE, "broken_archive", INCOMPLETE_FILE)
"""Classes of rejects that stand for a part of a file, of which nobody knows how many rows it holds."""


def build_ingest_warning(lake: Lake, source: SourceSpec, n_rows: int) -> str | None:
    """Return what is wrong with the rows of a source that was read; None if nothing is, or if it is demo data.

    Args:
        lake: The lake with its rejects.
        source: The source.
        n_rows: Rows that were read.
    """
    if is_demo_source(source.root):
        return None
    counts = count_rejects(lake, RAW.name, source.slug)
    del counts[PURGED_ERROR_CLASS]
    problems = []
    if n_broken := sum(counts[error] for error in FILE_ERRORS):
        problems.append(f"{n_broken} time{'s' if n_broken > 1 else ''} a file breaks off or is damaged")
    if counts.total() > MAX_REJECTED_SHARE * n_rows:
        problems.append(f"{counts.total():,} of {n_rows:,} rows were rejected ({_format_counts(counts)})")
    return f"{source.slug}: {'; '.join(problems)}" if problems else None


def build_answer_warning(lake: Lake, stage: str, source: SourceSpec, n_rows: int) -> str | None:
    """Return what is wrong with a stage that asked a model; None if most of it became rows, or if it is demo data.

    Args:
        lake: The lake with its rejects.
        stage: The stage that asked.
        source: The source that it asked about.
        n_rows: Rows that the stage has of the source.
    """
    counts = count_rejects(lake, stage, source.slug)
    if is_demo_source(source.root) or counts.total() <= n_rows:
        return None
    reasons = _format_counts(counts)
    return f"{source.slug}, {stage}: {counts.total():,} answers rejected ({reasons}), {n_rows:,} rows made"


def _format_counts(counts: Counter[str]) -> str:
    return ", ".join(f"{error} {n:,}" for error, n in counts.most_common(3))
