"""ZeRO-3 with weights that are really partitioned: no threshold below which they stay whole, the head untied and in
parts, float32 that is float32; and the conversion of checkpoints, which all ranks share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvl_training.data.planning import build_pack_plan
from mvl_training.recipe import parse_recipe
from tests.patience import PATIENCE_S
from tests.training import tiny_model as small

# Two ranks train the same steps with ZeRO-2 and with ZeRO-3, then compare the model's logits outside of its `forward`,
# and what they convert with what DeepSpeed converts in one process.
SCRIPT = """
import json, sys
from argparse import Namespace
from pathlib import Path

import torch
import torch.distributed as dist

from mvl_assets.lake.lake import Lake
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.pack_loader import PackLoader
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.processing import SampleProcessor, load_tokenizer
from mvl_training.data.step_packs import PackLimits, StepPacker
from mvl_training.model import student_model
from mvl_training.model.cost_model import build_sample_flops, compute_model_sizes
from mvl_training.model.lora import add_adapters
from mvl_training.model.students.choose import start_student
from mvl_training.recipe import load_recipe
from mvl_training.trainer import engine as engines, loop
from mvl_training.trainer.checkpoint import DEEPSPEED_TAG
from mvl_training.trainer.main import init_distributed
from mvl_training.trainer.mfu import ThroughputMeter
from mvl_training.trainer.probe import compute_probe_logits
from mvl_training.trainer.universal_checkpoint import convert_to_universal
from mvl_training.trainer.zero3 import build_student_zero3, gather_own_parameters

folder, lake = Path(sys.argv[1]), Lake(sys.argv[2])
student_model.HEAD_CHUNK_TOKENS = engines.HEAD_CHUNK_TOKENS = 64
NO_THRESHOLDS = {
    "stage3_param_persistence_threshold": 0,
    "stage3_max_live_parameters": 0,
    "stage3_max_reuse_distance": 0,
    "stage3_prefetch_bucket_size": 0,
}
build_zero_config = engines._build_zero_config
engines._build_zero_config = lambda stage_config: build_zero_config(stage_config) | NO_THRESHOLDS
init_distributed()

def read_files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

def compare_conversions(checkpoint):
    converted = convert_to_universal(checkpoint)
    expected = checkpoint.with_name("expected")
    if dist.get_rank() == 0:
        from deepspeed.checkpoint import ds_to_universal
        ds_to_universal.main(Namespace(
            input_folder=str(checkpoint / DEEPSPEED_TAG), output_folder=str(expected / DEEPSPEED_TAG),
            num_extract_workers=1, num_merge_workers=1, keep_temp_folder=False, strict=True, inject_missing_state=True,
        ))
        theirs, ours = read_files(expected), read_files(converted)
        return [len(ours), sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))]

recipe = load_recipe(folder / "tiny.yaml")
tokenizer, plan = load_tokenizer(recipe), PackPlan(lake, "single_image")
results = {}
stop_signals = loop.StopSignals()
for zero_stage in (2, 3):
    stage_config = recipe.get_stage("single_image").model_copy(update={"zero_stage": zero_stage})
    if zero_stage == 3:
        student, sizes = build_student_zero3(
            lambda: start_student(recipe, tokenizer),
            engines.build_deepspeed_config(stage_config, load_universal=False),
            torch.float32,
        )
    else:
        student = start_student(recipe, tokenizer)
        sizes = compute_model_sizes(student)
    if stage_config.lora is not None:
        add_adapters(student, stage_config.lora, seed=recipe.seed)
    engine = engines.build_engine(student, stage_config)
    packer = StepPacker(
        plan,
        BatchOrder(len(plan), stage_config.global_batch_size, recipe.seed),
        build_sample_flops(sizes, stage_config),
        PackLimits.for_stage(recipe, "single_image"),
        dist.get_world_size(),
    )
    loader = PackLoader(
        lake, "single_image", plan, SampleProcessor.for_stage(recipe, "single_image", tokenizer), "sample"
    )
    steps = []
    schedule = loop.StepSchedule(
        stage_config, "sample", ThroughputMeter(sizes, stage_config, 2), packer, 0, stage_config.steps
    )
    loop.train(engine, loader, schedule, stop_signals, steps.append, lambda step: None)
    engine.eval()
    with torch.no_grad(), gather_own_parameters(engine.module):
        logits = compute_probe_logits(engine.module, loader.load([0]))
    checkpoint = folder / f"zero{zero_stage}" / "step-00000004"
    engine.save_checkpoint(str(checkpoint), tag=DEEPSPEED_TAG, save_latest=False)
    dist.barrier()
    results[zero_stage] = {
        "converted": compare_conversions(checkpoint),
        "losses": [step["loss"] for step in steps],
        "norms": [step["grad_norm"] for step in steps],
        "logits": logits.flatten()[:500].tolist(),
        "dtypes": sorted({str(parameter.dtype) for parameter in engine.module.parameters()}),
        "held": sum(getattr(parameter, "ds_tensor", parameter).numel() for parameter in engine.module.parameters()),
        "whole": sum(parameter.ds_persist for parameter in engine.module.parameters() if hasattr(parameter, "ds_id")),
        "head_chunks": student.n_head_chunks,
        "tied": student.llava.lm_head.weight is student.llava.get_input_embeddings().weight,
    }
if dist.get_rank() == 0:
    (folder / "results.json").write_text(json.dumps(results))
dist.barrier()
dist.destroy_process_group()
"""


@pytest.fixture(scope="module", params=[None, {"rank": 4}], ids=["whole", "lora"])
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: Path
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("partitions")
    data = small.build_recipe_data(tokenizer, steps=4, gradient_checkpointing=True, lora=request.param)
    data["language"]["config"]["tie_word_embeddings"] = False
    (folder / "tiny.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    lake = small.fill_lake(folder / "lake", small.draw_shape_samples(24))
    build_pack_plan(lake, "single_image", parse_recipe(data), run_id="r")
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
    return dict(json.loads((folder / "results.json").read_text(encoding="utf-8")))


def test_every_weight_is_partitioned_in_float32_and_the_head_is_untied_and_in_parts(results: dict[str, Any]) -> None:
    whole, parts = results["2"], results["3"]
    assert (parts["whole"], parts["head_chunks"], parts["tied"]) == (0, 4, False)
    assert parts["dtypes"] == ["torch.float32"]
    assert parts["held"] < 0.52 * whole["held"]


def test_losses_gradients_and_logits_equal_those_of_whole_weights(results: dict[str, Any]) -> None:
    whole, parts = results["2"], results["3"]
    assert parts["losses"] == pytest.approx(whole["losses"], rel=1e-5)
    assert parts["norms"] == pytest.approx(whole["norms"], rel=1e-4)
    assert parts["logits"] == pytest.approx(whole["logits"], abs=1e-4)


def test_ranks_that_share_a_conversion_write_what_one_process_writes(results: dict[str, Any]) -> None:
    for zero_stage in ("2", "3"):
        n_files, differing = results[zero_stage]["converted"]
        assert n_files > 50 and differing == []
