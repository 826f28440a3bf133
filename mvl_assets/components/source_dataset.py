"""`SourceDataset`: one declared source becomes its `raw/<slug>` asset and the checks on it.

Belongs here: the asset, its checks and what the graph shows of a declaration. Does not: the fields of a declaration
(`catalog.SourceSpec`, the one definition of them) or how files become rows (`ingest/`).

No `from __future__ import annotations` here: Dagster reads the annotation of an asset's `context` as an object.
"""

from dataclasses import dataclass
from typing import Any, Self

import dagster as dg

from mvl_assets.components.source_checks import (
    benchmark_result,
    expected_result,
    licensed_result,
    screening_result,
    screening_table,
    source_checks,
)
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.fetch.lock import read_lock
from mvl_assets.fetch.overview import sentence
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import (
    SAMPLE_COLUMNS,
    markdown_table,
    preview,
    sound_check,
    sound_result,
    table_metadata,
)
from mvl_assets.orchestration.resources import LakeResource

GROUPS = {
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
        return dg.Definitions(assets=[raw_asset(self.spec)])


def raw_asset(spec: SourceSpec) -> dg.AssetsDefinition:
    """`raw/<slug>`: the files of one source, in the tables `samples`, `images` and `rejects`."""
    key = dg.AssetKey(["raw", spec.slug])
    limit = asset_keys.profile().limit

    @dg.asset(
        key=key,
        # What the rows are made with; a note in the evidence makes nothing out of date.
        code_version=asset_keys.settings_version(spec.format, spec.records, spec.license, limit),
        group_name="raw",
        partitions_def=dg.StaticPartitionsDefinition([spec.slug]),
        description=description(spec),
        kinds={"lance", "huggingface"} if spec.hub else {"lance"},
        tags=tags(spec),
        owners=asset_keys.OWNERS,
        metadata=declared(spec),
        check_specs=[sound_check(key), *source_checks(key)],
    )
    def _raw(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.curation.screening import screen
        from mvl_assets.ingest.sync_source import bring_in

        report = bring_in(lake.lake, spec, asset_keys.profile(), run_id=context.run_id, say=context.log.info)
        table = lake.lake.table("samples")
        screened = screen(lake.lake, spec.slug)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.data_version),
            metadata=table_metadata(
                table,
                rows=screened.total,
                where=spec.slug,
                total=screened.total,
                rows_read=report.rows,
                new=report.new,
                changed=report.changed,
                withdrawn=report.withdrawn,
                rejected=sum(report.rejects.values()),
                rejects=markdown_table([{"error": e, "rows": n} for e, n in sorted(report.rejects.items())]),
                new_pictures=report.pictures,
                new_picture_bytes=report.bytes,
                limit=limit,
                folder=dg.MetadataValue.path(spec.root),
                seconds=round(report.seconds, 2),
                rows_per_s=round(report.rows / max(report.seconds, 1e-9), 1),
                screening=screening_table(screened),
                preview=preview(lake.lake, screened.shown, SAMPLE_COLUMNS),
            ),
            check_results=[
                sound_result(key, table, spec.slug),
                expected_result(key, spec, report.rows, limit),
                licensed_result(key, spec),
                screening_result(key, spec, screened),
                benchmark_result(key, spec),
            ],
        )

    return _raw


def description(spec: SourceSpec) -> str:
    """What the graph says about a source: what it is, where it comes from, and why a group C source goes no further."""
    modality = (spec.modality or "mixed").replace("_", "-")
    parts = [f"{spec.title}: {modality} source of the category {spec.category}, {GROUPS[spec.group]}."]
    if spec.outside_153:
        parts.append("Outside the paper's 153.")
    if spec.reason:
        parts.append(spec.reason)
    for benchmark in spec.benchmarks:
        relation = "Is itself the benchmark" if benchmark.relation == "is_benchmark" else "Shares base sets with"
        parts.append(f"{relation} {benchmark.name}.")
    return " ".join(parts)


def tags(spec: SourceSpec) -> dict[str, str]:
    named = {"mvl/group": spec.group, "mvl/family": spec.family, "mvl/modality": spec.modality}
    return {**asset_keys.tags(spec.category), "mvl/source": spec.slug, **{k: v for k, v in named.items() if v}}


def declared(spec: SourceSpec) -> dict[str, Any]:
    """The declaration as asset metadata. Unknown values say so; the evidence table says how each value is known."""
    hub = spec.hub and (spec.hub.repo if spec.hub.config is None else f"{spec.hub.repo}: {spec.hub.config}")
    facts: dict[str, Any] = {
        "license": spec.license or "unknown",
        "expected": f"{spec.expected.count:,} {spec.expected.unit}" if spec.expected else "unknown",
        "format": spec.format or "unknown",
        "hub": hub or "unknown",
        "state": sentence(spec, read_lock()),
        "outside_153": spec.outside_153,
        "evidence": markdown_table(
            [{"field": f, "basis": e.basis, "note": e.note or ""} for f, e in spec.evidence.items()]
        ),
    }
    if spec.url:
        facts["url"] = dg.MetadataValue.url(spec.url)
    return facts
