"""Assets `scores/<name>`: scores that others gave samples, from Parquet files that the profile names."""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.config.score_file import ScoreFile
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import (
    build_schema_check,
    build_schema_result,
    build_table_metadata,
    render_markdown_table,
)
from mvl_assets.orchestration.resources import LakeResource
from mvl_assets.stages import CATEGORY, SCORES


def build_scores_asset(name: str, score_file: ScoreFile) -> dg.AssetsDefinition:
    """Return the asset `scores/<name>`."""
    key = dg.AssetKey([SCORES.name, name])

    @dg.asset(
        key=key,
        code_version=asset_keys.compute_code_version(score_file),
        group_name=SCORES.name,
        deps=[dg.AssetKey([CATEGORY.name, category]) for category in asset_keys.list_categories()],
        description=f"{', '.join(score_file.columns)} of {score_file.source or 'samples'}, from {score_file.path}."
        " Materialise it again when the file has changed.",
        kinds={"lance", "parquet"},
        owners=asset_keys.OWNERS,
        check_specs=[build_schema_check(key)],
    )
    def _materialize_scores(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.curation.foreign_scores import join_scores

        report = join_scores(lake.lake, name, score_file, run_id=context.run_id)
        table = lake.lake.get_table(f"{SCORES.name}/{name}")
        sources = [
            {"source": source.source, "with scores": f"{source.n_scored:,}", "without": f"{source.n_unscored:,}"}
            for source in report.sources
        ]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.published.data_version),
            metadata=build_table_metadata(
                table,
                {
                    metadata_keys.SCORED_SAMPLES: render_markdown_table(sources),
                    metadata_keys.UNKNOWN_IDS: report.n_unknown,
                    metadata_keys.MISSING_IDS: report.n_without_id,
                },
                rows=report.published.n_rows,
            ),
            check_results=[build_schema_result(key, table)],
        )

    return _materialize_scores


@dg.definitions
def defs() -> dg.Definitions:
    """Return the assets of the scores that the profile names."""
    scores = asset_keys.load_active_profile().scores
    return dg.Definitions(assets=[build_scores_asset(name, score_file) for name, score_file in scores.items()])
