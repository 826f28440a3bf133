"""Defaults and helpers shared by the assets of this code location."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.config.settings import load_settings
from mvl_assets.lake.lake import Lake
from mvl_training.runs.training_run import get_export_asset_name

OWNERS = ["team:training"]
GPU_POOL = "gpu-train"


def open_lake() -> Lake:
    """Return the lake that the settings name."""
    return Lake(load_settings().lake_root)


def build_code_version(code_version: str, inputs: Mapping[str, Any]) -> str:
    """Return a code version that changes with the inputs and with `code_version`, which is increased by hand."""
    return f"{code_version}-{compute_digest('inputs', inputs)[:12]}"


def build_export_key(stage: TrainingStage) -> dg.AssetKey:
    """Return the key of the asset that exports a stage."""
    return dg.AssetKey.from_user_string(get_export_asset_name(stage))
