"""Names of the three training stages, which the data lake (mixtures, exports) and training (recipes) share."""

from __future__ import annotations

from typing import Literal, get_args

TrainingStage = Literal["alignment", "single_image", "one_vision"]
TRAINING_STAGES: tuple[TrainingStage, ...] = get_args(TrainingStage)
"""In training order: each stage starts from the checkpoint of the stage before."""
