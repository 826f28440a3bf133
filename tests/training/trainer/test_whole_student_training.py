"""Whole students through the launched trainer: plan, train, resume, export, load with transformers, ask."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from mvl_assets.lake.lake import Lake
from mvl_training.data.pack_plan import PackPlan
from mvl_training.data.planning import build_pack_plan
from mvl_training.evaluation.student_runner import Conversation, StudentRunner
from mvl_training.model.cost_model import compute_recipe_sizes
from mvl_training.recipe import parse_recipe
from mvl_training.runs.forecast import forecast_stage
from mvl_training.trainer.export_main import export_stage
from tests.patience import PATIENCE_S
from tests.training import tiny_model as small
from tests.training import tiny_students
from tests.training.student_samples import build_row, open_processor
from tests.training.tiny_students import AutoModelForImageTextToText, AutoProcessor

# Trains, forgets the last steps, trains again, and trains the next stage from the export: each in a fork of a process
# that has imported torch once.
TRAIN_AND_RESUME = """
import os, shutil, sys
from pathlib import Path
from mvl_training.trainer import export_main, main

out, *arguments = sys.argv[1:]

def train(*more):
    if (pid := os.fork()) == 0:
        status = main.main([*arguments, *more]) or export_main.main([more[0], more[1]])
        os._exit(status)
    if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise SystemExit(status)

train("--out", out)
shutil.move(f"{out}/export", f"{out}/first")
(Path(out) / "result.json").unlink()
shutil.rmtree(f"{out}/checkpoints/step-00000006")
train("--out", out)
train("--out", f"{out}/next", "--init-from", f"{out}/export", "--steps", "1")
"""


@pytest.fixture(scope="module", params=tiny_students.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def trained(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(family)
    model = tiny_students.write_student(family, folder / "model")
    data = tiny_students.build_recipe_data(family, model, tiny_students.LIMITS[family])
    recipe_file = folder / "student.yaml"
    recipe_file.write_text(yaml.safe_dump(data), encoding="utf-8")
    lake = small.fill_lake(folder / "lake", small.draw_shape_samples(20), frames=5)
    report = build_pack_plan(lake, "single_image", parse_recipe(data), run_id="test")
    assert report.n_samples == 21 and not report.rejects_by_error
    arguments = ["--recipe", str(recipe_file), "--stage", "single_image", "--lake", lake.root]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_AND_RESUME, str(folder / "out"), *arguments],
        env=small.build_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_a_resumed_run_ends_with_the_same_weights(trained: Path) -> None:
    result = json.loads((trained / "out" / "result.json").read_text(encoding="utf-8"))
    assert result["resumed_from"] == 4 and result["n_steps"] == 6
    assert result["last_loss"] < result["first_loss"]
    first, second = (load_file(trained / "out" / name / "model.safetensors") for name in ("first", "export"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_export_has_the_logits_of_the_trained_model_and_starts_the_next_stage(trained: Path) -> None:
    for folder in (trained / "out", trained / "out" / "next"):
        assert export_stage(folder).is_within_tolerance
    assert json.loads((trained / "out" / "next" / "result.json").read_text())["initial_weights"]["step"] == 6


def test_transformers_loads_the_export_and_gives_our_tokens_logits_and_answers(trained: Path, family: str) -> None:
    export = trained / "out" / "export"
    runner = StudentRunner(export, max_new_tokens=6)
    processor, vlm = AutoProcessor.from_pretrained(export), AutoModelForImageTextToText.from_pretrained(export).eval()
    image = small.draw("circle", "green", (480, 300))
    question = [{"type": "image", "image": Image.open(io.BytesIO(image))}, {"type": "text", "text": "What is it?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": question}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert runner.build_prompt_ids([image], "What is it?") == inputs["input_ids"][0].tolist()
    row, data = build_row([Image.open(io.BytesIO(image))])
    sample = runner.processor.build_sample(row, data)
    model_inputs = tiny_students.build_model_inputs(family, runner.student, sample)
    with torch.no_grad():
        theirs = float(vlm(**model_inputs).loss)
        answer_ids = vlm.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    (ours,) = runner.compute_losses([([image], "What is it? 1 < 2", "red circle, green")])
    assert ours == pytest.approx(theirs, rel=1e-4)
    (answer,) = runner.answer_questions([([image], "What is it?")])
    assert answer == processor.decode(answer_ids, skip_special_tokens=True).strip()


def test_conversations_of_different_lengths_are_answered_as_each_alone(trained: Path) -> None:
    runner = StudentRunner(trained / "out" / "export", max_new_tokens=5)
    images = [small.draw("circle", colour, size) for colour, size in (("red", (300, 240)), ("blue", (240, 420)))]
    conversations = [
        Conversation([("user", ["Say red."])], 5),
        Conversation([("user", [images[0], "What is it?"])], 5),
        Conversation([("user", [images, "What moves in it?"])], 5),
        Conversation([("user", [images[0], images[1], "Both?"])], 5),
    ]
    together = runner.generate_replies(conversations)
    assert together == [runner.generate_replies([conversation])[0] for conversation in conversations]


def test_the_stage_is_forecast_from_its_plan_and_without_one(trained: Path, family: str) -> None:
    data = {"samples": 20, "tokens": 150, "tiles": 100}
    recipe = tiny_students.build_recipe(family, trained / "model", tiny_students.LIMITS[family], expected=data)
    sizes = compute_recipe_sizes(recipe)
    plan = PackPlan(Lake(str(trained / "lake")), "single_image")
    planned = forecast_stage(recipe, "single_image", sizes, n_gpus=2, plan=plan)
    expected = forecast_stage(recipe, "single_image", sizes, n_gpus=2)
    assert planned.flops > 0 and expected.lockstep.efficiency > 0


def test_an_export_has_the_processor_of_the_stage(trained: Path, family: str) -> None:
    processor = open_processor(family, trained / "out" / "export")
    limited = open_processor(family, trained / "model", tiny_students.LIMITS[family])
    size = (900, 1200)
    own, with_limits = (p.inputs.compute_layouts([size], is_video=False) for p in (processor, limited))
    assert own == with_limits
