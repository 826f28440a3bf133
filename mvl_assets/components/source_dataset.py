"""`SourceDataset`: the Dagster component of one declared source, its `raw/<slug>` asset and the checks on it.

The fields of a declaration are defined by `config.catalog.SourceSpec`; `ingest` turns files into rows.
"""

# No `from __future__ import annotations`: Dagster reads the annotation of an asset's `context` as an object.

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.common.markdown import escape_cell
from mvl_assets.components.source_checks import (
    build_benchmark_result,
    build_license_result,
    build_row_count_result,
    build_screening_result,
    build_source_checks,
    render_screening_table,
)
from mvl_assets.config.catalog import SourceSpec, load_full_catalog
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
from mvl_assets.stages import RAW

if TYPE_CHECKING:
    from mvl_assets.ingest.ingest import IngestReport

GROUP_DESCRIPTIONS = {
    "A": "used unchanged (group A)",
    "B": "to be rewritten (group B)",
    "C": "screened out (group C)",
    None: "in no group of the paper",
}


@dataclass(frozen=True)
class SourceDataset(dg.Component):
    """Component of one source: its raw asset and the checks on it."""

    spec: SourceSpec

    @classmethod
    def get_model_cls(cls) -> type[SourceSpec]:
        """Return the catalog's own model, so that fields are defined once and no value is read as a template.

        `{{` in a records map stays what it is.
        """
        return SourceSpec

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> Self:
        """Return the component of the attributes in a `defs.yaml`."""
        return cls(SourceSpec.model_validate(attributes))

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """Return what Dagster's UI shows about this component type."""
        return dg.ComponentTypeSpec(
            description="One source dataset of the catalog: its raw asset and the checks on it.",
            owners=asset_keys.OWNERS,
            tags=["source"],
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the definitions of the source."""
        return dg.Definitions(assets=[build_raw_asset(self.spec)])


def build_raw_asset(spec: SourceSpec) -> dg.AssetsDefinition:
    """Return the asset `raw/<slug>`: the files of one source, in the tables `samples`, `images` and `rejects`."""
    key = dg.AssetKey([RAW.name, spec.slug])
    limit = asset_keys.load_active_profile().limit

    @dg.asset(
        key=key,
        # Only what changes the rows: an edited note in the evidence makes nothing stale.
        code_version=asset_keys.compute_code_version(*spec.reading_fields, spec.license, limit),
        group_name=build_group_name(spec),
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
                {
                    **build_ingest_metadata(spec, report),
                    metadata_keys.LIMIT: limit,
                    metadata_keys.SCREENING: render_screening_table(screening),
                    metadata_keys.PREVIEW: render_preview(lake.lake, screening.examples, SAMPLE_COLUMNS),
                },
                rows=screening.n_total,
                partition_key=spec.slug,
                table_rows=screening.n_total,
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


def build_ingest_metadata(spec: SourceSpec, report: "IngestReport") -> dict[str, Any]:
    """Return what an ingest of a source counted."""
    return {
        metadata_keys.ROWS_READ: report.n_rows,
        metadata_keys.ROWS_NEW: report.n_new,
        metadata_keys.ROWS_CHANGED: report.n_changed,
        metadata_keys.ROWS_WITHDRAWN: report.n_withdrawn,
        metadata_keys.REJECTED: sum(report.reject_counts.values()),
        metadata_keys.REJECTS: render_markdown_table(
            [{"error": e, "rows": n} for e, n in sorted(report.reject_counts.items())]
        ),
        metadata_keys.IMAGES_NEW: report.n_new_images,
        metadata_keys.IMAGE_BYTES_NEW: report.new_image_bytes,
        metadata_keys.FOLDER: dg.MetadataValue.path(spec.root),
        metadata_keys.SECONDS: round(report.duration_s, 2),
        metadata_keys.ROWS_PER_S: round(report.n_rows / max(report.duration_s, 1e-9), 1),
    }


def build_group_name(spec: SourceSpec) -> str:
    """Return the group of a raw asset: one per category, so that the graph can be looked at by category."""
    return f"{RAW.name}_{spec.category}"


def build_declared_spec(spec: SourceSpec) -> dg.AssetSpec:
    """Return the asset of a source without files: it shows what is declared and how to get them."""
    return dg.AssetSpec(
        dg.AssetKey([RAW.name, spec.slug]),
        group_name=build_group_name(spec),
        description=f"{describe_source(spec)} Declared only: {describe_state(spec, read_lockfile())}.",
        kinds={"huggingface"} if spec.hub else {"file"},
        tags=build_source_tags(spec),
        owners=asset_keys.OWNERS,
        metadata=build_declaration_metadata(spec),
    )


def describe_source(spec: SourceSpec) -> str:
    """Return what the graph says about a source: what it is, where it is from, and why group C goes no further."""
    modality = (spec.modality or "mixed").replace("_", "-")
    parts = [f"{spec.title}: {modality} source of the category {spec.category}, {GROUP_DESCRIPTIONS[spec.group]}."]
    if spec.slug in load_full_catalog().own_files:
        parts.append("Declared in the project.")
    elif spec.supplementary:
        parts.append("Outside the paper's 153.")
    if spec.reason:
        parts.append(spec.reason)
    for benchmark in spec.benchmarks:
        relation = "Is itself the benchmark" if benchmark.relation == "is_benchmark" else "Shares base sets with"
        parts.append(f"{relation} {benchmark.name}.")
    return " ".join(parts)


def build_source_tags(spec: SourceSpec) -> dict[str, str]:
    """Return the tags by which a source's asset can be selected."""
    optional_tags = {
        metadata_keys.GROUP: spec.group,
        metadata_keys.FAMILY: spec.family,
        metadata_keys.MODALITY: spec.modality,
    }
    return {
        **asset_keys.build_category_tags(spec.category),
        metadata_keys.SOURCE: spec.slug,
        **{k: v for k, v in optional_tags.items() if v},
    }


def build_declaration_metadata(spec: SourceSpec) -> dict[str, Any]:
    """Return the declaration as metadata: unknown values say so, the evidence table says how each value is known."""
    hub = spec.hub and (spec.hub.repo if spec.hub.config is None else f"{spec.hub.repo}: {spec.hub.config}")
    metadata: dict[str, Any] = {
        metadata_keys.LICENSE: spec.license or "unknown",
        metadata_keys.EXPECTED: f"{spec.expected.count:,} {spec.expected.unit}" if spec.expected else "unknown",
        metadata_keys.FORMAT: spec.format or "unknown",
        metadata_keys.HUB: hub or "unknown",
        # Markdown wraps, where plain text would push the page apart.
        metadata_keys.STATE: dg.MetadataValue.md(escape_cell(describe_state(spec, read_lockfile()))),
        metadata_keys.IN_PAPER: load_full_catalog().is_in_paper(spec.slug),
        metadata_keys.EVIDENCE: render_markdown_table(
            [{"field": f, "basis": e.basis, "note": e.note or ""} for f, e in spec.evidence.items()]
        ),
    }
    if spec.url:
        metadata[metadata_keys.SOURCE_URL] = dg.MetadataValue.url(spec.url)
    return metadata
