"""What a study was started with, and how far each arm is: files below `MVL_HOME/studies/<name>`.

A study that goes on must be the study that was started: same arms, same settings of profile and recipe, same rows in
every table that mixtures read. If anything differs, nothing runs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mvl_assets.common.arm_address import ArmId
from mvl_assets.common.atomic_write import write_text_atomic
from mvl_assets.common.file_lock import try_lock
from mvl_assets.config.settings import load_settings
from mvl_assets.config.study_arms import get_arm_dir
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import ARM_FAMILIES, Lake
from mvl_training.studies.arms import ResolvedArm, iter_differing_keys, open_source_lake, write_arm
from mvl_training.studies.study import Study, parse_study

RECORD_FILE, STATE_FILE = "study.json", "state.json"
INPUT_FAMILIES = ("category", "rewritten", "judged")
INPUT_TABLES = ("curation/duplicates", "curation/contamination")
MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study that was started.

    Attributes:
        study: The study.
        file_content: What its file said then; None of a study without a file.
        arm_digests: Digests of the arms by their paths.
        inputs: Data versions of the tables that mixtures read.
    """

    study: Study
    file_content: Mapping[str, Any] | None
    arm_digests: Mapping[str, str]
    inputs: Mapping[str, str]


@dataclass
class ArmState:
    """How far an arm is; versions are those of the tables and weights when they were made.

    Attributes:
        mixture: Data version by training stage.
        pack_plan: Data version by training stage.
        checkpoint: Version of the weights by training stage.
        evaluation: Version of the weights that were asked, by suite.
        run_times: Seconds by step.
    """

    mixture: dict[str, str] = field(default_factory=dict)
    pack_plan: dict[str, str] = field(default_factory=dict)
    checkpoint: dict[str, str] = field(default_factory=dict)
    evaluation: dict[str, str] = field(default_factory=dict)
    run_times: dict[str, float] = field(default_factory=dict)


def get_study_dir(name: str) -> Path:
    """Return the folder of a study's record and arms."""
    return load_settings().studies_dir / name


@contextmanager
def hold_study(name: str) -> Iterator[None]:
    """Keep other processes from running or removing a study.

    Raises:
        MvlError: Another process does.
    """
    folder = load_settings().studies_dir
    folder.mkdir(parents=True, exist_ok=True)
    with try_lock(folder / f"{name}.lock") as is_acquired:
        if not is_acquired:
            raise MvlError(f"another process works on study {name}", hint="wait for it, or stop it")
        yield


def list_started_studies() -> list[str]:
    """Return the names of the studies that were started."""
    return sorted(path.parent.name for path in load_settings().studies_dir.glob(f"*/{RECORD_FILE}"))


def load_record(name: str) -> StudyRecord | None:
    """Return the record of a study; None if it was not started."""
    path = get_study_dir(name) / RECORD_FILE
    if not path.is_file():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    return StudyRecord(parse_study(data["study"], str(path)), data["file_content"], data["arm_digests"], data["inputs"])


def require_record(name: str) -> StudyRecord:
    """Return the record of a study.

    Raises:
        MvlError: It was not started.
    """
    record = load_record(name)
    if record is None:
        started = ", ".join(list_started_studies()) or "none"
        raise MvlError(f"study {name} was not started", hint=f"`mvl study run {name}` starts it; started: {started}")
    return record


def compute_input_versions(lake: Lake, study: Study) -> dict[str, str]:
    """Return the data versions of the tables that mixtures read; those of other lakes have their name before them."""
    versions = {}
    for lake_name in study.list_lakes():
        source_lake = open_source_lake(lake, lake_name)
        prefix = "" if lake_name is None else f"{lake_name}: "
        for name in (*(n for family in INPUT_FAMILIES for n in source_lake.list_tables(family)), *INPUT_TABLES):
            table = source_lake.get_table(name)
            if table.exists():
                versions[prefix + name] = table.compute_data_version()
    return versions


def start_study(
    study: Study, arms: Iterable[ResolvedArm], inputs: Mapping[str, str], file_content: Mapping[str, Any] | None
) -> StudyRecord:
    """Write the profile and recipe of every arm, and then the record."""
    return extend_study(StudyRecord(study, file_content, {}, dict(inputs)), study, arms)


def extend_study(record: StudyRecord, study: Study, new_arms: Iterable[ResolvedArm]) -> StudyRecord:
    """Write the profile and recipe of arms that a study did not have, and then its record with them."""
    digests = dict(record.arm_digests)
    for arm in new_arms:
        write_arm(arm)
        digests[arm.arm_id.path] = arm.digest
    record = replace(record, study=study, arm_digests=digests)
    write_text_atomic(
        get_study_dir(study.name) / RECORD_FILE, json.dumps(asdict(record) | {"study": study.to_dict()}, indent=1)
    )
    return record


def require_same_study(record: StudyRecord, study: Study) -> None:
    """Check that a study is the one that was started.

    Raises:
        MvlError: It is not; names the keys that differ.
    """
    keys = list(iter_differing_keys(record.study.to_dict(), study.to_dict()))
    if keys:
        raise _build_change_error(study.name, f"was started with another {_format_names(keys)}")


def require_same_inputs(record: StudyRecord, arms: Iterable[ResolvedArm], inputs: Mapping[str, str]) -> None:
    """Check that the profile, the recipe and the tables of a study are those that it was started with.

    Raises:
        MvlError: One of them is not; names which.
    """
    name = record.study.name
    changed_arms = [arm.arm_id.path for arm in arms if record.arm_digests.get(arm.arm_id.path) != arm.digest]
    if changed_arms:
        raise _build_change_error(
            name, f"was started with other settings of the profile or recipe (arms {_format_names(changed_arms)})"
        )
    changed_tables = sorted(t for t in {*inputs, *record.inputs} if inputs.get(t) != record.inputs.get(t))
    if changed_tables:
        raise _build_change_error(name, f"was started with other rows in {_format_names(changed_tables)}")


def _build_change_error(name: str, problem: str) -> MvlError:
    return MvlError(
        f"study {name} {problem}: its arms would not be comparable",
        hint=f"undo the change, start it under another name (--name), or `mvl study remove {name}` and begin again",
    )


def _format_names(names: list[str]) -> str:
    further = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + further


def load_state(arm_id: ArmId) -> ArmState:
    """Return how far an arm is."""
    path = get_arm_dir(arm_id) / STATE_FILE
    return ArmState(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else ArmState()


def save_state(arm_id: ArmId, state: ArmState) -> None:
    """Record how far an arm is."""
    write_text_atomic(get_arm_dir(arm_id) / STATE_FILE, json.dumps(asdict(state), indent=1))


def remove_study(lake: Lake, name: str) -> int:
    """Remove the tables of all arms of a study, then its folder; return the number of tables.

    The record goes last, so a removal that was killed is simply run again.
    """
    n_tables = 0
    for lake_name in require_record(name).study.list_lakes():
        arm_lake = open_source_lake(lake, lake_name)
        for family in ARM_FAMILIES:
            n_tables += sum(t.startswith(f"{family}/{name}/") for t in arm_lake.list_tables_with_arms(family))
            arm_lake.remove_folder(f"{family}/{name}")
    folder = get_study_dir(name)
    shutil.rmtree(folder / "arms", ignore_errors=True)
    shutil.rmtree(folder)
    return n_tables
