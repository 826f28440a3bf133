"""Names of what a run leaves in its folder. No torch: the asset definitions read these files too."""

from __future__ import annotations

METRICS_FILE = "metrics.jsonl"
RESULT_FILE = "result.json"
CHECKPOINTS_DIR = "checkpoints"
EXPORT_DIR = "export"
TENSORBOARD_DIR = "tensorboard"

PROVENANCE_FILE = "mvl.json"
"""Inside an export: which run, recipe, plan and versions made it."""
