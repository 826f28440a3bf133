"""A declared source becomes one raw asset with one partition, and Dagster loads all of them quickly."""

from __future__ import annotations

import shutil
import traceback
from pathlib import Path

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from mvl_assets.common import metadata_keys
from mvl_assets.components.source_checks import (
    BENCHMARK_CHECK,
    LICENSE_CHECK,
    ROW_COUNT_CHECK,
    SCREENING_CHECK,
    build_row_count_result,
)
from mvl_assets.components.source_dataset import SourceDataset, build_raw_asset
from mvl_assets.config.catalog import ExpectedSize, SourceSpec, load_catalog
from mvl_assets.demo_data.write import write_demo_sources
from mvl_assets.lake.lake import Lake
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.metadata import SCHEMA_CHECK
from mvl_assets.orchestration.resources import LakeResource


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MVL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MVL_LAKE", raising=False)
    monkeypatch.delenv("MVL_PROFILE", raising=False)
    return tmp_path / "home"


def spec_of(asset: dg.AssetsDefinition) -> dg.AssetSpec:
    (spec,) = asset.specs
    return spec


def test_raw_asset_has_key_partition_group_tags_kinds_and_owner() -> None:
    asset = build_raw_asset(load_catalog()["chartqa_cauldron_llava_format"])
    spec = spec_of(asset)
    assert spec.key == dg.AssetKey(["raw", "chartqa_cauldron_llava_format"])
    assert asset.partitions_def == dg.StaticPartitionsDefinition(["chartqa_cauldron_llava_format"])
    assert spec.group_name == "raw_chart"
    assert spec.tags["mvl/category"] == "chart"
    assert spec.tags["mvl/group"] == "B"
    assert spec.tags["mvl/family"] == "chart"
    assert spec.kinds == {"lance", "huggingface"}
    assert spec.owners == ["team:data"]


def test_raw_asset_shows_licence_count_origin_and_evidence() -> None:
    metadata = spec_of(build_raw_asset(load_catalog()["visual7w_cauldron_llava_format"])).metadata
    assert metadata[metadata_keys.LICENSE] == "unknown"
    assert metadata[metadata_keys.EXPECTED] == "14,366 rows"
    assert metadata[metadata_keys.HUB] == "HuggingFaceM4/the_cauldron: visual7w"
    assert "| group | read | paper v2, figure A4 |" in metadata[metadata_keys.EVIDENCE].value


def test_description_of_a_screened_out_source_says_why() -> None:
    assert "too brief or vague" in (spec_of(build_raw_asset(load_catalog()["cap2qa"])).description or "")


def test_only_the_schema_check_blocks_downstream_assets() -> None:
    checks = {c.name: c.blocking for c in build_raw_asset(load_catalog()["gqa"]).check_specs}
    assert checks == {
        SCHEMA_CHECK: True,
        ROW_COUNT_CHECK: False,
        LICENSE_CHECK: False,
        SCREENING_CHECK: False,
        BENCHMARK_CHECK: False,
    }


def test_every_source_of_the_catalog_becomes_an_asset_with_a_description() -> None:
    keys = set()
    for spec in load_catalog().values():
        asset = spec_of(build_raw_asset(spec))
        assert asset.description
        keys.add(asset.key)
    assert len(keys) == len(load_catalog())


def test_dagster_loads_a_declaration_as_the_catalog_reads_it() -> None:
    attributes = load_catalog()["tabmwp"].model_dump(mode="json")
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=SourceDataset,
            defs_yaml_contents={
                "type": "mvl_assets.components.source_dataset.SourceDataset",
                "attributes": attributes,
            },
        )
        with sandbox.load_component_and_build_defs(defs_path=path) as (component, definitions):
            assert isinstance(component, SourceDataset)
            assert component.spec == load_catalog()["tabmwp"]
            with_lake = dg.Definitions.merge(definitions, dg.Definitions(resources={"lake": LakeResource()}))
            assert with_lake.resolve_asset_graph().get_all_asset_keys() == {dg.AssetKey(["raw", "tabmwp"])}


def test_dagster_rejects_what_the_catalog_rejects() -> None:
    attributes = load_catalog()["tabmwp"].model_dump(mode="json") | {"titel": "x"}
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=SourceDataset,
            defs_yaml_contents={
                "type": "mvl_assets.components.source_dataset.SourceDataset",
                "attributes": attributes,
            },
        )
        with pytest.raises(Exception) as caught, sandbox.load_component_and_build_defs(defs_path=path):
            pass
        assert "titel" in "".join(traceback.format_exception(caught.value))


