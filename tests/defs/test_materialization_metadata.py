"""What a materialization shows: the promised numbers and a preview."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from mvl_assets.common import metadata_keys
from mvl_assets.defs.export import build_licenses_result
from mvl_assets.orchestration.metadata import (
    MAX_PREVIEW_BYTES,
    MAX_PREVIEW_IMAGES,
    get_table_name,
)
from tests.defs.world import GENERAL, MATH, PARTITIONS, TABLES, World
from tests.training import tiny_model as small


@pytest.mark.parametrize(("asset", "partition"), [*PARTITIONS, *((table, None) for table in TABLES)])
def test_every_materialization_has_the_promised_metadata(built: World, asset: str, partition: str | None) -> None:
    event = latest(built, asset, partition)
    shown = event.metadata
    assert shown[metadata_keys.URI].value
    assert (event.tags or {})["dagster/data_version"]
    if asset.startswith("export/"):
        return
    rows = shown[metadata_keys.ROW_COUNT if partition is None else metadata_keys.PARTITION_ROW_COUNT].value
    assert isinstance(rows, int)
    table = built.lake.get_table("samples" if asset.startswith("raw/") else asset)
    if not asset.startswith("raw/"):
        assert rows <= shown[metadata_keys.ROW_COUNT].value <= table.count()
    assert shown[metadata_keys.TABLE_VERSION].value <= table.version
    assert shown[metadata_keys.TABLE_NAME].value == get_table_name(table)
    columns = shown[metadata_keys.COLUMN_SCHEMA].value.columns
    assert [c.name for c in columns] == table.schema.names and all(c.description for c in columns)
    text = shown[metadata_keys.PREVIEW].value
    assert len(text.encode()) <= MAX_PREVIEW_BYTES
    assert text.count("data:image/jpeg") <= MAX_PREVIEW_IMAGES
    if partition is not None:
        assert rows > 0 and "data:image/jpeg" in text


def test_rewrites_and_judgements_show_the_original_answer_and_their_cost(built: World) -> None:
    shown = latest(built, "rewritten/code_math", GENERAL).metadata
    assert "| rewrite id | original | rewritten | blind |" in shown[metadata_keys.PREVIEW].value
    assert shown[metadata_keys.REQUESTS_SENT].value == 3 and shown[metadata_keys.COMPLETION_TOKENS].value > 0
    assert {
        metadata_keys.PROMPT_TOKENS,
        metadata_keys.COMPLETION_TOKENS_PER_S,
        metadata_keys.COST,
        metadata_keys.SECONDS,
        metadata_keys.MODEL,
        metadata_keys.REJECTS,
    } <= set(shown)
    judged = latest(built, "judged/code_math", MATH).metadata
    preview = str(judged[metadata_keys.PREVIEW].value)
    assert "| rewrite id | original | rewritten | verdict |" in preview and " → " in preview
    assert "Yes 0" in preview and ("kept" in preview or "dropped" in preview)
    assert {
        metadata_keys.PAIRS_PAGE,
        metadata_keys.KEPT,
        metadata_keys.KEEP_RATE,
        metadata_keys.KEEP_RULE,
        metadata_keys.DROP_REASONS,
        metadata_keys.REJECTS,
    } <= set(judged)


def test_the_check_of_the_card_names_sources_whose_licence_is_unknown(built: World, tmp_path: Path) -> None:
    # The catalog states a licence for one of the two sources.
    named = str(build_licenses_result(built.lake).metadata[metadata_keys.SOURCES].value)
    assert GENERAL.split("_")[0] in named and MATH not in named
    unlicensed = small.fill_lake(tmp_path / "lake", small.draw_shape_samples(4), stage="single_image")
    result = build_licenses_result(unlicensed)
    assert not result.passed and "| drawn | 4 |" in str(result.metadata[metadata_keys.SOURCES].value)


def latest(world: World, asset: str, partition: str | None) -> dg.AssetMaterialization:
    key = dg.AssetKey(asset.split("/"))
    with world.instance() as instance:
        wanted = dg.AssetRecordsFilter(key, asset_partitions=[partition] if partition else None)
        (record,) = instance.fetch_materializations(wanted, limit=1).records
    assert record.asset_materialization is not None
    return record.asset_materialization
