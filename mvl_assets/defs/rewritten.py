"""`rewritten/<category>`: what models wrote from a category's group B samples, one partition per source.

Only categories with sources of group B have one. It costs model time, so nothing launches it automatically.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
from typing import TYPE_CHECKING

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.config.catalog import Category, SourceSpec, list_partition_keys, load_catalog
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import get_rewrite_prompt, load_prompts
from mvl_assets.defs.freshness import build_freshness_check, resolve_rewriter
from mvl_assets.defs.model_stage_partition import StagePage, materialize_partition
from mvl_assets.lake.lake import Lake
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import (
    attach_source_images,
    build_schema_check,
    read_first_rows,
)
from mvl_assets.orchestration.resources import LakeResource
from mvl_assets.stages import CATEGORY, REWRITTEN

if TYPE_CHECKING:
    from mvl_assets.model_stage.parts import StageReport

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

        return materialize_partition(context, lake.lake, CATEGORY, rewrite_source, _build_page)

    return _materialize_rewritten


def _build_page(lake: Lake, source: SourceSpec, profile: Profile, report: "StageReport") -> StagePage:
    """Return what the page shows of a run."""
    columns = ["rewrite_id", "version_id", "blind", "conversations"]
    rows = read_first_rows(lake.get_table(report.table), columns, source.slug)
    return StagePage(
        profile.get_rewriter(source.family),
        attach_source_images(lake, rows, source.slug),
        PREVIEW_COLUMNS,
        {metadata_keys.SAMPLES: report.input_rows},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Return the assets of all categories with sources of group B."""
    return dg.Definitions(assets=[build_rewritten_asset(c) for c in asset_keys.list_rewritten_categories()])
