"""What the UI shows of a pack plan."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mvl_assets.common import metadata_keys
from mvl_training.data.mixture_stats import render_loads_table, render_shares_table
from mvl_training.data.packing import PackPlanReport, build_pack_plan
from mvl_training.orchestration.pack_plan_assets import build_plan_metadata
from mvl_training.recipe import parse_recipe
from tests.training import tiny_model as small


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> PackPlanReport:
    """The plan of 30 samples with images, none, and a video, by a recipe for two ranks."""
    lake = small.fill_lake(tmp_path_factory.mktemp("lake"), small.draw_shape_samples(30), frames=5)
    recipe = parse_recipe(small.build_recipe_data(tokenizer) | {"nproc_per_node": 2})
    return build_pack_plan(lake, "single_image", recipe, run_id="r")


def test_a_plan_is_made_for_the_recipes_ranks_first_and_names_categories_and_modalities(report: PackPlanReport) -> None:
    assert [load.world_size for load in report.rank_loads] == [2, 8, 32, 128]
    assert 0.5 < report.fill_ratio <= 1
    assert 0.5 < report.rank_loads[0].token_efficiency < 1
    names = {(share.axis, share.name) for share in report.shares}
    modalities = {("modality", name) for name in ("single_image", "multi_image", "text", "video")}
    assert names == {("category", "general")} | modalities
    percentiles = report.visual_share_percentiles
    assert 0 <= percentiles["p5"] <= percentiles["median"] <= percentiles["p95"] <= 1


def test_the_metadata_shows_the_numbers_and_tables_of_the_report(report: PackPlanReport) -> None:
    data = json.loads(json.dumps(asdict(report)))
    metadata = build_plan_metadata(data)
    assert metadata[metadata_keys.FILL] == report.fill_ratio
    assert metadata[metadata_keys.STRAGGLER_EFFICIENCY] == report.rank_loads[0].token_efficiency
    assert metadata[metadata_keys.RANK_LOADS].value == render_loads_table(data["rank_loads"])
    assert metadata[metadata_keys.BALANCE].value == render_shares_table(data["shares"])
    for percentile, share in report.visual_share_percentiles.items():
        assert metadata[f"{metadata_keys.VISUAL_SHARE_OF_PACK}_{percentile}"] == share
    assert (metadata[metadata_keys.REJECTED], metadata[metadata_keys.REJECTS].value) == (0, "none")


def test_the_metadata_counts_rejects_by_error(report: PackPlanReport) -> None:
    metadata = build_plan_metadata(asdict(replace(report, rejects_by_error={"too_long": 3, "no_answer": 1})))
    assert metadata[metadata_keys.REJECTED] == 4
    assert metadata[metadata_keys.REJECTS].value.splitlines()[2:] == ["| too_long | 3 |", "| no_answer | 1 |"]
