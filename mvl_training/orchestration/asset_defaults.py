"""Defaults and helpers shared by the assets of this code location."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.settings import load_settings
from mvl_assets.lake.lake import Lake

OWNERS = ["team:training"]
GPU_POOL = "gpu-train"


def open_lake() -> Lake:
    """Return the lake that the settings name."""
    return Lake(load_settings().lake_root)


def build_code_version(code_version: str, inputs: Mapping[str, Any]) -> str:
    """Return a code version that changes with the inputs and with `code_version`, which is increased by hand."""
    return f"{code_version}-{compute_digest('inputs', inputs)[:12]}"
