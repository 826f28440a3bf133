"""Assets `curation/duplicates` and `curation/contamination`: which samples no mixture may take, over all sources.

Both read the current samples of the category tables' sources; neither removes a row.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.config.catalog import list_partition_keys, load_catalog
from mvl_assets.config.duplicate_rules import DuplicateRules
from mvl_assets.config.profile import Profile
from mvl_assets.curation.duplicates import DuplicateReport
from mvl_assets.lake_queries.duplicate_examples import read_duplicate_examples
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.duplicates_page import (
    render_duplicate_pairs,
    render_removed_shares,
    render_source_duplicates,
)
from mvl_assets.orchestration.metadata import (
    MAX_ID_CHARS,
    build_schema_check,
    build_schema_result,
    build_table_metadata,
    read_first_rows,
    render_markdown_table,
    render_preview,
)
from mvl_assets.orchestration.resources import LakeResource

DUPLICATES_KEY = dg.AssetKey(["curation", "duplicates"])
CONTAMINATION_KEY = dg.AssetKey(["curation", "contamination"])
CONTAMINATION_COLUMNS = ("source", "sample_id", "kind", "benchmark")
SOURCES_CHECK = "sources_keep_their_samples"


def build_duplicates_asset() -> dg.AssetsDefinition:
    """Return the asset `curation/duplicates`."""

    @dg.asset(
        key=DUPLICATES_KEY,
        code_version=asset_keys.compute_code_version(asset_keys.load_active_profile().near_duplicate_rules),
        group_name="curation",
        deps=_list_upstream_keys(),
        description="Samples that repeat another exactly or nearly, within and across sources, and which one stays:"
        " the same images or verified copies of them, and the same question and answer. The paper did not remove them.",
        kinds={"lance", "duckdb"},
        owners=asset_keys.OWNERS,
        check_specs=[
            build_schema_check(DUPLICATES_KEY),
            dg.AssetCheckSpec(
                SOURCES_CHECK,
                asset=DUPLICATES_KEY,
                description="No source loses more of its samples than the profile allows (`duplicates: max_removed`)"
                " without a reason in `allow_removed`.",
                blocking=True,
            ),
        ],
    )
    def _materialize_duplicates(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.curation.duplicates import find_duplicates

        profile = asset_keys.load_active_profile()
        report = find_duplicates(
            lake.lake, list(load_catalog().values()), run_id=context.run_id, rules=profile.near_duplicate_rules
        )
        table = lake.lake.get_table("curation/duplicates")
        near = report.near
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.published.data_version),
            metadata=build_table_metadata(
                table,
                {
                    metadata_keys.COMPARED: report.n_compared,
                    metadata_keys.PAIRS_VERIFIED: near and near.n_image_candidates + near.n_sample_candidates,
                    metadata_keys.OTHER_QUESTIONS: sum(source.n_other_question for source in report.sources),
                    metadata_keys.REMOVED_SHARES: render_removed_shares(report.sources),
                    metadata_keys.DUPLICATES_BY_SOURCE: render_source_duplicates(report.sources),
                    metadata_keys.PREVIEW: render_duplicate_pairs(lake.lake, read_duplicate_examples(lake.lake)),
                },
                rows=report.n_duplicates,
            ),
            check_results=[
                build_schema_result(DUPLICATES_KEY, table),
                _build_sources_result(report, profile.duplicates, is_used=_is_table_used(profile)),
            ],
        )

    return _materialize_duplicates


def _is_table_used(profile: Profile) -> bool:
    """Return whether mixtures leave duplicates out: what nobody removes needs no person to agree."""
    return profile.mixture.drop_duplicates and not profile.paper_parity


def _build_sources_result(report: DuplicateReport, rules: DuplicateRules, *, is_used: bool) -> dg.AssetCheckResult:
    from mvl_assets.curation.duplicates import list_emptied_sources

    emptied = list_emptied_sources(report, rules) if is_used else []
    names = ", ".join(f"{source.source} ({source.removed_share:.0%})" for source in emptied)
    return dg.AssetCheckResult(
        asset_key=DUPLICATES_KEY,
        check_name=SOURCES_CHECK,
        passed=not emptied,
        description=f"{names} would lose more than {rules.max_removed:.0%}; look at the pairs, then allow it with a"
        f" reason in the profile (`duplicates: {{allow_removed: {{{emptied[0].source}: ...}}}}`)"
        if emptied
        else None,
        metadata={metadata_keys.DUPLICATES_BY_SOURCE: render_source_duplicates(emptied)},
    )


def build_contamination_asset() -> dg.AssetsDefinition:
    """Return the asset `curation/contamination`."""

    @dg.asset(
        key=CONTAMINATION_KEY,
        code_version=asset_keys.compute_code_version(
            asset_keys.load_active_profile().holdout_fraction, asset_keys.list_benchmark_sources()
        ),
        group_name="curation",
        deps=_list_upstream_keys(),
        description="Samples that evaluation asks too: sources that are benchmarks, and copies of held-out questions."
        " The paper does not check this.",
        kinds={"lance"},
        owners=asset_keys.OWNERS,
        check_specs=[build_schema_check(CONTAMINATION_KEY)],
    )
    def _materialize_contamination(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.curation.contamination import find_contamination

        sources = [load_catalog()[slug] for c in asset_keys.list_categories() for slug in list_partition_keys(c)]
        holdout_fraction = asset_keys.load_active_profile().holdout_fraction
        report = find_contamination(lake.lake, sources, holdout_fraction=holdout_fraction, run_id=context.run_id)
        table = lake.lake.get_table("curation/contamination")
        preview_rows = [
            {
                "sample and why": f"{_format_sample_name(row['source'], row['sample_id'])}:"
                f" {', '.join(filter(None, [row['kind'], row['benchmark']]))}"
            }
            for row in read_first_rows(table, CONTAMINATION_COLUMNS, None)
        ]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.published.data_version),
            metadata=build_table_metadata(
                table,
                {
                    metadata_keys.HITS: render_markdown_table(
                        [{"kind": k, "rows": n} for k, n in report.hit_counts.items()]
                    ),
                    metadata_keys.PREVIEW: render_preview(lake.lake, preview_rows, ["sample and why"]),
                },
                rows=report.published.n_rows,
            ),
            check_results=[build_schema_result(CONTAMINATION_KEY, table)],
        )

    return _materialize_contamination


def _format_sample_name(source: str, sample_id: str) -> str:
    """Return source and id with a space between, where a narrow page breaks the line; columns would not fit it."""
    return f"{source} {sample_id[:MAX_ID_CHARS]}"


def _list_upstream_keys() -> list[dg.AssetKey]:
    return [dg.AssetKey(["category", c]) for c in asset_keys.list_categories()]


@dg.definitions
def defs() -> dg.Definitions:
    """Return both curation assets."""
    return dg.Definitions(assets=[build_duplicates_asset(), build_contamination_asset()])
