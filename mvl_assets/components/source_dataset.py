"""`SourceDataset`: one declared source becomes its `raw/<slug>` asset and the checks on it.

Belongs here: the asset, its checks and what the graph shows of a declaration. Does not: the fields of a declaration
(`catalog.SourceSpec`, the one definition of them) or how files become rows (`ingest/`).

No `from __future__ import annotations` here: Dagster reads the annotation of an asset's `context` as an object.
"""

from dataclasses import dataclass
from typing import Any, Self

import dagster as dg

from mvl_assets.catalog import SourceSpec
from mvl_assets.components.resources import LakeResource
from mvl_assets.defs import graph
from mvl_assets.defs.metadata import markdown_table, preview, sound_check, sound_result, table_metadata
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.views import first_samples, samples_now

EXPECTED = "rows_as_expected"
LICENSED = "license_known"
# Declared counts come from copies of a source and are sometimes rounded ("79k").
TOLERANCE = 0.1
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
            owners=graph.OWNERS,
            tags=["source"],
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return dg.Definitions(assets=[raw_asset(self.spec)])


def raw_asset(spec: SourceSpec) -> dg.AssetsDefinition:
    """`raw/<slug>`: the files of one source, in the tables `samples`, `images` and `rejects`."""
    key = dg.AssetKey(["raw", spec.slug])
    limit = graph.profile().limit

    @dg.asset(
        key=key,
        # What the rows are made with; a note in the evidence makes nothing out of date.
        code_version=graph.settings_version(spec.format, spec.records, spec.license, limit),
        group_name="raw",
        partitions_def=dg.StaticPartitionsDefinition([spec.slug]),
        description=description(spec),
        kinds={"lance", "huggingface"} if spec.hub else {"lance"},
        tags=tags(spec),
        owners=graph.OWNERS,
        metadata=declared(spec),
        check_specs=[
            sound_check(key),
            dg.AssetCheckSpec(EXPECTED, asset=key, description="About as many rows as the source is said to hold."),
            dg.AssetCheckSpec(LICENSED, asset=key, description="The source's own licence is known."),
        ],
    )
    def _raw(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        from mvl_assets.ingest.ingest import ingest_source

        report = ingest_source(lake.lake, spec, spec.root, run_id=context.run_id, limit=limit)
        table = lake.lake.table("samples")
        rows = _in_use(lake.lake, spec.slug)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report.data_version),
            metadata=table_metadata(
                table,
                rows=rows,
                where=spec.slug,
                total=rows,
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
                preview=preview(
                    lake.lake, first_samples(lake.lake, spec.slug), ["file", "position", "question", "answer"]
                ),
            ),
            check_results=[
                sound_result(key, table, spec.slug),
                expected_result(key, spec, report.rows, limit),
                licensed_result(key, spec),
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
    return {**graph.tags(spec.category), "mvl/source": spec.slug, **{k: v for k, v in named.items() if v}}


def declared(spec: SourceSpec) -> dict[str, Any]:
    """The declaration as asset metadata. Unknown values say so; the evidence table says how each value is known."""
    hub = spec.hub and (spec.hub.repo if spec.hub.config is None else f"{spec.hub.repo}: {spec.hub.config}")
    facts: dict[str, Any] = {
        "license": spec.license or "unknown",
        "expected": f"{spec.expected.count:,} {spec.expected.unit}" if spec.expected else "unknown",
        "format": spec.format or "unknown",
        "hub": hub or "unknown",
        "outside_153": spec.outside_153,
        "evidence": markdown_table(
            [{"field": f, "basis": e.basis, "note": e.note or ""} for f, e in spec.evidence.items()]
        ),
    }
    if spec.url:
        facts["url"] = dg.MetadataValue.url(spec.url)
    return facts


def expected_result(key: dg.AssetKey, spec: SourceSpec, found: int, limit: int | None) -> dg.AssetCheckResult:
    """Warns when the whole source was read and the rows differ from the declared count by more than `TOLERANCE`."""
    from mvl_assets.miniature.write import is_miniature

    expected = spec.expected
    skipped = (
        "no count is declared"
        if expected is None
        else f"the declared count is of {expected.unit}, not of rows"
        if expected.unit != "rows"
        else f"the profile reads at most {limit} rows"
        if limit is not None
        else "the files are a miniature"
        if is_miniature(spec.root)
        else None
    )
    metadata: dict[str, Any] = {"found": found}
    if expected is not None:
        metadata["expected"] = expected.count
    if skipped:
        metadata["not_compared"] = skipped
    close = expected is not None and abs(found - expected.count) <= TOLERANCE * expected.count
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=EXPECTED,
        passed=skipped is not None or close,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=metadata,
    )


def licensed_result(key: dg.AssetKey, spec: SourceSpec) -> dg.AssetCheckResult:
    """Warns when nobody knows the licence; an aggregator's card does not count."""
    evidence = spec.evidence.get("license")
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=LICENSED,
        passed=spec.license is not None,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "license": spec.license or "unknown",
            "basis": evidence.basis if evidence else "unknown",
            "note": (evidence and evidence.note) or "",
        },
    )


def _in_use(lake: Lake, slug: str) -> int:
    """Samples of the source that count now: the newest versions that are not withdrawn."""
    return sum(1 for _ in samples_now(lake, slug, ["sample_id"], batch_size=8192))
