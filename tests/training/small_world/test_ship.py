"""A shipped model has the digest of its weights, its card, and nothing of the run that made it."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mvl_training.small_world.ship import ship_model


def test_weights_are_halved_and_what_a_run_wrote_for_itself_stays_behind(tmp_path: Path):
    export = tmp_path / "export"
    export.mkdir()
    save_file({"weight": torch.ones(4, 4)}, export / "model.safetensors")
    (export / "config.json").write_text(json.dumps({"model_type": "qwen2", "dtype": "float32"}))
    (export / "mvl.json").write_text('{"lake": "somewhere"}')
    folder = ship_model(export, "tiny", "# Tiny\n", tmp_path / "models")
    assert load_file(folder / "model.safetensors")["weight"].dtype == torch.bfloat16
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((folder / "origin.json").read_text())["parameters"] == 16
    assert (folder / "README.md").read_text() == "# Tiny\n" and not (folder / "mvl.json").exists()
