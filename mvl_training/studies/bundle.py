"""A study as a folder that others can check and run again: `mvl study export` and `import`.

| file | has |
|---|---|
| `<study>.yaml` | the study, which `mvl study run <study>.yaml` runs |
| `arms.json` | settings and recipe of every arm, and the versions of what was made |
| `inputs.json` | data versions of every table that mixtures read |
| `scores.parquet` | every score by arm, seed, benchmark and question |
| `report.md`, `report.json` | the report |
| `environment.json` | versions of Python and of all packages |
| `manifest.json` | SHA-256 of all of these |
"""

from __future__ import annotations

import hashlib
import json
import platform
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mvl_assets.common.atomic_write import write_bytes_atomic, write_text_atomic
from mvl_assets.errors import MvlError
from mvl_training.studies.arms import PROFILE_KEYS, ResolvedArm
from mvl_training.studies.record import StudyRecord, load_state
from mvl_training.studies.results import ArmQuestion, StudyReport, build_report, render_report, report_to_dict
from mvl_training.studies.study import Study, load_study

MANIFEST_FILE = "manifest.json"
SCORES_FILE, INPUTS_FILE, ARMS_FILE = "scores.parquet", "inputs.json", "arms.json"
SCORE_SCHEMA = pa.schema(
    [
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("benchmark", pa.string()),
        ("question", pa.string()),
        ("stratum", pa.string()),
        ("cluster", pa.string()),
        ("is_clean", pa.bool_()),
        ("score", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True)
class StudyBundle:
    """A folder that was read: the study, its scores, and the versions of its inputs."""

    study: Study
    rows: Sequence[ArmQuestion]
    inputs: dict[str, str]


def export_study(
    folder: Path, record: StudyRecord, arms: Sequence[ResolvedArm], rows: Sequence[ArmQuestion]
) -> StudyReport:
    """Write a study to a folder, which is made; the manifest comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    report = build_report(record.study, rows)
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCORE_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    files = {
        f"{record.study.name}.yaml": yaml.safe_dump(
            record.study.to_dict(), sort_keys=False, allow_unicode=True
        ).encode(),
        ARMS_FILE: _encode(_describe_arms(arms)),
        INPUTS_FILE: _encode(dict(record.inputs)),
        SCORES_FILE: sink.getvalue().to_pybytes(),
        "report.md": render_report(report).encode(),
        "report.json": _encode(report_to_dict(report)),
        "environment.json": _encode(_describe_environment()),
    }
    for name, data in files.items():
        write_bytes_atomic(folder / name, data)
    manifest = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    write_text_atomic(folder / MANIFEST_FILE, json.dumps(manifest, indent=1))
    return report


def _encode(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def _describe_arms(arms: Sequence[ResolvedArm]) -> dict[str, Any]:
    return {
        arm.arm_id.path: {
            # Models are left out: their addresses and headers are nobody else's business.
            "profile": arm.profile.model_dump(mode="json", include={*PROFILE_KEYS, "holdout_fraction", "paper_parity"}),
            "recipe": arm.recipe.to_dict(),
            "made": asdict(load_state(arm.arm_id)),
        }
        for arm in arms
    }


def _describe_environment() -> dict[str, Any]:
    packages = {name: d.version for d in distributions() if (name := d.metadata["Name"])}
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": dict(sorted(packages.items())),
    }


def read_bundle(folder: Path) -> StudyBundle:
    """Read the folder of a study.

    Raises:
        MvlError: It is none, or a file is not the one that was written.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        files = {str(name): str(digest) for name, digest in manifest.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise MvlError(f"{path} cannot be read: {error}", hint="name a folder of `mvl study export`") from error
    for name, digest in files.items():
        file = folder / name
        if Path(name).name != name or not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise MvlError(f"{file} is not what was exported", hint="export or copy the folder again")
    (study_file,) = [name for name in files if name.endswith(".yaml")] or [""]
    if not {study_file, SCORES_FILE, INPUTS_FILE} <= files.keys():
        raise MvlError(f"{folder} lacks files of a study", hint="export or copy the folder again")
    rows = pq.read_table(folder / SCORES_FILE, schema=SCORE_SCHEMA).to_pylist()
    inputs = json.loads((folder / INPUTS_FILE).read_text(encoding="utf-8"))
    return StudyBundle(load_study(folder / study_file), [ArmQuestion(**row) for row in rows], inputs)


def iter_bundle_differences(
    bundle: StudyBundle, own_inputs: dict[str, str], own_rows: Sequence[ArmQuestion]
) -> Iterator[str]:
    """Yield in words how the tables and the scores of a bundle differ from those here."""
    names = sorted({*bundle.inputs, *own_inputs})
    other = [name for name in names if bundle.inputs.get(name) != own_inputs.get(name)]
    yield f"tables: {len(names) - len(other)} of {len(names)} have the same rows here" + (
        f"; others: {', '.join(other)}" if other else ""
    )
    means, own_means = _compute_means(bundle.rows), _compute_means(own_rows)
    for cell in sorted(means):
        benchmark, arm, seed = cell
        if cell in own_means:
            yield f"{benchmark}, {arm} seed {seed}: {means[cell]:.1f} there, {own_means[cell]:.1f} here"
    if not own_means:
        yield f"no scores here yet: `mvl study run {bundle.study.name}.yaml` makes them"


def _compute_means(rows: Sequence[ArmQuestion]) -> dict[tuple[str, str, int], float]:
    scores: dict[tuple[str, str, int], list[float]] = {}
    for row in rows:
        scores.setdefault((row.benchmark, row.arm, row.seed), []).append(row.score)
    return {cell: 100 * statistics.fmean(values) for cell, values in scores.items()}
