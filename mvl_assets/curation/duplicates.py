"""Samples that repeat another, exactly or nearly, within and across sources (the 153 contain each other's copies).

An exact duplicate has the same images and, but for case, spaces and punctuation, the same text. A near duplicate has
copies of the images, or the same, and nearly the same words; rows with another number of images are never duplicates,
nor is the same image with another question. Each is dropped in favour of one sample that is kept and that it was
compared with itself, never of the duplicate of a duplicate.

The canonical sample, which is kept, is chosen in this order: one of group A or B, since mixtures take no other; one
that was kept before; one that was rewritten (it was paid for); the first in the catalog.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import pyarrow as pa

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.duplicate_rules import DuplicateRules
from mvl_assets.curation.near_duplicates import NearReport, compare_new_samples, record_compared
from mvl_assets.execution.executor import Executor
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import COMPARED, DUPLICATES, IMAGE_PAIRS, SAMPLE_PAIRS
from mvl_assets.lake.table import PublishResult, Table
from mvl_assets.lake_queries.duplicates import KeptSelection, PairThresholds, count_removed_samples
from mvl_assets.lake_queries.duplicates_basis import compute_settings_digest, read_basis, write_basis
from mvl_assets.lake_queries.gone_contents import remove_gone_contents
from mvl_assets.lake_queries.near_duplicates import NearSearch
from mvl_assets.lake_queries.sample_comparison import ComparedSource, open_comparison

MAX_SMALL_FRAGMENTS, ROWS_PER_FRAGMENT = 16, 1 << 16
_GROWING_TABLES = (DUPLICATES.name, COMPARED.name, SAMPLE_PAIRS.name, IMAGE_PAIRS.name)


@dataclass(frozen=True, slots=True)
class SourceDuplicates:
    """What a source loses.

    Attributes:
        source: Its slug.
        is_used: Whether a mixture may take its samples.
        n_rows: Its current samples.
        n_exact: Those that repeat another exactly.
        n_near: Those that repeat another nearly.
        n_other_question: Those that stay and show the images of another with other words.
    """

    source: str
    is_used: bool
    n_rows: int
    n_exact: int
    n_near: int
    n_other_question: int

    @property
    def removed_share(self) -> float:
        """Share of its samples that no mixture takes."""
        return (self.n_exact + self.n_near) / self.n_rows


@dataclass(frozen=True, slots=True)
class DuplicateReport:
    """Result of a comparison; `sources` have at least one duplicate or repeated image, those that lose most first."""

    n_compared: int
    n_duplicates: int
    sources: list[SourceDuplicates]
    near: NearReport | None
    published: PublishResult


def find_duplicates(
    lake: Lake,
    sources: Sequence[SourceSpec],
    *,
    run_id: str,
    rules: DuplicateRules | None = None,
    executor: Executor | None = None,
) -> DuplicateReport:
    """Compare the newest samples of all `sources` (in catalog order) and publish `curation/duplicates`.

    Args:
        lake: The lake.
        sources: The sources to compare.
        run_id: Stored with every row.
        rules: When two samples are near duplicates; None finds exact ones alone.
        executor: Sketches the texts where there are many; default: all cores of this machine.
    """
    compared_sources = [
        ComparedSource(source.slug, source.category, source.group in ("A", "B"), rank)
        for rank, source in enumerate(sources)
    ]
    thresholds = None if rules is None else _get_thresholds(rules)
    digest = compute_settings_digest(
        [astuple(source) for source in compared_sources], None if thresholds is None else astuple(thresholds)
    )
    with open_comparison(lake, compared_sources, digest, read_basis(lake)) as comparison:
        search = None if rules is None else NearSearch(comparison)
        near = (
            None
            if search is None
            else compare_new_samples(lake, search, run_id=run_id, executor=executor or ProcessExecutor())
        )
        selection = KeptSelection(comparison, thresholds)
        selection.select_kept()
        figures = selection.compute_figures()
        published = _publish(lake, selection, is_whole=comparison.is_whole, run_id=run_id)
        if search is not None and near is not None and near.n_contents:
            record_compared(lake, search, run_id=run_id)
        if search is not None:
            remove_gone_contents(comparison)
        basis = comparison.build_basis(digest, published.data_version, figures)
    if basis is not None:
        write_basis(lake, basis, run_id=run_id)
    for name in _GROWING_TABLES:
        _join_small_fragments(lake.get_table(name))
    counts_by_rule = count_removed_samples(lake)
    source_reports = [
        SourceDuplicates(
            source.source,
            source.is_used,
            figures[source.source].n_rows,
            counts_by_rule[source.source, True],
            counts_by_rule[source.source, False],
            figures[source.source].n_other_question,
        )
        for source in compared_sources
        if source.source in figures
    ]
    reported = [report for report in source_reports if report.removed_share or report.n_other_question]
    reported.sort(key=lambda report: (-report.removed_share, report.source))
    n_compared = sum(source_figures.n_rows for source_figures in figures.values())
    return DuplicateReport(n_compared, published.n_rows, reported, near, published)


def _publish(lake: Lake, selection: KeptSelection, *, is_whole: bool, run_id: str) -> PublishResult:
    """Publish all duplicates, or exchange those of the contents that were decided."""
    table = lake.get_table(DUPLICATES.name)
    rows = (
        duplicates.append_column("run_id", pa.repeat(pa.scalar(run_id), len(duplicates))).select(
            DUPLICATES.columns.names
        )
        for duplicates in selection.iter_duplicates()
    )
    return table.publish(rows) if is_whole else table.exchange_rows("fingerprint", selection.list_touched(), rows)


def _join_small_fragments(table: Table) -> None:
    """Rewrite the fragments that many runs have added, each of which costs every scan 0.2 ms."""
    if not table.exists():
        return
    n_small = sum(2 * fragment.physical_rows <= ROWS_PER_FRAGMENT for fragment in table.open().get_fragments())
    if n_small > MAX_SMALL_FRAGMENTS:
        table.compact_partition(None, ROWS_PER_FRAGMENT)


def list_emptied_sources(report: DuplicateReport, rules: DuplicateRules) -> list[SourceDuplicates]:
    """Return the sources of a mixture that lose more of their samples than the rules allow."""
    return [
        source
        for source in report.sources
        if source.is_used and source.removed_share > rules.max_removed and source.source not in rules.allow_removed
    ]


def _get_thresholds(rules: DuplicateRules) -> PairThresholds:
    return PairThresholds(**rules.model_dump(include=set(PairThresholds.__slots__)))
