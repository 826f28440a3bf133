"""Assets `curation/duplicates` and `curation/contamination`: which samples no mixture may take, over all sources.

Both read the current samples of the category tables' sources; neither removes a row.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.common.benchmark_slugs import BENCHMARK_PREFIX
from mvl_assets.config.benchmarks import load_benchmarks
from mvl_assets.config.catalog import list_partition_keys, load_catalog
from mvl_assets.config.duplicate_rules import DuplicateRules
from mvl_assets.config.profile import Profile
from mvl_assets.curation.duplicates import DuplicateReport
from mvl_assets.lake_queries.benchmarks.hit_examples import read_hit_examples
from mvl_assets.lake_queries.benchmarks.hits import HitCounts
from mvl_assets.lake_queries.duplicate_examples import read_duplicate_examples
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.contamination_page import render_hit_counts, render_hits
from mvl_assets.orchestration.duplicates_page import (
    render_duplicate_pairs,
    render_removed_shares,
    render_source_duplicates,
)
from mvl_assets.orchestration.metadata import (
    build_schema_check,
    build_schema_result,
    build_table_metadata,
    render_markdown_table,
)
from mvl_assets.orchestration.resources import LakeResource

DUPLICATES_KEY = dg.AssetKey(["curation", "duplicates"])
CONTAMINATION_KEY = dg.AssetKey(["curation", "contamination"])
SOURCES_CHECK = "sources_keep_their_samples"
HITS_CHECK = "few_samples_touch_a_benchmark"


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
        from mvl_assets.execution.create import create_executor

        profile = asset_keys.load_active_profile()
        report = find_duplicates(
            lake.lake,
            list(load_catalog().values()),
            run_id=context.run_id,
            rules=profile.near_duplicate_rules,
            executor=create_executor(profile.executor),
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
    profile = asset_keys.load_active_profile()

    @dg.asset(
        key=CONTAMINATION_KEY,
        code_version=asset_keys.compute_code_version(
            profile.holdout_fraction,
            asset_keys.list_benchmark_sources(),
            profile.contamination,
            profile.paper_parity,
            list(asset_keys.list_graph_benchmarks()),
        ),
        group_name="curation",
        deps=[*_list_upstream_keys(), *map(asset_keys.build_benchmark_key, load_benchmarks())],
        description="Samples that evaluation asks too: copies of the images and questions of benchmarks, sources that"
        " are benchmarks, and copies of held-out questions. The paper does not check this.",
        kinds={"lance", "duckdb"},
        owners=asset_keys.OWNERS,
        check_specs=[
            build_schema_check(CONTAMINATION_KEY),
            dg.AssetCheckSpec(
                HITS_CHECK,
                asset=CONTAMINATION_KEY,
                description="No more samples touch a benchmark than the profile allows (`contamination: max_hits`); "
                "without that setting it passes.",
                blocking=True,
            ),
        ],
    )
    def _materialize_contamination(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.curation.contamination import find_contamination

        profile = asset_keys.load_active_profile()
        report = find_contamination(
            lake.lake,
            [load_catalog()[slug] for c in asset_keys.list_categories() for slug in list_partition_keys(c)],
            holdout_fraction=profile.holdout_fraction,
            run_id=context.run_id,
            rules=profile.contamination,
            benchmarks={slug: load_benchmarks()[slug] for slug in asset_keys.list_graph_benchmarks()},
            removes_rows=not profile.paper_parity,
        )
        table = lake.lake.get_table("curation/contamination")
        counts, matched = report.counts, report.matched
        benchmarks = [
            {"benchmark": benchmark.source.removeprefix(BENCHMARK_PREFIX), "items": f"{benchmark.n_items:,}"}
            for benchmark in report.benchmarks
        ]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.published.data_version),
            metadata=build_table_metadata(
                table,
                {
                    metadata_keys.HITS: render_markdown_table(
                        [{"kind": k, "hits": n} for k, n in report.hit_counts.items()]
                    ),
                    metadata_keys.ROWS_REMOVED: counts.n_removed,
                    metadata_keys.HITS_ALLOWED: counts.n_allowed,
                    metadata_keys.HITS_BY_SOURCE: render_hit_counts(counts.sources, "source"),
                    metadata_keys.HITS_BY_BENCHMARK: render_hit_counts(counts.benchmarks, "benchmark"),
                    metadata_keys.BENCHMARKS_MATCHED: render_markdown_table(benchmarks),
                    metadata_keys.COMPARED: matched.n_contents,
                    metadata_keys.PAIRS_VERIFIED: matched.n_image_candidates,
                    metadata_keys.PREVIEW: render_hits(lake.lake, read_hit_examples(lake.lake)),
                },
                rows=report.published.n_rows,
            ),
            check_results=[
                build_schema_result(CONTAMINATION_KEY, table),
                _build_hits_result(counts, profile.contamination.max_hits),
            ],
        )

    return _materialize_contamination


def _build_hits_result(counts: HitCounts, max_hits: int | None) -> dg.AssetCheckResult:
    n_hits = counts.n_of_concern
    passed = max_hits is None or n_hits <= max_hits
    return dg.AssetCheckResult(
        asset_key=CONTAMINATION_KEY,
        check_name=HITS_CHECK,
        passed=passed,
        description=None
        if passed
        else f"{n_hits:,} samples touch a benchmark, more than {max_hits:,}; look at the hits, then allow them with a"
        " reason (`contamination: {allow: {SOURCE: ...}}`) or raise `max_hits`",
        metadata={metadata_keys.ROWS: n_hits},
    )


def _list_upstream_keys() -> list[dg.AssetKey]:
    return [dg.AssetKey(["category", c]) for c in asset_keys.list_categories()]


@dg.definitions
def defs() -> dg.Definitions:
    """Return both curation assets."""
    return dg.Definitions(assets=[build_duplicates_asset(), build_contamination_asset()])
