"""`judged/<category>`: the judge's verdicts on every rewrite and whether it is kept, one partition per source.

The keep rule is part of the profile: changing it sends no request.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.config.catalog import Category, SourceSpec
from mvl_assets.config.profile import PAPER_KEEP_RULE, Profile
from mvl_assets.config.prompts import get_judge_prompts, get_probe_prompt, load_prompts
from mvl_assets.defs.freshness import build_freshness_check
from mvl_assets.defs.model_stage_partition import StagePage, materialize_partition
from mvl_assets.judging.panel import ALL_CRITERIA
from mvl_assets.judging.paper_reference import get_paper_keep_rate
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table import Table
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import (
    MAX_PREVIEW_ROWS,
    attach_source_images,
    build_schema_check,
    read_first_rows,
    render_markdown_table,
)
from mvl_assets.orchestration.resources import LakeResource
from mvl_assets.stages import JUDGED, REWRITTEN
from mvl_assets.view.state import build_page_url

if TYPE_CHECKING:
    from mvl_assets.judging.judge import JudgeReport

PREVIEW_COLUMNS = ("rewrite_id", "original", "rewritten", "verdict")
# Rows among which the preview looks for kept and for dropped ones.
N_PREVIEW_CANDIDATES = 256


def build_judged_asset(category: Category) -> dg.AssetsDefinition:
    """Return the asset of one category."""
    key = dg.AssetKey([JUDGED.name, category])
    partitions = asset_keys.build_rewritten_partitions(category)
    prompts = load_prompts()
    sources_by_prompt: dict[str, list[str]] = {}
    for family, sources in asset_keys.group_sources_by_family(category).items():
        for prompt in get_judge_prompts(prompts, family):
            sources_by_prompt.setdefault(prompt.name, []).extend(sources)
    profile = asset_keys.load_active_profile()
    if profile.prober is not None:
        sources_by_prompt[get_probe_prompt(prompts).name] = list(
            dict.fromkeys(chain.from_iterable(sources_by_prompt.values()))
        )
    judges = [
        (model.name, model.revision, model.supports_images, model.encoded_extra_body, model.thinking_tokens)
        for model in (*profile.judges.values(), *([] if profile.prober is None else [profile.prober]))
    ]
    judging = (profile.judging, profile.gives_reference, profile.n_votes, profile.keep_rule)

    @dg.asset(
        key=key,
        code_version=asset_keys.compute_code_version(*judges, *judging),
        group_name=JUDGED.name,
        partitions_def=partitions,
        deps=[
            dg.AssetKey([REWRITTEN.name, category]),
            *(asset_keys.build_prompt_dep(name, sources) for name, sources in sources_by_prompt.items()),
        ],
        description=f"Verdicts on the rewritten pairs of the {category} sources, one constrained Yes/No per criterion "
        "with its probability (paper §3), agreement with the reference answer, and what the keep rule says.",
        kinds={"lance", "llm"},
        tags=asset_keys.build_category_tags(category),
        owners=asset_keys.OWNERS,
        pool="llm-judge",
        check_specs=[build_schema_check(key, partitions), build_freshness_check(key)],
    )
    def _materialize_judged(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.judging.judge import judge_source

        return materialize_partition(context, lake.lake, REWRITTEN, judge_source, _build_page)

    return _materialize_judged


def _build_page(lake: Lake, source: SourceSpec, profile: Profile, report: "JudgeReport") -> StagePage:
    """Return what the page shows of a run."""
    table = lake.get_table(report.table)
    # Another rule keeps other pairs, so that its share says nothing beside the paper's.
    paper_keep_rate = round(get_paper_keep_rate(source.category), 4) if profile.keep_rule == PAPER_KEEP_RULE else None
    drop_reasons = [{"reason": reason, "rows": n} for reason, n in report.drop_reasons.items()]
    return StagePage(
        profile.get_model("judge"),
        attach_source_images(
            lake, _choose_preview_rows(table, source.slug), source.slug, rewritten_category=source.category
        ),
        PREVIEW_COLUMNS,
        {
            metadata_keys.PAIRS_PAGE: dg.MetadataValue.url(build_page_url(source.category, source.slug)),
            metadata_keys.KEPT: report.kept,
            metadata_keys.KEEP_RATE: round(report.kept / report.rows, 4) if report.rows else None,
            metadata_keys.CATEGORY_KEEP_RATE: _compute_keep_rate(table),
            metadata_keys.PAPER_KEEP_RATE: paper_keep_rate,
            metadata_keys.KEEP_RULE: profile.keep_rule,
            metadata_keys.DROP_REASONS: render_markdown_table(drop_reasons),
            **_build_panel_metadata(profile, report),
        },
    )


def _choose_preview_rows(table: Table, source: str) -> list[dict[str, Any]]:
    """Return as many kept as dropped rows of a partition, as far as there are, each with its `verdict` in words."""
    columns = ["rewrite_id", "verdicts", "matches_reference", "keep", "drop_reason"]
    candidates = read_first_rows(table, columns, source, N_PREVIEW_CANDIDATES)
    kept, dropped = ([row for row in candidates if row["keep"] is keep] for keep in (True, False))
    n_kept = max(MAX_PREVIEW_ROWS // 2, MAX_PREVIEW_ROWS - len(dropped))
    chosen = [*kept[:n_kept], *dropped[: MAX_PREVIEW_ROWS - len(kept[:n_kept])]]
    return [{**row, "verdict": _format_verdict(row)} for row in chosen]


def _format_verdict(row: Mapping[str, Any]) -> str:
    outcome = "kept" if row["keep"] else f"dropped: {row['drop_reason']}"
    criteria = [
        f"{v['criterion']} {'Yes' if v['verdict'] else 'No'}" + ("" if v["p_yes"] is None else f" {v['p_yes']:.2f}")
        for v in row["verdicts"] or []
    ]
    agreement = {True: "as the reference answer", False: "not as the reference answer"}.get(row["matches_reference"])
    return "; ".join([outcome, *criteria, *([agreement] if agreement else [])])


def _compute_keep_rate(table: Table) -> float | None:
    """Return the share kept over all the category's sources."""
    rows = table.count()
    return round(table.count("keep") / rows, 4) if rows else None


def _build_panel_metadata(profile: Profile, report: "JudgeReport") -> dict[str, Any]:
    """Return how the judges of a panel agree, where there is one."""
    if not report.panel_agreement:
        return {}
    agreement_rows = [
        {
            "criterion": criterion,
            "pairs": agreement.n,
            "judged alike": _round(agreement.observed_agreement),
            "kappa": _round(agreement.kappa),
        }
        for criterion, agreement in report.panel_agreement.items()
    ]
    in_all = report.panel_agreement[ALL_CRITERIA]
    return {
        metadata_keys.PANEL: ", ".join(f"{model.name}@{model.revision}" for model in profile.judges.values()),
        metadata_keys.PANEL_RULE: profile.judging.panel_rule,
        metadata_keys.JUDGES_COMPARED: in_all.n,
        metadata_keys.JUDGES_AGREE: _round(in_all.observed_agreement),
        metadata_keys.JUDGES_KAPPA: _round(in_all.kappa),
        metadata_keys.PANEL_AGREEMENT: render_markdown_table(agreement_rows),
    }


def _round(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


@dg.definitions
def defs() -> dg.Definitions:
    """Return the assets of all categories with sources of group B."""
    return dg.Definitions(assets=[build_judged_asset(c) for c in asset_keys.list_rewritten_categories()])
