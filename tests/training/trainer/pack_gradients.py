"""The loss of one pack and its gradients, which switches of the engine must leave as they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mvl_assets.lake.lake import Lake
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.data.pack_loader import PackLoader
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.processing import SampleProcessor
from mvl_training.model.student_model import Student
from mvl_training.recipe import Recipe


def measure_gradients(
    student: Student, recipe: Recipe, lake: Lake, tokens: ChatTokenizer, positions: Sequence[int] = (0, 1, 4)
) -> dict[str, torch.Tensor]:
    """The loss of the samples at these positions, and the gradient of each parameter by its name."""
    processor = SampleProcessor.for_stage(recipe, "single_image", tokens)
    loader = PackLoader(lake, "single_image", PackPlan(lake, "single_image"), processor)
    student.train()
    loss = student(loader.load(positions))
    loss.backward()
    named = {name: parameter.grad for name, parameter in student.named_parameters() if parameter.grad is not None}
    return {"loss": loss.detach(), **named}
