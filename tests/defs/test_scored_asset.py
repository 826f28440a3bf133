"""`scored/<category>` through Dagster: rows, metadata, and what makes it stale."""

from __future__ import annotations

from typing import Any

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.defs.freshness import FRESHNESS_CHECK
from mvl_assets.defs.scored import _choose_preview_rows
from mvl_assets.runner.summary import render_scores
from mvl_assets.scoring.paper_reference import PAPER_SCORES
from tests.defs.world import MATH, World


def _read_scores(world: World, rewrite_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scores of a rewrite and of its original."""
    rows = list(world.lake.get_table("scored/code_math").iter_rows())
    (rewrite,) = [row for row in rows if row["rewrite_id"] == rewrite_id]
    (original,) = [r for r in rows if r["rewrite_id"] is None and r["sample_id"] == rewrite["sample_id"]]
    return rewrite, original


def test_a_partition_shows_scores_beside_the_papers_and_a_recommendation(world: World) -> None:
    world.profile(score_rows=2)
    world.reload()
    result = world.make("scored/code_math", MATH)
    assert result.success
    (event,) = result.asset_materializations_for_node("scored__code_math")
    metadata = event.metadata
    assert metadata[metadata_keys.PARTITION_ROW_COUNT].value == 4
    assert metadata[metadata_keys.RECOMMENDATION].value == "too few samples to say (2 of 30)"
    changes = metadata[metadata_keys.SCORE_CHANGES].value
    assert all(f"{before} to {after}" in changes for before, after in PAPER_SCORES.values()) and "±" in changes
    assert MATH in metadata[metadata_keys.SCORES_BY_SOURCE].value
    assert metadata[metadata_keys.LENGTHS_AND_KINDS].value.startswith("![lengths and forms")
    assert "content " in metadata[metadata_keys.PREVIEW].value
    preview = _choose_preview_rows(world.lake.get_table("scored/code_math"), MATH)
    changes_of = [
        (rewrite["relevance"] - original["relevance"], rewrite["content"] - original["content"])
        for row in preview
        for rewrite, original in [_read_scores(world, row["rewrite_id"])]
    ]
    assert len(preview) == 2 and changes_of == sorted(changes_of), "what lost most comes first"
    evaluations = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert evaluations == {"schema_valid": True, FRESHNESS_CHECK: True}
    assert f"{MATH}" in render_scores(world.lake) and "paper: content 3.5 to 3.8" in render_scores(world.lake)
    # An edited prompt asks again.
    world.edit("score_general.md", "with two numbers", "with two digits")
    world.reload()
    assert world.report_prompts()
    with world.instance() as instance:
        record = instance.get_asset_records([dg.AssetKey(["prompts", "score_general"])])
        assert record
    again = world.make("scored/code_math", MATH)
    (event,) = again.asset_materializations_for_node("scored__code_math")
    assert event.metadata[metadata_keys.REQUESTS_SENT].value == 4
