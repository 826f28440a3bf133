"""A student partitioned over two ranks from the start, and what rank 0 does for all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.patience import PATIENCE_S
from tests.training import tiny_model as small

# Writes what each rank holds into a file of its own.
SCRIPT = """
import json, sys
from pathlib import Path

import torch
import torch.distributed as dist

from mvl_assets.errors import MvlError
from mvl_training.data.processing import load_tokenizer
from mvl_training.model.cost_model import compute_model_sizes
from mvl_training.model.students.choose import start_student
from mvl_training.recipe import load_recipe
from mvl_training.trainer.collective import run_on_rank_0
from mvl_training.trainer.engine import build_deepspeed_config
from mvl_training.trainer.main import init_distributed
from mvl_training.trainer.zero3 import build_student_zero3

folder = Path(sys.argv[1])
init_distributed()
import deepspeed

rank, recipe = dist.get_rank(), load_recipe(folder / "tiny.yaml")
config = build_deepspeed_config(recipe.get_stage("single_image"), load_universal=False)
calls = []

def build():
    calls.append(rank)
    return start_student(recipe, load_tokenizer(recipe))

def fail():
    calls.append(rank)
    raise MvlError("the tower is gone", hint="bring it back")

errors = []
for function in (lambda: build_student_zero3(fail, config, torch.bfloat16), lambda: run_on_rank_0(fail)):
    try:
        function()
    except MvlError as error:
        errors.append([error.message, error.hint])
failed_calls = len(calls)
calls.clear()
student, sizes = build_student_zero3(build, config, torch.bfloat16)
whole = start_student(recipe, load_tokenizer(recipe))
weights = dict(whole.named_parameters())
held = sum(parameter.ds_tensor.numel() for parameter in student.parameters())
differing, dtypes = [], set()
for name, parameter in student.named_parameters():
    with deepspeed.zero.GatheredParameters([parameter]):
        dtypes.add(str(parameter.dtype))
        if not torch.equal(parameter, weights[name].to(torch.bfloat16)):
            differing.append(name)
buffers = dict(student.named_buffers())
result = {
    "calls": len(calls),
    "failed_calls": failed_calls,
    "errors": errors,
    "value": run_on_rank_0(lambda: f"from rank {rank}"),
    "held": held,
    "total": sum(weight.numel() for weight in weights.values()),
    "names": sorted(weights) == sorted(name for name, _ in student.named_parameters()),
    "differing": differing,
    "dtypes": sorted(dtypes),
    "sizes": sizes == compute_model_sizes(whole),
    "buffers": all(
        torch.equal(buffers[name], buffer) and buffers[name].dtype == buffer.dtype
        for name, buffer in whole.named_buffers()
    ),
}
(folder / f"{rank}.json").write_text(json.dumps(result))
dist.barrier()
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def rank_results(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> list[dict[str, object]]:
    """What two ranks found, by rank."""
    folder = tmp_path_factory.mktemp("zero3")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    recipe = small.build_recipe_data(tokenizer, zero_stage=3, precision="bf16")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(folder / "script.py"), str(folder)]
    done = subprocess.run(
        command, env=small.build_environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


def test_only_rank_0_builds_the_student_and_all_get_its_weights(rank_results: list[dict[str, object]]) -> None:
    assert [result["calls"] for result in rank_results] == [1, 0]
    for result in rank_results:
        assert result["names"] and result["sizes"]
        assert (result["differing"], result["dtypes"]) == ([], ["torch.bfloat16"])


def test_each_rank_holds_a_half_of_the_weights(rank_results: list[dict[str, object]]) -> None:
    for result in rank_results:
        total, held = result["total"], result["held"]
        assert isinstance(total, int) and isinstance(held, int)
        # A partition is rounded up to whole elements, parameter by parameter.
        assert total / 2 <= held < total / 2 + 100


def test_buffers_keep_the_values_and_the_precision_of_rank_0(rank_results: list[dict[str, object]]) -> None:
    assert all(result["buffers"] for result in rank_results)


def test_an_error_of_rank_0_is_raised_on_every_rank_and_a_result_is_returned_on_every_rank(
    rank_results: list[dict[str, object]],
) -> None:
    assert [result["failed_calls"] for result in rank_results] == [2, 0]
    for result in rank_results:
        assert result["errors"] == [["the tower is gone", "bring it back"]] * 2
        assert result["value"] == "from rank 0"
