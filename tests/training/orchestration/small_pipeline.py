"""A lake, a recipe and a profile small enough to run all three stages through Dagster on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from mvl_assets.common.sample_facts import compute_holdout_hash, get_image_group_id
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.profile import PROFILES_DIR
from mvl_assets.lake.lake import Lake
from tests.training import tiny_model as small

STEPS = 4


def prepare(home: Path, patch: pytest.MonkeyPatch, **stage: Any) -> Lake:
    """Points the settings below `home` and fills it: 24 drawn samples in every mixture, half of them held out too
    (harmless: these checkpoints have learnt nothing). `stage` changes every stage of the recipe."""
    patch.setenv("MVL_HOME", str(home))
    patch.delenv("MVL_LAKE", raising=False)
    patch.setenv("MVL_PROFILE", str(write_profile(home, **stage)))
    samples = small.draw_shape_samples(24)
    lake = Lake(str(home / "lake"))
    for name in TRAINING_STAGES:
        small.fill_lake(home / "lake", samples, stage=name)
    columns = ["sample_id", "version_id", "source", "image_ids"]
    rows = [
        {
            **row,
            "category": "general",
            "modality": ("text", "single_image", "multi_image")[min(2, len(row["image_ids"] or []))],
            "image_group_id": group,
            "holdout_hash": compute_holdout_hash(group),
        }
        for row in lake.get_table("samples").iter_rows(columns)
        for group in [get_image_group_id(row["sample_id"], row["image_ids"] or [])]
    ]
    table = lake.get_table("category/general")
    schema = table.spec.columns
    content = [{name: row.get(name) for name in schema.names} for row in rows]
    table.publish([pa.Table.from_pylist(content, schema=schema)], partition_key="drawn")
    return lake


def write_profile(home: Path, **stage: Any) -> Path:
    data = small.build_recipe_data(small.write_tokenizer(home / "tokenizer"), **{"steps": STEPS, **stage})
    data["name"] = "demo-tiny"  # may train on a CPU
    # vLLM's CPU attention has kernels for heads of 32 and up.
    data["language"]["config"] |= {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    settings = data["stages"].pop("single_image")
    alignment = {"learning_rates": {"projector": 3e-3}, "chat_format": "plain", "image_mode": "flat"}
    data["stages"] = {"alignment": settings | alignment, "single_image": settings, "one_vision": settings}
    recipe = home / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(data), encoding="utf-8")
    profile = yaml.safe_load((PROFILES_DIR / "demo.yaml").read_text(encoding="utf-8"))
    file = home / "profile.yaml"
    file.write_text(yaml.safe_dump(profile | {"holdout_fraction": 0.5, "recipe": str(recipe)}), encoding="utf-8")
    return file