def test_materializing_demo_data_twice_changes_nothing(home: Path) -> None:
    write_demo_sources(home / "raw", ["chartqa_cauldron_llava_format"], n_rows=12)
    asset = build_raw_asset(load_catalog()["chartqa_cauldron_llava_format"])
    versions = []
    for _ in range(2):
        result = dg.materialize(
            [asset], partition_key="chartqa_cauldron_llava_format", resources={"lake": LakeResource()}
        )
        (event,) = result.asset_materializations_for_node("raw__chartqa_cauldron_llava_format")
        versions.append((event.tags or {})["dagster/data_version"])
    assert versions[0] == versions[1]
    shown = event.metadata
    rows = shown[metadata_keys.PARTITION_ROW_COUNT].value
    assert shown[metadata_keys.ROWS_NEW].value == 0
    assert rows == Lake(str(home / "lake")).get_table("samples").count()
    assert rows + shown[metadata_keys.REJECTED].value == shown[metadata_keys.ROWS_READ].value == 12
    assert "data:image/jpeg" in str(shown[metadata_keys.PREVIEW].value)
    assert f"{rows} of at most 1" in str(shown[metadata_keys.SCREENING].value)
    checks = {c.check_name: c for c in result.get_asset_check_evaluations()}
    assert checks[SCHEMA_CHECK].passed
    assert checks[ROW_COUNT_CHECK].passed and metadata_keys.SKIP_REASON in checks[ROW_COUNT_CHECK].metadata
    licensed = checks[LICENSE_CHECK]
    assert licensed.passed == (load_catalog()["chartqa_cauldron_llava_format"].license is not None)
    assert licensed.severity == dg.AssetCheckSeverity.WARN
    assert "too few rows" in (checks[SCREENING_CHECK].description or "")


def test_source_without_files_fails_with_a_hint(home: Path) -> None:
    result = dg.materialize(
        [build_raw_asset(load_catalog()["geo3k"])],
        partition_key="geo3k",
        resources={"lake": LakeResource()},
        raise_on_error=False,
    )
    assert not result.success
    failure = result.failure_data_for_node("raw__geo3k")
    assert failure is not None and "mvl demo-data" in failure.error.to_string()  # type: ignore[union-attr]


def counted(count: int | None, unit: str = "rows") -> SourceSpec:
    expected = None if count is None else ExpectedSize(count=count, unit=unit)  # type: ignore[arg-type]
    return load_catalog()["geo3k"].model_copy(update={"expected": expected})


@pytest.mark.parametrize(
    ("spec", "found", "limit", "passed"),
    [
        (counted(1000), 1000, None, True),
        (counted(1000), 950, None, True),
        (counted(1000), 800, None, False),
        (counted(1000), 1200, None, False),
        (counted(1000), 48, 48, True),
        (counted(1000, "images"), 5000, None, True),
        (counted(None), 5, None, True),
    ],
)
def test_row_count_is_compared_only_where_it_is_comparable(
    home: Path, spec: SourceSpec, found: int, limit: int | None, passed: bool
) -> None:
    result = build_row_count_result(dg.AssetKey(["raw", spec.slug]), spec, found, limit)
    assert result.passed == passed
    assert result.severity == dg.AssetCheckSeverity.WARN


def test_row_count_of_demo_data_is_not_compared(home: Path) -> None:
    write_demo_sources(home / "raw", ["ai2d_gpt4v"], n_rows=6)
    spec = load_catalog()["ai2d_gpt4v"]
    result = build_row_count_result(dg.AssetKey(["raw", spec.slug]), spec, 6, None)
    assert result.passed
    shutil.rmtree(home / "raw" / "ai2d_gpt4v")
    assert not build_row_count_result(dg.AssetKey(["raw", spec.slug]), spec, 6, None).passed


def test_code_version_changes_with_the_records_map_and_not_with_a_note() -> None:
    spec = load_catalog()["tabmwp"]
    assert spec.records is not None
    other_map = spec.model_copy(update={"records": spec.records.model_copy(update={"unit": None})})
    other_note = spec.model_copy(update={"evidence": {}})
    version = spec_of(build_raw_asset(spec)).code_version
    assert spec_of(build_raw_asset(other_map)).code_version != version
    assert spec_of(build_raw_asset(other_note)).code_version == version


def test_category_tag_is_the_one_of_all_assets() -> None:
    for spec in load_catalog().values():
        assert (
            spec_of(build_raw_asset(spec)).tags["mvl/category"]
            == asset_keys.build_category_tags(spec.category)["mvl/category"]
        )
