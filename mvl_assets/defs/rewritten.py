"""`rewritten/<category>`: what models wrote from a category's group B samples, one partition per source.

Only categories with sources of group B have one. It costs model time, so nothing launches it automatically.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.config.catalog import Category, list_partition_keys, load_catalog
from mvl_assets.config.prompts import get_rewrite_prompt, load_prompts
from mvl_assets.defs.freshness import build_freshness_check, build_freshness_result, resolve_rewriter
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import (
    attach_source_images,
    build_schema_check,
    build_schema_result,
    read_first_rows,
)
from mvl_assets.orchestration.model_stage_metadata import build_model_stage_metadata
from mvl_assets.orchestration.resources import LakeResource
from mvl_assets.orchestration.retry_tags import parse_retry_error_classes
from mvl_assets.orchestration.stage_progress import StageProgressLogger
from mvl_assets.orchestration.upstream import require_upstream
from mvl_assets.stages import CATEGORY, REWRITTEN

PREVIEW_COLUMNS = ("rewrite_id", "original", "rewritten", "blind")


def build_rewritten_asset(category: Category) -> dg.AssetsDefinition:
    """Return the asset of one category."""
    key = dg.AssetKey([REWRITTEN.name, category])
    partitions = asset_keys.build_rewritten_partitions(category)
    identity_mapping = dg.StaticPartitionMapping({k: k for k in partitions.get_partition_keys()})
    prompts = load_prompts()
    profile = asset_keys.load_active_profile()
    # Sources of captions have another model than the rest. Of all declared sources: one more in the graph makes nothing
    # stale.
    models = {
        m.name: m
        for m in (
            resolve_rewriter(load_catalog()[slug])[0]
            for slug in list_partition_keys(category)
            if load_catalog()[slug].group == "B"
        )
    }

    @dg.asset(
        key=key,
        code_version=asset_keys.compute_code_version(
            [
                (
                    m.name,
                    m.revision,
                    m.supports_images,
                    m.max_image_side,
                    m.encoded_extra_body,
                    m.thinking_tokens,
                    m.reasoning,
                )
                for m in models.values()
            ],
            profile.rewrite_limit,
            profile.list_checks(),
        ),
        group_name=REWRITTEN.name,
        partitions_def=partitions,
        deps=[
            dg.AssetDep(dg.AssetKey([CATEGORY.name, category]), partition_mapping=identity_mapping),
            *(
                asset_keys.build_prompt_dep(get_rewrite_prompt(prompts, family).name, sources)
                for family, sources in asset_keys.group_sources_by_family(category).items()
            ),
        ],
        description=f"Reasoned question-answer pairs from the short answers of the {category} sources (paper §2.3). "
        "Recomputed from the stored answers; only what has no answer is sent.",
        kinds={"lance", "llm"},
        tags=asset_keys.build_category_tags(category),
        owners=asset_keys.OWNERS,
        pool="llm-rewrite",
        check_specs=[build_schema_check(key, partitions), build_freshness_check(key)],
    )
    def _materialize_rewritten(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.rewriting.rewrite import rewrite_source

        source, profile = asset_keys.get_partition_source(context), asset_keys.load_active_profile()
        require_upstream(context, lake.lake, CATEGORY, category)
        progress_logger = StageProgressLogger(context)
        report = rewrite_source(
            lake.lake,
            source,
            profile,
            run_id=context.run_id,
            retry_error_classes=parse_retry_error_classes(context),
            progress=progress_logger,
        )
        table = lake.lake.get_table(report.table)
        preview_rows = attach_source_images(
            lake.lake,
            read_first_rows(table, ["rewrite_id", "version_id", "blind", "conversations"], source.slug),
            source.slug,
        )
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.published.data_version),
            metadata=build_model_stage_metadata(
                lake.lake,
                report,
                profile.get_rewriter(source.family),
                progress_logger,
                preview_rows,
                PREVIEW_COLUMNS,
                {metadata_keys.SAMPLES: report.input_rows},
            ),
            check_results=[
                build_schema_result(key, table, source.slug),
                build_freshness_result(key, lake.lake, category),
            ],
        )

    return _materialize_rewritten


@dg.definitions
def defs() -> dg.Definitions:
    """Return the assets of all categories with sources of group B."""
    return dg.Definitions(assets=[build_rewritten_asset(c) for c in asset_keys.list_rewritten_categories()])
