"""`SourceDataset`: one declared source becomes its `raw/<slug>` asset and the checks on it.

Belongs here: the asset, its checks and what the graph shows of a declaration. Does not: the fields of a declaration
(`catalog.SourceSpec`, the one definition of them) or how files become rows (`ingest/`).

No `from __future__ import annotations` here: Dagster reads the annotation of an asset's `context` as an object.
"""

from dataclasses import dataclass
from typing import Any, Self

import dagster as dg

from mvl_assets.components.source_checks import (
    build_benchmark_result,
    build_license_result,
    build_row_count_result,
    build_screening_result,
    build_source_checks,
    render_screening_table,
)
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.fetch.lock import read_lockfile
from mvl_assets.fetch.overview import describe_state
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import (
    SAMPLE_COLUMNS,
    build_schema_check,
    build_schema_result,
    build_table_metadata,
    render_markdown_table,
    render_preview,
)
from mvl_assets.orchestration.resources import LakeResource

GROUP_DESCRIPTIONS = {
    "A": "used as it is (group A)",
    "B": "to be rewritten (group B)",
    "C": "screened out (group C)",
    None: "in no group of the paper",
}


@dataclass(frozen=True)
class SourceDataset(dg.Component):
    """One source dataset: its raw asset and the checks on it."""

    spec: SourceSpec

    @classmethod
    def get_model_cls(cls) -> type[SourceSpec]:
        """Dagster validates `attributes` with the catalog's own model. So the fields are defined once, and no value is
        a template: `{{` in a records map stays what it is."""
        return SourceSpec

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> Self:
        return cls(SourceSpec.model_validate(attributes))

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        return dg.ComponentTypeSpec(
            description="One source dataset of the catalog: its raw asset and the checks on it.",
            owners=asset_keys.OWNERS,
            tags=["source"],
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return dg.Definitions(assets=[build_raw_asset(self.spec)])


def build_raw_asset(spec: SourceSpec) -> dg.AssetsDefinition:
    """`raw/<slug>`: the files of one source, in the tables `samples`, `images` and `rejects`."""
    key = dg.AssetKey(["raw", spec.slug])
    limit = asset_keys.load_active_profile().limit

    @dg.asset(
        key=key,
        # What the rows are made with; a note in the evidence makes nothing out of date.
        code_version=asset_keys.compute_code_version(spec.format, spec.records, spec.license, limit),
        group_name="raw",
        partitions_def=dg.StaticPartitionsDefinition([spec.slug]),
        description=describe_source(spec),
        kinds={"lance", "huggingface"} if spec.hub else {"lance"},
        tags=build_source_tags(spec),
        owners=asset_keys.OWNERS,
        metadata=build_declaration_metadata(spec),
        check_specs=[build_schema_check(key), *build_source_checks(key)],
    )
    def _materialize_raw(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.curation.screening import screen_source
        from mvl_assets.ingest.sync_source import sync_source

        report = sync_source(
            lake.lake, spec, asset_keys.load_active_profile(), run_id=context.run_id, log=context.log.info
        )
        table = lake.lake.get_table("samples")
        screening = screen_source(lake.lake, spec.slug)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.data_version),
            metadata=build_table_metadata(
                table,
                rows=screening.n_total,
                partition_key=spec.slug,
                table_rows=screening.n_total,
                rows_read=report.n_rows,
                new=report.n_new,
                changed=report.n_changed,
                withdrawn=report.n_withdrawn,
                rejected=sum(report.reject_counts.values()),
                rejects=render_markdown_table(
                    [{"error": e, "rows": n} for e, n in sorted(report.reject_counts.items())]
                ),
                new_pictures=report.n_new_images,
                new_picture_bytes=report.new_image_bytes,
                limit=limit,
                folder=dg.MetadataValue.path(spec.root),
                seconds=round(report.duration_s, 2),
                rows_per_s=round(report.n_rows / max(report.duration_s, 1e-9), 1),
                screening=render_screening_table(screening),
                preview=render_preview(lake.lake, screening.examples, SAMPLE_COLUMNS),
            ),
            check_results=[
                build_schema_result(key, table, spec.slug),
                build_row_count_result(key, spec, report.n_rows, limit),
                build_license_result(key, spec),
                build_screening_result(key, spec, screening),
                build_benchmark_result(key, spec),
            ],
        )

    return _materialize_raw


def describe_source(spec: SourceSpec) -> str:
    """What the graph says about a source: what it is, where it comes from, and why a group C source goes no further."""
    modality = (spec.modality or "mixed").replace("_", "-")
    parts = [f"{spec.title}: {modality} source of the category {spec.category}, {GROUP_DESCRIPTIONS[spec.group]}."]
    if spec.outside_153:
        parts.append("Outside the paper's 153.")
    if spec.reason:
        parts.append(spec.reason)
    for benchmark in spec.benchmarks:
        relation = "Is itself the benchmark" if benchmark.relation == "is_benchmark" else "Shares base sets with"
        parts.append(f"{relation} {benchmark.name}.")
    return " ".join(parts)


def build_source_tags(spec: SourceSpec) -> dict[str, str]:
    optional_tags = {"mvl/group": spec.group, "mvl/family": spec.family, "mvl/modality": spec.modality}
    return {
        **asset_keys.build_category_tags(spec.category),
        "mvl/source": spec.slug,
        **{k: v for k, v in optional_tags.items() if v},
    }


def build_declaration_metadata(spec: SourceSpec) -> dict[str, Any]:
    """The declaration as asset metadata. Unknown values say so; the evidence table says how each value is known."""
    hub = spec.hub and (spec.hub.repo if spec.hub.config is None else f"{spec.hub.repo}: {spec.hub.config}")
    metadata: dict[str, Any] = {
        "license": spec.license or "unknown",
        "expected": f"{spec.expected.count:,} {spec.expected.unit}" if spec.expected else "unknown",
        "format": spec.format or "unknown",
        "hub": hub or "unknown",
        "state": describe_state(spec, read_lockfile()),
        "outside_153": spec.outside_153,
        "evidence": render_markdown_table(
            [{"field": f, "basis": e.basis, "note": e.note or ""} for f, e in spec.evidence.items()]
        ),
    }
    if spec.url:
        metadata["url"] = dg.MetadataValue.url(spec.url)
    return metadata
