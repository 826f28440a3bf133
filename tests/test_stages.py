"""The stages: one spelling each, and the edges of the asset graph."""

from __future__ import annotations

import re

import pytest

from mvl_assets.config.profile import ModelRole
from mvl_assets.stages import CHECKPOINT, JUDGED, MODEL_STAGES, PACK_PLAN, RAW, REWRITTEN, SCORED, STAGE_NAMES, STAGES
from tests.defs.edges import EDGES, SCORES_EDGES


def test_a_stage_is_made_of_stages_before_it_or_of_itself() -> None:
    for position, stage in enumerate(STAGES):
        assert set(stage.upstream) <= set(STAGE_NAMES[: position + 1])


def test_upstream_stages_are_the_edges_of_the_asset_graph() -> None:
    declared = {(upstream, stage.name) for stage in STAGES for upstream in stage.upstream}
    assert declared == {(upstream, name) for upstream, name in EDGES | SCORES_EDGES if upstream != "prompts"}


def test_every_stage_says_what_it_makes_in_one_sentence() -> None:
    for stage in STAGES:
        assert re.fullmatch(r"[A-Z][^\n]{20,}\.", stage.description), stage.name


def test_a_table_is_named_like_its_asset_or_shared() -> None:
    assert REWRITTEN.get_table_name("ocr") == "rewritten/ocr"
    assert PACK_PLAN.get_table_name("one_vision") == "pack_plan/one_vision"
    assert RAW.get_table_name("geo170k") == "samples"
    with pytest.raises(ValueError, match="checkpoint has no table"):
        CHECKPOINT.get_table_name("one_vision")


def test_models_are_asked_by_rewriting_judging_and_scoring() -> None:
    assert MODEL_STAGES == (REWRITTEN, JUDGED, SCORED)
    roles: set[ModelRole] = {role for stage in MODEL_STAGES for role in stage.model_roles}
    assert roles == {"caption", "rewrite", "judge", "score"}
