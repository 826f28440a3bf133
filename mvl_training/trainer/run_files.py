"""Names of the files and folders of a run. No torch: the asset definitions read these files too."""

from __future__ import annotations

METRICS_FILE = "metrics.jsonl"
RESULT_FILE = "result.json"
CHECKPOINTS_DIR = "checkpoints"
EXPORT_DIR = "export"
TENSORBOARD_DIR = "tensorboard"

PROVENANCE_FILE = "mvl.json"
"""In an export: the run, recipe, plan and package versions that it comes from."""
