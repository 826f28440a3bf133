"""Assets `benchmarks/<name>`: the items of the benchmarks that are evaluated, to which training rows are compared.

They are fetched and ingested as sources are. Nothing trains on them (`config/benchmarks.py` says what sees to it), and
a profile's limit does not cut them.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.common.markdown import escape_cell
from mvl_assets.components.source_dataset import build_ingest_metadata
from mvl_assets.config.benchmarks import BenchmarkItems, load_benchmarks
from mvl_assets.fetch.lock import read_lockfile
from mvl_assets.fetch.overview import describe_state
from mvl_assets.lake_queries.views import read_first_samples
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import (
    SAMPLE_COLUMNS,
    build_schema_check,
    build_schema_result,
    build_table_metadata,
    render_preview,
)
from mvl_assets.orchestration.resources import LakeResource
from mvl_assets.stages import BENCHMARKS


def build_benchmark_asset(spec: BenchmarkItems) -> dg.AssetsDefinition:
    """Return the asset `benchmarks/<name>`."""
    key = asset_keys.build_benchmark_key(spec.slug)

    @dg.asset(
        key=key,
        code_version=asset_keys.compute_code_version(*spec.reading_fields, spec.license),
        group_name=BENCHMARKS.name,
        description=_describe(spec),
        kinds={"lance", "huggingface"} if spec.hub else {"lance"},
        owners=asset_keys.OWNERS,
        metadata=_build_declaration_metadata(spec),
        check_specs=[build_schema_check(key)],
    )
    def _materialize_benchmark(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.ingest.sync_source import sync_source

        profile = asset_keys.load_active_profile().model_copy(update={"limit": None})
        report = sync_source(lake.lake, spec, profile, run_id=context.run_id, log=context.log.info)
        table = lake.lake.get_table("samples")
        n_rows = table.count(partition_key=spec.slug)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.data_version),
            metadata=build_table_metadata(
                table,
                {
                    **build_ingest_metadata(spec, report),
                    metadata_keys.PREVIEW: render_preview(
                        lake.lake, read_first_samples(lake.lake, spec.slug), SAMPLE_COLUMNS
                    ),
                },
                rows=n_rows,
            ),
            check_results=[build_schema_result(key, table, spec.slug)],
        )

    return _materialize_benchmark


def build_declared_spec(spec: BenchmarkItems) -> dg.AssetSpec:
    """Return the asset of a benchmark without files: it shows what is declared and how to get them."""
    return dg.AssetSpec(
        asset_keys.build_benchmark_key(spec.slug),
        group_name=BENCHMARKS.name,
        description=f"{_describe(spec)} Declared only: {describe_state(spec, read_lockfile())}.",
        kinds={"huggingface"} if spec.hub else {"file"},
        owners=asset_keys.OWNERS,
        metadata=_build_declaration_metadata(spec),
    )


def _describe(spec: BenchmarkItems) -> str:
    return f"The items of {spec.title}: compared with all training rows, in no mixture."


def _build_declaration_metadata(spec: BenchmarkItems) -> dict[str, object]:
    return {
        metadata_keys.SOURCE: spec.slug,
        metadata_keys.TASKS: ", ".join(spec.tasks),
        metadata_keys.HUB: spec.hub.repo if spec.hub else "unknown",
        metadata_keys.STATE: dg.MetadataValue.md(escape_cell(describe_state(spec, read_lockfile()))),
    }


@dg.definitions
def defs() -> dg.Definitions:
    """Return the assets of all benchmarks."""
    graph_benchmarks = set(asset_keys.list_graph_benchmarks())
    return dg.Definitions(
        assets=[
            build_benchmark_asset(spec) if slug in graph_benchmarks else build_declared_spec(spec)
            for slug, spec in load_benchmarks().items()
        ]
    )
