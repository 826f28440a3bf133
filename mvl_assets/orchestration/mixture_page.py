"""What the page of a mixture shows: wanted and reached rows and shares, as tables, a plot and results of checks."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.common.licenses import Use, to_spdx
from mvl_assets.common.markdown import embed_image, format_markdown_table
from mvl_assets.config.mixture_config import MixtureConfig
from mvl_assets.curation.missed_shares import (
    describe_rewrites,
    describe_total_rewrites,
    list_missed_rewrites,
    list_missed_rows,
)
from mvl_assets.curation.mixing import MixturePlan
from mvl_assets.lake_queries.mixtures.candidates import KeptRewrites, UnlicensedRows
from mvl_assets.orchestration.metadata import render_in_dialog
from mvl_assets.orchestration.share_plot import draw_share_plot
from mvl_assets.view.diagrams import GOOD, FlowLink, draw_flow

TARGETS_CHECK = "targets_met"
REWRITES_CHECK = "rewritten_share_met"
MAX_SOURCES = 200
MAX_LABEL_CHARS = 8
IN_MIXTURE = "in the mixture"


def render_fills(mixture: MixtureConfig, plan: MixturePlan) -> dg.MetadataValue:
    """Return a plot and a table of the categories: rows and rewritten rows, wanted and reached."""
    table = format_markdown_table(
        [
            {
                "category": fill.category,
                "rows wanted": f"{fill.target:,}",
                "taken": f"{fill.selected:,}",
                "available": f"{fill.available:,}",
                "rewritten wanted": f"{mixture.rewritten_share:.0%}" if fill.has_rewrites else "",
                "reached": f"{fill.rewritten / fill.selected:.0%} ({fill.rewritten:,})" if fill.selected else "",
                "can be taken": f"{fill.rewritten_available:,}",
                "short of": ", ".join(
                    filter(
                        None,
                        [f"{fill.shortfall:,} rows" if fill.shortfall > 0 else "", describe_rewrites(mixture, fill)],
                    )
                ),
            }
            for fill in plan.fills
        ]
    )
    if not any(fill.target for fill in plan.fills):
        return dg.MetadataValue.md(table)
    return render_in_dialog(f"{embed_image(_draw_fills(mixture, plan), 'wanted and reached shares')}\n\n{table}")


def _draw_fills(mixture: MixtureConfig, plan: MixturePlan) -> bytes:
    fills = [fill for fill in plan.fills if fill.target]
    n_rows = sum(fill.target for fill in fills)
    labels = [fill.category[:MAX_LABEL_CHARS] for fill in fills]
    return draw_share_plot(
        {
            "share of the rows": (
                labels,
                {
                    "wanted": [fill.target / n_rows for fill in fills],
                    "reached": [fill.selected / n_rows for fill in fills],
                },
            ),
            "rewritten, of the rows of a category": (
                labels,
                {
                    "wanted": [mixture.rewritten_share if fill.has_rewrites else 0.0 for fill in fills],
                    "reached": [fill.rewritten / max(1, fill.selected) for fill in fills],
                },
            ),
        }
    )


def render_source_fills(plan: MixturePlan) -> dg.MetadataValue:
    """Return a table of the sources, those that miss most rows first."""
    fills = sorted(plan.source_fills, key=lambda fill: (fill.selected - fill.target, fill.category, fill.source))
    return render_in_dialog(
        format_markdown_table(
            [
                {
                    "source": fill.source,
                    "category": fill.category,
                    "wanted": f"{fill.target:,}",
                    "taken": f"{fill.selected:,}",
                    "original": f"{fill.selected - fill.rewritten:,}",
                    "rewritten": f"{fill.rewritten:,}",
                    "available": f"{fill.available:,}",
                    "why": fill.reason,
                }
                for fill in fills[:MAX_SOURCES]
            ]
        )
    )


def render_kept_rewrites(plan: MixturePlan) -> dg.MetadataValue:
    """Return a picture and a table of the kept rewrites: how many are taken, and why others cannot be."""
    taken_by_category = {fill.category: fill.rewritten for fill in plan.fills}
    table = format_markdown_table(
        [
            {
                "category": kept.category,
                "taken of kept": f"{taken_by_category.get(kept.category, 0):,} of {kept.kept:,}",
                "not to be taken": format_exclusions(kept),
            }
            for kept in plan.kept_rewrites
        ]
    )
    flow = _draw_kept_rewrites(plan, taken_by_category)
    if not flow:
        return dg.MetadataValue.md(table)
    embedded = embed_image(flow.encode(), "the flow of kept rewrites", "image/svg+xml")
    return render_in_dialog(f"{embedded}\n\n{table}")


def _draw_kept_rewrites(plan: MixturePlan, taken_by_category: Mapping[str, int]) -> str:
    links = []
    for kept in plan.kept_rewrites:
        # Rows that are repeated are taken once.
        n_taken = min(kept.available, taken_by_category.get(kept.category, 0))
        links += [
            FlowLink(0, kept.category, end, n)
            for end, n in (
                (IN_MIXTURE, n_taken),
                ("not taken", kept.available - n_taken),
                ("held out", kept.held_out),
                ("duplicate, or in a benchmark", kept.excluded),
                ("refused for its licences", kept.unlicensed),
                ("refused by the filter", kept.filtered),
                ("of an older version", kept.outdated),
            )
        ]
    return draw_flow(links, ["kept rewrites", "used"], {IN_MIXTURE: GOOD}, "rewrites")


def render_refused(plan: MixturePlan, use: Use) -> dg.MetadataValue:
    """Return tables of what the clauses of the filter do, and of what is refused for its licences."""
    clauses = [
        {
            "clause": count.clause,
            "category": count.category,
            "rows": f"{count.rows:,}",
            "refused": f"{count.refused:,}",
            "by it alone": f"{count.refused_alone:,}",
            "unknown, taken": f"{count.unknown:,}",
        }
        for count in plan.clauses
    ]
    unlicensed = [
        {"source": refused.source, "rows": f"{refused.rows:,}", "why": describe_terms_of(refused, use)}
        for refused in sorted(plan.unlicensed, key=lambda refused: -refused.rows)[:MAX_SOURCES]
    ]
    tables = [format_markdown_table(rows) for rows in (clauses, unlicensed) if rows]
    return render_in_dialog("\n\n".join(tables) or "none")


def describe_terms_of(refused: UnlicensedRows, use: Use) -> str:
    """Return why rows are refused for their licences."""
    if refused.rewriter is not None:
        return f"the output terms of {refused.rewriter} do not permit `{use}`, or are unknown (`license` of the model)"
    if refused.license is None:
        return "no licence is known (`license` of the source)"
    return f"{to_spdx(refused.license)} does not permit `{use}`"


def format_exclusions(kept_rewrites: KeptRewrites) -> str:
    """Return why kept rewrites cannot be taken, in words: columns of their own would not fit a narrow page."""
    counts = {
        "outdated": kept_rewrites.outdated,
        "held out": kept_rewrites.held_out,
        "duplicate or benchmark": kept_rewrites.excluded,
        "licence": kept_rewrites.unlicensed,
        "filter": kept_rewrites.filtered,
    }
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if count) or "none"


def build_share_checks(key: dg.AssetKey, mixture: MixtureConfig) -> list[dg.AssetCheckSpec]:
    """Return the checks of a mixture's shares, which stop what comes after if the profile says so."""
    is_blocking = mixture.missed_shares == "block"
    margin = f"within {mixture.tolerance:.0%} (`mixture: tolerance`)"
    return [
        dg.AssetCheckSpec(
            TARGETS_CHECK,
            asset=key,
            description=f"Every category fills its share, and sources have the shares that they are given, {margin}.",
            blocking=is_blocking,
        ),
        dg.AssetCheckSpec(
            REWRITES_CHECK,
            asset=key,
            description=f"{mixture.rewritten_share:.0%} of the rows of every category with group B sources are"
            f" rewritten, {margin}.",
            blocking=is_blocking,
        ),
    ]


def build_share_results(key: dg.AssetKey, mixture: MixtureConfig, plan: MixturePlan) -> list[dg.AssetCheckResult]:
    """Return the results of the checks, with wanted and reached numbers."""
    missed_rows = list_missed_rows(mixture, plan.fills, plan.source_fills)
    missed_rewrites = list_missed_rewrites(mixture, plan.fills)
    severity = dg.AssetCheckSeverity.ERROR if mixture.missed_shares == "block" else dg.AssetCheckSeverity.WARN
    n_selected, n_target = (sum(getattr(f, name) for f in plan.fills) for name in ("selected", "target"))
    totals = {
        TARGETS_CHECK: (missed_rows, f"{n_selected:,} of {n_target:,} rows"),
        REWRITES_CHECK: (missed_rewrites, describe_total_rewrites(mixture, plan.fills)),
    }
    return [
        dg.AssetCheckResult(
            asset_key=key,
            check_name=name,
            passed=not missed,
            severity=severity,
            description="; ".join([total, *missed]),
            metadata={metadata_keys.PROBLEMS: dg.MetadataValue.md("\n".join(f"- {line}" for line in missed) or "none")},
        )
        for name, (missed, total) in totals.items()
    ]
