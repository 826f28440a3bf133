"""`rewritten/<c>`: what the models made of a category's group B samples, one partition per source.

Belongs here: the assets and their checks. Does not: what is asked (`prompts/`), how (`rewriting/`), or whether it is
good (`judged`). Only categories with group B sources have one. It spends model time, so nothing launches it by itself.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
import dagster as dg

from mvl_assets.config.catalog import Category, load_catalog
from mvl_assets.config.prompts import load_prompts, rewrite_prompt
from mvl_assets.defs.freshness import current_check, current_result, rewriter
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


def rewritten_asset(category: Category) -> dg.AssetsDefinition:
    key = dg.AssetKey(["rewritten", category])
    partitions = asset_keys.rewritten_partitions(category)
    same = dg.StaticPartitionMapping({k: k for k in partitions.get_partition_keys()})
    prompts = load_prompts()
    profile = asset_keys.profile()
    # Captions have a model of their own.
    models = {m.name: m for m in (rewriter(load_catalog()[slug])[0] for slug in asset_keys.rewritten_sources(category))}

    @dg.asset(
        key=key,
        code_version=asset_keys.settings_version(
            [(m.name, m.revision, m.sees_images, m.max_side) for m in models.values()], profile.rewrite_limit
        ),
        group_name="rewritten",
        partitions_def=partitions,
        deps=[
            dg.AssetDep(dg.AssetKey(["category", category]), partition_mapping=same),
            *(
                asset_keys.from_prompt(rewrite_prompt(prompts, family).name, sources)
                for family, sources in asset_keys.families(category).items()
            ),
        ],
        description=f"Reasoned question-answer pairs made of the short answers of the {category} sources (paper §2.3). "
        "Recomputed from the stored answers; only what was never asked is sent.",
        kinds={"lance", "llm"},
        tags=asset_keys.tags(category),
        owners=asset_keys.OWNERS,
        pool="llm-rewrite",
        check_specs=[sound_check(key, partitions), current_check(key)],
    )
    def _rewritten(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.rewriting.rewrite import rewrite_source

        source, profile = asset_keys.source_of(context), asset_keys.profile()
        watch = Watch(context)
        report = rewrite_source(
            lake.lake, source, profile, run_id=context.run_id, retry=retried(context), progress=watch
        )
        table = lake.lake.table(f"rewritten/{category}")
        model, _ = rewriter(source)
        columns = ["sample_id", "version_id", "blind", "conversations"]
        shown = with_pictures(lake.lake, first_rows(table, columns, source.slug))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.published.data_version),
            metadata=table_metadata(
                table,
                rows=report.rows,
                where=source.slug,
                samples=report.samples,
                requests_wanted=report.wanted,
                requests_reused=report.reused,
                requests_left=report.left,
                requests_sent=report.sent,
                asked_again=report.asked_again,
                tokens_in=report.prompt_tokens,
                tokens_out=report.completion_tokens,
                tokens_per_s=round(report.completion_tokens / max(report.seconds, 1e-9), 1),
                cost=model.price.cost(report.prompt_tokens, report.completion_tokens),
                seconds=round(report.seconds, 2),
                blind_rows=report.blind,
                model=f"{model.name}@{model.revision}",
                unusable=markdown_table([{"error": e, "rows": n} for e, n in report.unusable.items()]),
                speed=watch.plot(),
                preview=preview(lake.lake, shown, ["question", "answer", "original_answer", "blind"]),
            ),
            check_results=[sound_result(key, table, source.slug), current_result(key, lake.lake, category)],
        )

    return _rewritten


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions(assets=[rewritten_asset(c) for c in asset_keys.rewritten_categories()])
