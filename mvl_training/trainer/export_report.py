"""What the comparison of an export with the trained model gave: `export.json` in the folder of a stage. No torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mvl_assets.common.atomic_write import write_text_atomic
from mvl_training.trainer.run_files import EXPORT_DIR, EXPORT_REPORT_FILE, RESULT_FILE

# Increased by hand when exports of the same weights change; where weights do, `TRAIN_CODE_VERSION` is.
EXPORT_CODE_VERSION = "1"

TOLERANCE_BY_PRECISION = {"fp32": 1e-3, "bf16": 2**-6}
"""Largest difference of a logit, as a share of the largest one: equal weights, by kernels that may round in another
order. In bf16, whose numbers have 8 bits, this is two steps of the largest logit; adding adapters stays within it."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """Comparison of an export with the trained model.

    Attributes:
        run_hash: Identity of the run.
        checkpoint_dir: The checkpoint that was exported.
        code_version: `EXPORT_CODE_VERSION` of the code that wrote it.
        max_difference: Largest difference of a logit, as a share of the largest logit of the trained model; NaN where
            there was none to compare.
        tolerance: What it may be.
        trained_on: Name of the device on which the trained model computed.
        measured_on: Name of the device on which the export did.
    """

    run_hash: str
    checkpoint_dir: str
    code_version: str
    max_difference: float
    tolerance: float
    trained_on: str
    measured_on: str

    @property
    def is_within_tolerance(self) -> bool:
        """Whether the export computes what the trained model did; not if nothing could be compared."""
        return self.max_difference <= self.tolerance

    @property
    def is_conclusive(self) -> bool:
        """Whether a larger difference means other weights: kernels of another device round otherwise."""
        return self.trained_on == self.measured_on

    @property
    def is_usable(self) -> bool:
        """Whether the next stage may start from the export."""
        return self.is_within_tolerance or not self.is_conclusive


def write_export_report(output_dir: Path, report: ExportReport) -> None:
    """Write the report into the folder of a stage. Atomic."""
    write_text_atomic(output_dir / EXPORT_REPORT_FILE, json.dumps(asdict(report), indent=1) + "\n", unique=False)


def read_export_report(output_dir: Path) -> ExportReport | None:
    """Return the report of the export in a stage's folder; None if there is no export of its result by this code."""
    result_path, report_path = output_dir / RESULT_FILE, output_dir / EXPORT_REPORT_FILE
    if not (result_path.is_file() and report_path.is_file() and (output_dir / EXPORT_DIR / "config.json").is_file()):
        return None
    result, content = (json.loads(path.read_text(encoding="utf-8")) for path in (result_path, report_path))
    report = ExportReport(**content)
    is_of_result = all(content[name] == result[name] for name in ("run_hash", "checkpoint_dir"))
    return report if is_of_result and report.code_version == EXPORT_CODE_VERSION else None
