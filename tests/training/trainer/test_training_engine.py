"""Switches of the engine: each leaves losses and gradients as they are, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.data.pack_loader import PackLoader
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.processing import SampleProcessor
from mvl_training.model.student_model import Student
from mvl_training.model.students.choose import start_student
from mvl_training.recipe import Recipe, RecipeError, parse_recipe
from mvl_training.trainer.engine import apply_liger_kernels, compile_layers, enable_checkpointing
from tests.training import tiny_model as small


def measure(student: Student, recipe: Recipe, lake: Lake, tokens: ChatTokenizer) -> list[torch.Tensor]:
    """The loss of a pack and its gradients."""
    processor = SampleProcessor.for_stage(recipe, "single_image", tokens)
    loader = PackLoader(lake, "single_image", PackPlan(lake, "single_image"), processor)
    student.train()
    loss = student(loader.load([0, 1, 4]))
    loss.backward()
    gradients = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
    return [loss.detach(), *gradients]


@pytest.mark.parametrize("recompute", ["all", "attention_kept"])
def test_recomputed_activations_give_the_same_gradients(
    tokenizer: Path, tokens: ChatTokenizer, lake: Lake, recompute: str
) -> None:
    recipe = small.build_recipe(tokenizer, gradient_checkpointing=True, recompute=recompute)
    plain, checkpointed = start_student(recipe, tokens), start_student(recipe, tokens)
    calls = {"all": 0, "attention_kept": 0}
    enable_checkpointing(checkpointed, recipe.get_stage("single_image"))
    attention = torch.nn.functional.scaled_dot_product_attention
    with pytest.MonkeyPatch.context() as patch:

        def count(*args: torch.Tensor, **kwargs: bool) -> torch.Tensor:
            calls[recompute] += 1
            return attention(*args, **kwargs)

        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", count)
        values = measure(checkpointed, recipe, lake, tokens)
    assert calls[recompute]
    for value, expected in zip(values, measure(plain, recipe, lake, tokens), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.soak
def test_compiled_layers_give_the_same_gradients(tokenizer: Path, tokens: ChatTokenizer, lake: Lake) -> None:
    recipe = small.build_recipe(tokenizer)
    plain, compiled = start_student(recipe, tokens), start_student(recipe, tokens)
    compile_layers(compiled)
    names = [name for name, _ in compiled.named_parameters()]
    assert names == [name for name, _ in plain.named_parameters()], "checkpoints know no compiled layers"
    for value, expected in zip(
        measure(compiled, recipe, lake, tokens), measure(plain, recipe, lake, tokens), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a CUDA device they run")
def test_kernels_for_cuda_are_refused_elsewhere(tokenizer: Path, tokens: ChatTokenizer) -> None:
    with pytest.raises(MvlError, match="`liger_kernels` needs a CUDA device"):
        apply_liger_kernels(start_student(small.build_recipe(tokenizer), tokens))


def test_recomputation_needs_checkpointing_and_switches_keep_the_identity(tokenizer: Path) -> None:
    with pytest.raises(RecipeError, match="`recompute` needs `gradient_checkpointing`"):
        small.build_recipe(tokenizer, recompute="attention_kept")
    plain = small.build_recipe(tokenizer, gradient_checkpointing=True)
    data = small.build_recipe_data(
        tokenizer, gradient_checkpointing=True, recompute="attention_kept", compile_layers=True, liger_kernels=True
    )
    assert parse_recipe(data).build_training_inputs("single_image") == plain.build_training_inputs("single_image")
