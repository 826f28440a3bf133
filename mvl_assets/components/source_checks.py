"""Checks of a raw asset: its declaration against what was read, and its screening as the UI shows it."""

from __future__ import annotations

from typing import Any

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.curation.screening import MAX_ROWS, MIN_ROWS, Quantiles, ScreeningReport, suggest_group
from mvl_assets.orchestration.metadata import render_markdown_table
from mvl_assets.readers.files import is_demo_source

ROW_COUNT_CHECK = "row_count_matches"
LICENSE_CHECK = "license_known"
SCREENING_CHECK = "screening"
BENCHMARK_CHECK = "no_benchmark_overlap"
# Declared counts come from copies of a source and are sometimes rounded ("79k").
ROW_COUNT_TOLERANCE = 0.1
RELATION_TEXTS = {"is_benchmark": "is itself the benchmark", "shares_origin": "shares base sets with the benchmark"}


def build_source_checks(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Return the specs of the checks; none of them blocks downstream assets."""
    descriptions = {
        ROW_COUNT_CHECK: "The number of rows is about the declared one.",
        LICENSE_CHECK: "The licence of the source itself is known.",
        SCREENING_CHECK: "The answers look like those of the declared group (arXiv 2412.05237 §2.1).",
        BENCHMARK_CHECK: "The source is not an evaluation benchmark and is not known to share data with one.",
    }
    return [dg.AssetCheckSpec(name, asset=key, description=text) for name, text in descriptions.items()]


def build_row_count_result(key: dg.AssetKey, spec: SourceSpec, n_rows: int, limit: int | None) -> dg.AssetCheckResult:
    """Return a warning if the whole source was read and its row count is more than `ROW_COUNT_TOLERANCE` off.

    Args:
        key: The asset that was checked.
        spec: Its source, with the declared count.
        n_rows: Rows that were read, rejects included.
        limit: Rows that the profile reads at most; None for all.
    """
    expected = spec.expected
    skip_reason = (
        "no count is declared"
        if expected is None
        else f"the declared count is of {expected.unit}, not of rows"
        if expected.unit != "rows"
        else f"the profile reads at most {limit} rows"
        if limit is not None
        else "the files are demo data"
        if is_demo_source(spec.root)
        else None
    )
    metadata: dict[str, Any] = {metadata_keys.ROWS: n_rows}
    if expected is not None:
        metadata[metadata_keys.DECLARED_ROWS] = expected.count
    if skip_reason:
        metadata[metadata_keys.SKIP_REASON] = skip_reason
    is_within_tolerance = expected is not None and abs(n_rows - expected.count) <= ROW_COUNT_TOLERANCE * expected.count
    return _build_warning_result(key, ROW_COUNT_CHECK, skip_reason is not None or is_within_tolerance, metadata)


def build_license_result(key: dg.AssetKey, spec: SourceSpec) -> dg.AssetCheckResult:
    """Return a warning if the licence is unknown; the card of an aggregating data set does not count."""
    evidence = spec.evidence.get("license")
    metadata = {
        metadata_keys.LICENSE: spec.license or "unknown",
        metadata_keys.LICENSE_BASIS: evidence.basis if evidence else "unknown",
        metadata_keys.LICENSE_NOTE: (evidence and evidence.note) or "",
    }
    return _build_warning_result(key, LICENSE_CHECK, spec.license is not None, metadata)


def build_benchmark_result(key: dg.AssetKey, spec: SourceSpec) -> dg.AssetCheckResult:
    """Return a warning if the source is a benchmark, or was built from the same base sets as one."""
    related = [{"benchmark": b.name, "relation": RELATION_TEXTS[b.relation]} for b in spec.benchmarks]
    metadata = {metadata_keys.BENCHMARKS: render_markdown_table(related) if related else "none is known"}
    description = "; ".join(f"{b['relation']} {b['benchmark']}" for b in related) or None
    return _build_warning_result(key, BENCHMARK_CHECK, not related, metadata, description)


def build_screening_result(key: dg.AssetKey, spec: SourceSpec, screening: ScreeningReport) -> dg.AssetCheckResult:
    """Return a warning if `suggest_group` puts the source into another group than its declaration does."""
    metadata: dict[str, Any] = {
        metadata_keys.ROWS: screening.n_rows,
        metadata_keys.DECLARED_GROUP: spec.group or "none",
    }
    if screening.n_rows < MIN_ROWS:
        description = f"too few rows: {screening.n_rows}, a suggestion needs {MIN_ROWS}"
        return _build_warning_result(key, SCREENING_CHECK, True, metadata, description)
    suggestion = suggest_group(screening, spec.category)
    metadata |= {metadata_keys.SUGGESTED_GROUP: suggestion.group, metadata_keys.SUGGESTION_REASON: suggestion.reason}
    matches_declared = spec.group in (None, suggestion.group)
    prefix = "" if matches_declared else f"declared {spec.group}, "
    description = f"{prefix}looks like {suggestion.group}: {suggestion.reason}"
    return _build_warning_result(key, SCREENING_CHECK, matches_declared, metadata, description)


def render_screening_table(screening: ScreeningReport) -> dg.MetadataValue:
    """Return the measurements of a screening as a table, one per line."""
    sizes = screening.image_sizes
    rows: dict[str, object] = {
        "rows screened": f"{screening.n_rows:,} of at most {MAX_ROWS:,}, {screening.n_total:,} in the source",
        "characters of an answer": _format_quantiles(screening.answer_chars),
        "words of an answer": _format_quantiles(screening.answer_words),
        "answers of one word": f"{screening.one_word_share:.1%} of {screening.n_answers:,}",
        "most frequent answer": f"{screening.most_frequent_share:.1%}",
        "answers of a row": _format_quantiles(screening.answers_per_sample),
        "exact copies": f"{screening.n_copies:,} of all rows",
        "script": ", ".join(f"{name} {share:.0%}" for name, share in screening.script_shares.items()) or "none",
    }
    if sizes is not None:
        rows["images"] = f"median {sizes.median_width:.0f} × {sizes.median_height:.0f} px of {sizes.n_images:,}"
        rows["sides"] = f"{sizes.min_side:,} to {sizes.max_side:,} px"
        rows["outside 224 to 4,096 px or 7:1"] = f"{sizes.out_of_range_share:.1%}"
    return render_markdown_table([{"measure": name, "value": value} for name, value in rows.items()])


def _format_quantiles(quantiles: Quantiles) -> str:
    return f"median {quantiles.median:,.0f}, p90 {quantiles.p90:,.0f}"


def _build_warning_result(
    key: dg.AssetKey, name: str, passed: bool, metadata: dict[str, Any], description: str | None = None
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=name,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=metadata,
        description=description,
    )
