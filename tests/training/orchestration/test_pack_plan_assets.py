"""What the UI shows of a pack plan."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mvl_assets.common import metadata_keys
from mvl_training.data.mixture_stats import render_shares_table
from mvl_training.data.planning import PackPlanReport, build_pack_plan
from mvl_training.orchestration.pack_plan_assets import build_plan_metadata
from mvl_training.recipe import parse_recipe
from mvl_training.runs.lockstep import LockstepForecast
from tests.training import tiny_model as small

LOCKSTEP = asdict(LockstepForecast(2, 1.5, 9000.0, 0.97, 0.91, 0.55, 44.5))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> PackPlanReport:
    """The plan of 30 samples with images, none, and a video, by a recipe for two ranks."""
    lake = small.fill_lake(tmp_path_factory.mktemp("lake"), small.draw_shape_samples(30), frames=5)
    recipe = parse_recipe(small.build_recipe_data(tokenizer) | {"nproc_per_node": 2})
    return build_pack_plan(lake, "single_image", recipe, run_id="r")


def test_a_plan_names_categories_and_modalities(report: PackPlanReport) -> None:
    names = {(share.axis, share.name) for share in report.shares}
    modalities = {("modality", name) for name in ("single_image", "multi_image", "text", "video")}
    assert names == {("category", "general")} | modalities
    percentiles = report.visual_share_percentiles
    assert 0 <= percentiles["p5"] <= percentiles["median"] <= percentiles["p95"] <= 1


def test_the_metadata_shows_the_numbers_and_tables_of_the_report(report: PackPlanReport) -> None:
    data = json.loads(json.dumps(asdict(report))) | {"lockstep": [LOCKSTEP, LOCKSTEP | {"world_size": 8}]}
    metadata = build_plan_metadata(data)
    assert metadata[metadata_keys.SAMPLES] == report.n_samples
    assert metadata[metadata_keys.LOCKSTEP_EFFICIENCY] == 0.97
    assert metadata[metadata_keys.LOCKSTEP].value.rstrip().splitlines()[2:] == [
        "| 2 | 1.5 | 9,000 | 0.970 (0.910) | 0.550 | 44.5 GiB |",
        "| 8 | 1.5 | 9,000 | 0.970 (0.910) | 0.550 | 44.5 GiB |",
    ]
    assert metadata[metadata_keys.BALANCE].value.rstrip() == render_shares_table(data["shares"])
    for percentile, share in report.visual_share_percentiles.items():
        assert metadata[f"{metadata_keys.VISUAL_SHARE_OF_SAMPLE}_{percentile}"] == share
    assert (metadata[metadata_keys.REJECTED], metadata[metadata_keys.REJECTS].value) == (0, "none")


def test_the_metadata_counts_rejects_by_error(report: PackPlanReport) -> None:
    rejecting = replace(report, rejects_by_error={"too_long": 3, "no_answer": 1})
    metadata = build_plan_metadata(asdict(rejecting) | {"lockstep": [LOCKSTEP]})
    assert metadata[metadata_keys.REJECTED] == 4
    assert metadata[metadata_keys.REJECTS].value.splitlines()[2:] == ["| too_long | 3 |", "| no_answer | 1 |"]
