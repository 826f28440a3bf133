"""Fixtures of the training tests: one tokenizer folder per session, one planned lake."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_model as small

from mvl_assets.lake.lake import Lake
from mvl_training.conversation import ChatTokens
from mvl_training.recipe import Recipe


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def tokens(tokenizer: Path) -> ChatTokens:
    return ChatTokens.load(tokenizer)


@pytest.fixture
def recipe(tokenizer: Path) -> Recipe:
    return small.recipe(tokenizer)


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Lake:
    """Forty drawn samples (one picture, two, none) and a video, with their pack plan."""
    from mvl_training.packing import plan_stage

    filled = small.fill_lake(tmp_path_factory.mktemp("lake"), small.shape_samples(40), frames=5)
    plan_stage(filled, "single_image", small.recipe(tokenizer), run_id="test")
    return filled
