"""Switches of the engine: each leaves losses and gradients as they are, or is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.model.students.choose import start_student
from mvl_training.recipe import RecipeError, parse_recipe
from mvl_training.trainer.engine import build_engine, compile_layers, enable_checkpointing
from tests.patience import PATIENCE_S
from tests.training import tiny_model as small
from tests.training.trainer.pack_gradients import measure_gradients


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
        values = measure_gradients(checkpointed, recipe, lake, tokens)
    assert calls[recompute]
    torch.testing.assert_close(values, measure_gradients(plain, recipe, lake, tokens), rtol=1e-6, atol=1e-7)


@pytest.mark.soak
def test_compiled_layers_give_the_same_gradients(tokenizer: Path, tokens: ChatTokenizer, lake: Lake) -> None:
    recipe = small.build_recipe(tokenizer)
    plain, compiled = start_student(recipe, tokens), start_student(recipe, tokens)
    compile_layers(compiled)
    names = [name for name, _ in compiled.named_parameters()]
    assert names == [name for name, _ in plain.named_parameters()], "checkpoints know no compiled layers"
    values, expected = (measure_gradients(student, recipe, lake, tokens) for student in (compiled, plain))
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a CUDA device they run")
def test_kernels_for_cuda_are_refused_elsewhere(tokenizer: Path, tokens: ChatTokenizer) -> None:
    recipe = small.build_recipe(tokenizer, liger_kernels=True)
    with pytest.raises(MvlError, match="`liger_kernels` needs a CUDA device"):
        build_engine(start_student(recipe, tokens), recipe.get_stage("single_image"))


@pytest.mark.soak
@pytest.mark.skipif(find_spec("liger_kernel") is None, reason="needs Liger's kernels: pip install 'mvl[liger]'")
def test_ligers_kernels_give_the_same_gradients(tokenizer: Path, lake: Lake) -> None:
    command = [sys.executable, "-m", "tests.training.trainer.liger_process", str(tokenizer), lake.root]
    environment = small.build_environment() | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    output = json.loads(done.stdout.splitlines()[-1])
    # Two layers, and the last norm; all but that one are computed twice, because activations are not kept.
    assert output["runs"] == {
        "_rms_norm_forward_kernel": 2 * 4 + 1,
        "_rms_norm_backward_kernel": 2 * 2 + 1,
        "_triton_rope": 2 * 3,
        "_swiglu_forward_kernel": 2 * 2,
        "_swiglu_backward_kernel": 2,
    }
    assert output["difference"] > 0, "other kernels add in another order"


def test_recomputation_needs_checkpointing_and_switches_keep_the_identity(tokenizer: Path) -> None:
    with pytest.raises(RecipeError, match="`recompute` needs `gradient_checkpointing`"):
        small.build_recipe(tokenizer, recompute="attention_kept")
    plain = small.build_recipe(tokenizer, gradient_checkpointing=True)
    data = small.build_recipe_data(
        tokenizer, gradient_checkpointing=True, recompute="attention_kept", compile_layers=True, liger_kernels=True
    )
    assert parse_recipe(data).build_training_inputs("single_image") == plain.build_training_inputs("single_image")
