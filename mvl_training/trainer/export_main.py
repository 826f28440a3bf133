"""Export of a finished stage: its last checkpoint in Hugging Face form, compared with the model that was trained.

    python -m mvl_training.trainer.export_main --out DIR

Reads what `mvl_training.trainer.main` left in DIR, and leaves there:
  export/        loaded by the next stage, `StudentRunner`, transformers and vLLM
  export.json    written last: run_hash, checkpoint_dir, export_max_difference (largest difference of a logit between
                 the export and the trained model)

One process, which needs memory for the weights in float32 and no process group: the ranks of the training have ended,
and a machine with other GPUs, or none, may do it. An export that is there already is kept.
Exit codes: 0 done, 2 bad input (one line on stderr).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from mvl_assets.common.atomic_write import write_text_atomic
from mvl_assets.errors import MvlError
from mvl_training.model.students.choose import load_student
from mvl_training.recipe import parse_recipe
from mvl_training.trainer.export import DTYPE_BY_PRECISION, export_checkpoint
from mvl_training.trainer.probe import measure_probe_difference
from mvl_training.trainer.run_files import (
    EXPORT_DIR,
    EXPORT_REPORT_FILE,
    PROBE_FILE,
    PROVENANCE_FILE,
    RESULT_FILE,
    is_exported,
)


def export_stage(output_dir: Path) -> float:
    """Export the last checkpoint of a finished stage and compare it with the trained model.

    Args:
        output_dir: What the trainer got as `--out`.

    Returns:
        Largest difference of a logit.

    Raises:
        CheckpointError: The checkpoint is damaged or incomplete.
        MvlError: The stage is not finished.
    """
    report_path = output_dir / EXPORT_REPORT_FILE
    if is_exported(output_dir):
        return float(json.loads(report_path.read_text(encoding="utf-8"))["export_max_difference"])
    result_path = output_dir / RESULT_FILE
    if not result_path.is_file():
        raise MvlError(f"{output_dir} holds no finished stage", hint="the trainer writes its result.json last")
    result = json.loads(result_path.read_text(encoding="utf-8"))
    export_dir = export_checkpoint(Path(result["checkpoint_dir"]), output_dir / EXPORT_DIR)
    provenance = json.loads((export_dir / PROVENANCE_FILE).read_text(encoding="utf-8"))
    recipe = parse_recipe(provenance["recipe"], str(export_dir / PROVENANCE_FILE))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = DTYPE_BY_PRECISION[recipe.get_stage(result["stage"]).precision]
    student = load_student(recipe, export_dir, dtype).to(device).eval()
    difference = measure_probe_difference(output_dir / PROBE_FILE, student, device)
    report = {
        "run_hash": result["run_hash"],
        "checkpoint_dir": result["checkpoint_dir"],
        "export_max_difference": difference,
    }
    write_text_atomic(report_path, json.dumps(report, indent=1) + "\n", unique=False)
    return difference


def main(arguments: Sequence[str]) -> int:
    """Export a stage; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mvl_training.trainer.export_main")
    parser.add_argument("--out", required=True, type=Path, help="output folder of the trainer")
    options = parser.parse_args(arguments)
    try:
        export_stage(options.out)
    except MvlError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
