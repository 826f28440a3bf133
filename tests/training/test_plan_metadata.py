"""What the UI says about a pack plan."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from mvl_assets.common import metadata_keys
from mvl_training.data.packing import plan_stage
from mvl_training.orchestration.pack_plan_assets import build_plan_metadata
from tests.training import tiny_model as small


def test_a_plan_shows_its_fill_how_evenly_ranks_are_loaded_and_what_it_mixes(tmp_path: Path, tokenizer: Path) -> None:
    filled = small.fill_lake(tmp_path, small.draw_shape_samples(30), frames=5)
    data = small.build_recipe_data(tokenizer) | {"nproc_per_node": 2}
    report = plan_stage(filled, "single_image", small.parse_recipe(data), run_id="r")
    shown = build_plan_metadata(json.loads(json.dumps(asdict(report))))
    assert 0.5 < shown[metadata_keys.FILL] <= 1
    assert 0.5 < shown[metadata_keys.STRAGGLER_EFFICIENCY] == report.rank_loads[0].token_efficiency < 1
    assert report.rank_loads[0].world_size == 2
    ranks = [line.split("|")[1].strip() for line in shown[metadata_keys.RANK_LOADS].value.splitlines()[2:]]
    assert ranks == ["2", "8", "32", "128"]
    lines = shown[metadata_keys.BALANCE].value.splitlines()[2:]
    assert {line.split("|")[2].strip() for line in lines} == {
        "general",
        "single_image",
        "multi_image",
        "text",
        "video",
    }
    assert 0 <= shown["mvl/visual_share_of_pack_p5"] <= shown["mvl/visual_share_of_pack_p95"] <= 1
