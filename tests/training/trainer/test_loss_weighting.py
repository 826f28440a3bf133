"""The loss of a step against the released code's, written by hand, over ranks and accumulation."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from PIL import Image

from mvl_training.data.chat_format import IGNORE_INDEX
from mvl_training.data.pack_loader import PackLoader
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.planning import build_pack_plan
from mvl_training.data.processing import SampleProcessor, load_tokenizer
from mvl_training.model.students.choose import start_student
from mvl_training.recipe import LossWeighting, Recipe, parse_recipe
from mvl_training.trainer.engine import build_parameter_groups
from tests.patience import PATIENCE_S
from tests.training import tiny_model as small

STAGE = "single_image"

# One step of the real loop per weighting; rank 0 writes its numbers.
SCRIPT = """
import json, sys
from pathlib import Path
from typing import get_args

import torch.distributed as dist

from mvl_assets.lake.lake import Lake
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.pack_loader import PackLoader
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.processing import SampleProcessor, load_tokenizer
from mvl_training.data.step_packs import PackLimits, StepPacker
from mvl_training.model.cost_model import build_sample_flops, compute_model_sizes
from mvl_training.model.students.choose import start_student
from mvl_training.recipe import LossWeighting, load_recipe
from mvl_training.trainer.engine import build_engine
from mvl_training.trainer.loop import StepSchedule, StopSignals, train
from mvl_training.trainer.main import init_distributed
from mvl_training.trainer.mfu import ThroughputMeter

folder, lake = Path(sys.argv[1]), Lake(sys.argv[2])
init_distributed()
recipe = load_recipe(folder / "tiny.yaml")
stage_config, tokenizer = recipe.get_stage("single_image"), load_tokenizer(recipe)
plan = PackPlan(lake, "single_image")
steps = {}
for weighting in get_args(LossWeighting):
    student = start_student(recipe, tokenizer)
    sizes = compute_model_sizes(student)
    packer = StepPacker(
        plan,
        BatchOrder(len(plan), stage_config.global_batch_size, recipe.seed),
        build_sample_flops(sizes, stage_config),
        PackLimits.for_stage(recipe, "single_image"),
        dist.get_world_size(),
    )
    steps[weighting] = {"grad_accum_steps": packer.pack_step(0).grad_accum_steps}
    processor = SampleProcessor.for_stage(recipe, "single_image", tokenizer)
    train(
        build_engine(student, stage_config),
        PackLoader(lake, "single_image", plan, processor, weighting),
        StepSchedule(stage_config, weighting, ThroughputMeter(sizes, stage_config, 2), packer, 0, 1),
        StopSignals(),
        steps[weighting].update,
        lambda step: None,
    )
if dist.get_rank() == 0:
    (folder / "steps.json").write_text(json.dumps(steps))
dist.barrier()
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def samples() -> list[small.DrawnSample]:
    """Seven samples with one image or none, and answers of different lengths."""
    drawn = [sample for sample in small.draw_shape_samples(9) if len(sample[0]) < 2][:7]
    return [(images, question, answer * (1 + n)) for n, (images, question, answer) in enumerate(drawn)]


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Path, samples: list[small.DrawnSample]
) -> tuple[Recipe, PackLoader, dict[str, Any]]:
    """A step of two ranks for each weighting, and what it was made from."""
    folder = tmp_path_factory.mktemp("weighting")
    data = small.build_recipe_data(tokenizer, global_batch_size=7)
    recipe = parse_recipe(data)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    lake = small.fill_lake(folder / "lake", samples)
    build_pack_plan(lake, STAGE, recipe, run_id="r")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(folder / "script.py"), str(folder), lake.root],
        env=small.build_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    processor = SampleProcessor.for_stage(recipe, STAGE, load_tokenizer(recipe))
    loader = PackLoader(lake, STAGE, PackPlan(lake, STAGE), processor)
    return recipe, loader, json.loads((folder / "steps.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("weighting", get_args(LossWeighting))
def test_loss_and_gradient_are_those_of_transformers_one_sample_at_a_time(
    trained: tuple[Recipe, PackLoader, dict[str, Any]], samples: list[small.DrawnSample], weighting: LossWeighting
) -> None:
    recipe, loader, steps = trained
    student = start_student(recipe, load_tokenizer(recipe))
    student.llava.model.language_model.set_attn_implementation("sdpa")
    build_parameter_groups(student, recipe.get_stage(STAGE))
    losses, lengths = [], []
    for position, (images, _, _) in enumerate(samples):
        batch = loader.load([position])
        labels = torch.cat([torch.tensor([IGNORE_INDEX]), batch.targets_L[:-1]])[None]
        inputs: dict[str, Any] = {"input_ids": batch.input_ids_1L, "labels": labels}
        if images:
            width, height = Image.open(io.BytesIO(images[0])).size
            inputs |= {"pixel_values": batch.tiles_T3PP[None].float() / 127.5 - 1.0}
            inputs |= {"image_sizes": torch.tensor([(height, width)])}
        # What the released `compute_loss` returns: the mean over the loss tokens of a batch of one sample.
        losses.append(student.llava(**inputs, use_cache=False).loss)
        lengths.append(batch.n_loss_tokens)
    n_loss_tokens = torch.tensor(lengths, dtype=torch.float32)
    # Each is then divided by the number of accumulation steps and averaged over the ranks: one weight per sample.
    weights = {"sample": torch.ones(len(samples)), "token": n_loss_tokens, "sqrt": n_loss_tokens.sqrt()}[weighting]
    loss = (torch.stack(losses) * weights).sum() / weights.sum()
    loss.backward()
    gradients = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
    step = steps[weighting]
    assert step["grad_accum_steps"] > 1
    assert step["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert step["grad_norm"] == pytest.approx(float(torch.nn.utils.get_total_norm(gradients)), rel=1e-4)


def test_the_weightings_differ_where_answers_differ_in_length(
    trained: tuple[Recipe, PackLoader, dict[str, Any]],
) -> None:
    losses = [trained[2][weighting]["loss"] for weighting in get_args(LossWeighting)]
    assert len({round(loss, 5) for loss in losses}) == 3
