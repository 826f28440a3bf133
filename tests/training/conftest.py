"""Fixtures of the training tests: one tokenizer folder per session, one planned lake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mvl_assets.lake.lake import Lake
from mvl_training.data.chat_format import ChatTokenizer
from mvl_training.data.planning import build_pack_plan
from mvl_training.recipe import Recipe, parse_recipe
from mvl_training.trainer.export_main import export_stage
from tests.patience import PATIENCE_S
from tests.training import tiny_model as small


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def tokens(tokenizer: Path) -> ChatTokenizer:
    return ChatTokenizer.load(tokenizer)


@pytest.fixture
def recipe(tokenizer: Path) -> Recipe:
    return small.build_recipe(tokenizer)


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Lake:
    """Forty drawn samples (one image, two, none) and a video, with their pack plan."""
    filled = small.fill_lake(tmp_path_factory.mktemp("lake"), small.draw_shape_samples(40), frames=5)
    build_pack_plan(filled, "single_image", small.build_recipe(tokenizer), run_id="test")
    return filled


@pytest.fixture(scope="session")
def seeing(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> tuple[Path, list[small.DrawnSample]]:
    """A model trained by the real process until it tells colours: its output folder, and 40 drawings it never saw."""
    folder = tmp_path_factory.mktemp("seeing")
    file = folder / "seeing.yaml"
    data = small.build_seeing_recipe_data(tokenizer)
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    drawn = small.draw_colour_samples(440, seed=0)
    filled = small.fill_lake(folder / "lake", drawn[:400])
    build_pack_plan(filled, "single_image", parse_recipe(data), run_id="test")
    command = [sys.executable, "-m", "mvl_training.trainer.main", "--recipe", str(file), "--stage", "single_image"]
    command += ["--lake", filled.root, "--out", str(folder / "out")]
    done = subprocess.run(
        command, env=small.build_environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    export_stage(folder / "out")
    return folder / "out", drawn[400:]
