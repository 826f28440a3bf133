"""The checks of a raw asset, and the numbers of its screening as the UI shows them.

Belongs here: what a declaration is held against what was found. Does not: how it is measured (`curation/screening`).
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.curation.screening import ENOUGH, ROWS, Screening, suggest
from mvl_assets.orchestration.metadata import markdown_table

EXPECTED = "rows_as_expected"
LICENSED = "license_known"
SCREENING = "screening"
BENCHMARKS = "no_benchmark_related"
# Declared counts come from copies of a source and are sometimes rounded ("79k").
TOLERANCE = 0.1
RELATIONS = {"is_benchmark": "is itself the benchmark", "shares_origin": "shares base sets with the benchmark"}


def source_checks(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """None of them stops what comes after."""
    words = {
        EXPECTED: "About as many rows as the source is said to hold.",
        LICENSED: "The source's own licence is known.",
        SCREENING: "The answers look like those of the declared group (arXiv 2412.05237 §2.1).",
        BENCHMARKS: "The source is no evaluation benchmark, and is known to share nothing with one.",
    }
    return [dg.AssetCheckSpec(name, asset=key, description=text) for name, text in words.items()]


def expected_result(key: dg.AssetKey, spec: SourceSpec, found: int, limit: int | None) -> dg.AssetCheckResult:
    """Warns when the whole source was read and the rows differ from the declared count by more than `TOLERANCE`."""
    from mvl_assets.demo_data.write import is_miniature

    expected = spec.expected
    skipped = (
        "no count is declared"
        if expected is None
        else f"the declared count is of {expected.unit}, not of rows"
        if expected.unit != "rows"
        else f"the profile reads at most {limit} rows"
        if limit is not None
        else "the files are a miniature"
        if is_miniature(spec.root)
        else None
    )
    metadata: dict[str, Any] = {"found": found}
    if expected is not None:
        metadata["expected"] = expected.count
    if skipped:
        metadata["not_compared"] = skipped
    close = expected is not None and abs(found - expected.count) <= TOLERANCE * expected.count
    return _warning(key, EXPECTED, skipped is not None or close, metadata)


def licensed_result(key: dg.AssetKey, spec: SourceSpec) -> dg.AssetCheckResult:
    """Warns when nobody knows the licence; an aggregator's card does not count."""
    evidence = spec.evidence.get("license")
    metadata = {
        "license": spec.license or "unknown",
        "basis": evidence.basis if evidence else "unknown",
        "note": (evidence and evidence.note) or "",
    }
    return _warning(key, LICENSED, spec.license is not None, metadata)


def benchmark_result(key: dg.AssetKey, spec: SourceSpec) -> dg.AssetCheckResult:
    """Warns with the benchmarks that the source is, or was built from the same base sets as."""
    related = [{"benchmark": b.name, "relation": RELATIONS[b.relation]} for b in spec.benchmarks]
    metadata = {"benchmarks": markdown_table(related) if related else "none is known"}
    words = "; ".join(f"{b['relation']} {b['benchmark']}" for b in related) or None
    return _warning(key, BENCHMARKS, not related, metadata, words)


def screening_result(key: dg.AssetKey, spec: SourceSpec, found: Screening) -> dg.AssetCheckResult:
    """Warns when the rule of `suggest` puts the source into another group than the declaration does."""
    metadata: dict[str, Any] = {"rows": found.rows, "declared": spec.group or "none"}
    if found.rows < ENOUGH:
        words = f"not enough rows: {found.rows}, and {ENOUGH} are needed for a suggestion"
        return _warning(key, SCREENING, True, metadata, words)
    suggestion = suggest(found, spec.category)
    metadata |= {"suggested": suggestion.group, "reason": suggestion.reason}
    same = spec.group in (None, suggestion.group)
    words = f"{'looks like' if same else f'declared {spec.group}, looks like'} {suggestion.group}: {suggestion.reason}"
    return _warning(key, SCREENING, same, metadata, words)


def screening_table(found: Screening) -> dg.MetadataValue:
    """What was looked at, a line for each question a person would ask."""
    sizes = found.sizes
    lines: dict[str, object] = {
        "rows looked at": f"{found.rows:,} of {ROWS:,} wanted, {found.total:,} in the source",
        "characters of an answer": f"median {found.chars.median:,.0f}, p90 {found.chars.p90:,.0f}",
        "words of an answer": f"median {found.words.median:,.0f}, p90 {found.words.p90:,.0f}",
        "answers of one word": f"{found.one_word:.1%} of {found.answers:,}",
        "most frequent answer": f"{found.most_frequent:.1%}",
        "answers of a row": f"median {found.turns.median:.0f}, p90 {found.turns.p90:.0f}",
        "exact copies": f"{found.copies:,} of all rows",
        "script": ", ".join(f"{name} {share:.0%}" for name, share in found.scripts.items()) or "none",
    }
    if sizes is not None:
        lines["pictures"] = f"median {sizes.width:.0f} × {sizes.height:.0f} px of {sizes.pictures:,}"
        lines["sides"] = f"{sizes.shortest:,} to {sizes.longest:,} px"
        lines["outside 224 to 4,096 px or 7:1"] = f"{sizes.outside:.1%}"
    return markdown_table([{"screening": name, "found": value} for name, value in lines.items()])


def _warning(
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
