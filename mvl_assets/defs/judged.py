"""`judged/<c>`: the judge's verdict on every rewritten pair and whether it stays, one partition per source.

Belongs here: the assets and their checks. Does not: what is asked (`prompts/judge_*`), how, or the keep rule's meaning
(`judging/`). The rule itself is data of the profile: changing it asks nothing again.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
from typing import TYPE_CHECKING, Any

import dagster as dg

from mvl_assets.config.catalog import Category
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import judge_prompts, load_prompts
from mvl_assets.defs.freshness import current_check, current_result
from mvl_assets.judging.paper_reference import paper_keep_rate
from mvl_assets.lake.table import Table
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import (
    first_rows,
    markdown_table,
    preview,
    sound_check,
    sound_result,
    table_metadata,
    with_pictures,
)
from mvl_assets.orchestration.resources import LakeResource
from mvl_assets.orchestration.retry_tags import retried
from mvl_assets.orchestration.stage_progress import Watch

if TYPE_CHECKING:
    from mvl_assets.judging.judge import JudgeReport

SHOWN = ("question", "answer", "original_answer", "answer_agrees", "p_yes", "keep", "drop_reason")


def judged_asset(category: Category) -> dg.AssetsDefinition:
    key = dg.AssetKey(["judged", category])
    partitions = asset_keys.rewritten_partitions(category)
    prompts = load_prompts()
    asked: dict[str, list[str]] = {}
    for family, sources in asset_keys.families(category).items():
        for prompt in judge_prompts(prompts, family):
            asked.setdefault(prompt.name, []).extend(sources)
    judge, second = asset_keys.profile().model_for("judge"), asset_keys.profile().second_judge
    judges = [(m.name, m.revision, m.sees_images) for m in (judge, second) if m is not None]

    @dg.asset(
        key=key,
        code_version=asset_keys.settings_version(*judges, asset_keys.profile().keep),
        group_name="judged",
        partitions_def=partitions,
        deps=[
            dg.AssetKey(["rewritten", category]),
            *(asset_keys.from_prompt(name, sources) for name, sources in asked.items()),
        ],
        description=f"Verdicts on the rewritten pairs of the {category} sources, one constrained Yes/No per criterion "
        "with its probability (paper §3), the agreement with the original key, and what the keep rule says.",
        kinds={"lance", "llm"},
        tags=asset_keys.tags(category),
        owners=asset_keys.OWNERS,
        pool="llm-judge",
        check_specs=[sound_check(key, partitions), current_check(key)],
    )
    def _judged(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.judging.judge import judge_source

        source, profile = asset_keys.source_of(context), asset_keys.profile()
        watch = Watch(context)
        report = judge_source(lake.lake, source, profile, run_id=context.run_id, retry=retried(context), progress=watch)
        table = lake.lake.table(f"judged/{category}")
        model = profile.model_for("judge")
        columns = ["rewrite_id", "sample_id", "p_yes", "answer_agrees", "keep", "drop_reason"]
        shown = with_pictures(lake.lake, first_rows(table, columns, source.slug), rewritten=category)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.published.data_version),
            metadata=table_metadata(
                table,
                rows=report.rows,
                where=source.slug,
                kept=report.kept,
                keep_rate=round(report.kept / report.rows, 4) if report.rows else None,
                category_keep_rate=_keep_rate(table),
                paper_keep_rate=round(paper_keep_rate(category), 4),
                keep_rule=profile.keep.rule,
                drop_reasons=markdown_table([{"reason": r, "rows": n} for r, n in report.drop_reasons.items()]),
                requests_wanted=report.wanted,
                requests_reused=report.reused,
                requests_left=report.left,
                requests_sent=report.sent,
                tokens_in=report.prompt_tokens,
                tokens_out=report.completion_tokens,
                cost=report.cost,
                seconds=round(report.seconds, 2),
                model=f"{model.name}@{model.revision}",
                blind_rows=report.blind,
                **_second(profile, report),
                unusable=markdown_table([{"error": e, "rows": n} for e, n in report.unusable.items()]),
                speed=watch.plot(),
                preview=preview(lake.lake, shown, SHOWN),
            ),
            check_results=[sound_result(key, table, source.slug), current_result(key, lake.lake, category)],
        )

    return _judged


def _keep_rate(table: Table) -> float | None:
    """Over all the category's sources."""
    rows = table.count()
    return round(table.count("keep") / rows, 4) if rows else None


def _second(profile: Profile, report: "JudgeReport") -> dict[str, Any]:
    """How the two judges agree, where there are two."""
    model = profile.second_judge
    if model is None or report.second is None:
        return {}
    share, kappa = report.second.share, report.second.kappa
    return {
        "second_judge": f"{model.name}@{model.revision}",
        "judges_compared": report.second.n,
        "judges_agree": None if share is None else round(share, 4),
        "judges_kappa": None if kappa is None else round(kappa, 4),
    }


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions(assets=[judged_asset(c) for c in asset_keys.rewritten_categories()])
