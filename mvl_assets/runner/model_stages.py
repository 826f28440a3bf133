"""The stage objects of the model stages, by stage name."""

from __future__ import annotations

from typing import Any

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.judging.judge import JudgeStage
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.stage import TableStage
from mvl_assets.rewriting.rewrite import RewriteStage
from mvl_assets.scoring.score import ScoreStage
from mvl_assets.stages import JUDGED, REWRITTEN, SCORED

_MODEL_STAGE_CLASSES = {REWRITTEN.name: RewriteStage, JUDGED.name: JudgeStage, SCORED.name: ScoreStage}


def build_model_stage(
    name: str, lake: Lake, source: SourceSpec, profile: Profile, *, limit: int | None = None
) -> TableStage[Any, Any]:
    """Return the stage object that the loop runs for a source.

    Args:
        name: The stage's name.
        lake: The lake.
        source: A source of group B.
        profile: Names the models.
        limit: How many samples requests may be sent for, by hash; None leaves it to the profile.

    Raises:
        KeyError: The stage asks no model.
        SourceError: The source is not in group B.
    """
    return _MODEL_STAGE_CLASSES[name](lake, source, profile, limit=limit)
