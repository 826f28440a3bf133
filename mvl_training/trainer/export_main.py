"""Export of a trained stage: its last checkpoint in Hugging Face form, compared with the model that was trained.

    python -m mvl_training.trainer.export_main --out DIR

Reads what `mvl_training.trainer.main` left in DIR, and leaves there:
  export/        loaded by the next stage, `StudentRunner`, transformers and vLLM
  export.json    written last: an `ExportReport`

One process, which needs memory for the weights in float32; under torchrun, rank 0. A GPU of the kind that was trained
on gives the same logits; any other device may do it, and rounds otherwise. An export that is there already is kept.
Exit codes: 0 done, 2 bad input (one line on stderr), 4 the export gives other logits than the trained model.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from mvl_assets.errors import MvlError
from mvl_training.model.students.choose import load_student
from mvl_training.recipe import parse_recipe
from mvl_training.trainer.export import DTYPE_BY_PRECISION, export_checkpoint
from mvl_training.trainer.export_report import (
    EXPORT_CODE_VERSION,
    TOLERANCE_BY_PRECISION,
    ExportReport,
    read_export_report,
    write_export_report,
)
from mvl_training.trainer.output_lock import hold_output_dir
from mvl_training.trainer.probe import measure_probe_difference
from mvl_training.trainer.run_files import EXPORT_DIR, PROBE_FILE, PROVENANCE_FILE, RESULT_FILE


def export_stage(output_dir: Path) -> ExportReport:
    """Export the last checkpoint of a trained stage and compare it with the trained model.

    Args:
        output_dir: What the trainer got as `--out`.

    Returns:
        The comparison; an earlier one where it found the export good.

    Raises:
        OutputBusy: The folder is being trained in or exported from.
        CheckpointError: The checkpoint is damaged or incomplete.
        MvlError: The stage is not trained, or its probe is missing.
    """
    if not (output_dir / RESULT_FILE).is_file():
        raise MvlError(f"{output_dir} holds no trained stage", hint="the trainer writes its result.json last")
    with hold_output_dir(output_dir):
        former = read_export_report(output_dir)
        return former if former is not None and former.is_within_tolerance else _export_and_compare(output_dir)


def _export_and_compare(output_dir: Path) -> ExportReport:
    result = json.loads((output_dir / RESULT_FILE).read_text(encoding="utf-8"))
    export_dir = export_checkpoint(Path(result["checkpoint_dir"]), output_dir / EXPORT_DIR)
    provenance = json.loads((export_dir / PROVENANCE_FILE).read_text(encoding="utf-8"))
    recipe = parse_recipe(provenance["recipe"], str(export_dir / PROVENANCE_FILE))
    precision = recipe.get_stage(result["stage"]).precision
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    student = load_student(recipe, export_dir, DTYPE_BY_PRECISION[precision]).to(device).eval()
    difference = measure_probe_difference(output_dir / PROBE_FILE, student, device)
    report = ExportReport(
        result["run_hash"],
        result["checkpoint_dir"],
        EXPORT_CODE_VERSION,
        difference.relative,
        TOLERANCE_BY_PRECISION[precision],
        difference.trained_on,
        difference.measured_on,
    )
    write_export_report(output_dir, report)
    return report


def main(arguments: Sequence[str]) -> int:
    """Export a stage; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mvl_training.trainer.export_main")
    parser.add_argument("--out", required=True, type=Path, help="output folder of the trainer")
    options = parser.parse_args(arguments)
    if os.environ.get("RANK", "0") != "0":
        return 0
    try:
        report = export_stage(options.out)
    except MvlError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(
        f"{options.out / EXPORT_DIR}: logits differ from the trained model's by {report.max_difference:.2g} of the"
        f" largest; {report.tolerance:.2g} is allowed (trained on {report.trained_on}, now on {report.measured_on})\n"
    )
    return 0 if report.is_usable else 4


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
