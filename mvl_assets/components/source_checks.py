"""The checks of a raw asset, and the numbers of its screening as the UI shows them.

Belongs here: what a declaration is held against what was found. Does not: how it is measured (`curation/screening`).
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.curation.screening import MAX_ROWS, MIN_ROWS, ScreeningReport, suggest_group
from mvl_assets.orchestration.metadata import render_markdown_table
from mvl_assets.readers.files import is_demo_source

ROW_COUNT_CHECK = "rows_as_expected"
LICENSE_CHECK = "license_known"
SCREENING_CHECK = "screening"
BENCHMARK_CHECK = "no_benchmark_related"
# Declared counts come from copies of a source and are sometimes rounded ("79k").
ROW_COUNT_TOLERANCE = 0.1
RELATION_TEXTS = {"is_benchmark": "is itself the benchmark", "shares_origin": "shares base sets with the benchmark"}


def build_source_checks(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """None of them stops what comes after."""
    descriptions = {
        ROW_COUNT_CHECK: "About as many rows as the source is said to hold.",
        LICENSE_CHECK: "The source's own licence is known.",
        SCREENING_CHECK: "The answers look like those of the declared group (arXiv 2412.05237 §2.1).",
        BENCHMARK_CHECK: "The source is no evaluation benchmark, and is known to share nothing with one.",
    }
    return [dg.AssetCheckSpec(name, asset=key, description=text) for name, text in descriptions.items()]


def build_row_count_result(key: dg.AssetKey, spec: SourceSpec, n_rows: int, limit: int | None) -> dg.AssetCheckResult:
    """Warns when the whole source was read and the rows differ from the declared count by more than `ROW_COUNT_TOLERANCE`."""
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
    metadata: dict[str, Any] = {"found": n_rows}
    if expected is not None:
        metadata["expected"] = expected.count
    if skip_reason:
        metadata["not_compared"] = skip_reason
    is_within_tolerance = expected is not None and abs(n_rows - expected.count) <= ROW_COUNT_TOLERANCE * expected.count
    return _build_warning_result(key, ROW_COUNT_CHECK, skip_reason is not None or is_within_tolerance, metadata)


def build_license_result(key: dg.AssetKey, spec: SourceSpec) -> dg.AssetCheckResult:
    """Warns when nobody knows the licence; an aggregator's card does not count."""
    evidence = spec.evidence.get("license")
    metadata = {
        "license": spec.license or "unknown",
        "basis": evidence.basis if evidence else "unknown",
        "note": (evidence and evidence.note) or "",
    }
    return _build_warning_result(key, LICENSE_CHECK, spec.license is not None, metadata)


def build_benchmark_result(key: dg.AssetKey, spec: SourceSpec) -> dg.AssetCheckResult:
    """Warns with the benchmarks that the source is, or was built from the same base sets as."""
    related = [{"benchmark": b.name, "relation": RELATION_TEXTS[b.relation]} for b in spec.benchmarks]
    metadata = {"benchmarks": render_markdown_table(related) if related else "none is known"}
    description = "; ".join(f"{b['relation']} {b['benchmark']}" for b in related) or None
    return _build_warning_result(key, BENCHMARK_CHECK, not related, metadata, description)


def build_screening_result(key: dg.AssetKey, spec: SourceSpec, screening: ScreeningReport) -> dg.AssetCheckResult:
    """Warns when the rule of `suggest` puts the source into another group than the declaration does."""
    metadata: dict[str, Any] = {"rows": screening.n_rows, "declared": spec.group or "none"}
    if screening.n_rows < MIN_ROWS:
        description = f"not enough rows: {screening.n_rows}, and {MIN_ROWS} are needed for a suggestion"
        return _build_warning_result(key, SCREENING_CHECK, True, metadata, description)
    suggestion = suggest_group(screening, spec.category)
    metadata |= {"suggested": suggestion.group, "reason": suggestion.reason}
    matches_declared = spec.group in (None, suggestion.group)
    description = f"{'looks like' if matches_declared else f'declared {spec.group}, looks like'} {suggestion.group}: {suggestion.reason}"
    return _build_warning_result(key, SCREENING_CHECK, matches_declared, metadata, description)


def render_screening_table(screening: ScreeningReport) -> dg.MetadataValue:
    """What was looked at, a line for each question a person would ask."""
    sizes = screening.image_sizes
    rows: dict[str, object] = {
        "rows looked at": f"{screening.n_rows:,} of {MAX_ROWS:,} wanted, {screening.n_total:,} in the source",
        "characters of an answer": f"median {screening.answer_chars.median:,.0f}, p90 {screening.answer_chars.p90:,.0f}",
        "words of an answer": f"median {screening.answer_words.median:,.0f}, p90 {screening.answer_words.p90:,.0f}",
        "answers of one word": f"{screening.one_word_share:.1%} of {screening.n_answers:,}",
        "most frequent answer": f"{screening.most_frequent_share:.1%}",
        "answers of a row": f"median {screening.answers_per_sample.median:.0f}, p90 {screening.answers_per_sample.p90:.0f}",
        "exact copies": f"{screening.n_copies:,} of all rows",
        "script": ", ".join(f"{name} {share:.0%}" for name, share in screening.script_shares.items()) or "none",
    }
    if sizes is not None:
        rows["pictures"] = f"median {sizes.median_width:.0f} × {sizes.median_height:.0f} px of {sizes.n_images:,}"
        rows["sides"] = f"{sizes.min_side:,} to {sizes.max_side:,} px"
        rows["outside 224 to 4,096 px or 7:1"] = f"{sizes.out_of_range_share:.1%}"
    return render_markdown_table([{"screening": name, "found": value} for name, value in rows.items()])


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
