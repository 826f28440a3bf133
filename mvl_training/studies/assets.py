"""Assets of the studies that were started here: mixtures, pack plans, checkpoints, evaluations, a partition per run.

The graph has a study once `mvl study run` has started it. A partition is an arm with a seed, such as `both@0`.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.

from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.config.settings import load_settings
from mvl_assets.lake.lake import Lake
from mvl_assets.orchestration import asset_keys
from mvl_assets.orchestration.asset_status import STUDY_KEY_PREFIX
from mvl_assets.stages import CATEGORY, JUDGED
from mvl_training.orchestration.asset_defaults import GPU_POOL, OWNERS
from mvl_training.orchestration.launch import Launcher
from mvl_training.studies import arm_steps
from mvl_training.studies.arm_steps import STEP_NAMES, StepName
from mvl_training.studies.arms import ResolvedArm, resolve_arms
from mvl_training.studies.record import (
    ArmState,
    compute_input_versions,
    list_started_studies,
    require_record,
    require_same_inputs,
)

DESCRIPTIONS: dict[StepName, str] = {
    "mixture": "The mixtures of each arm, by its settings and seed, in tables of their own.",
    "pack_plan": "The rows of each arm's mixtures in the order of training, with exact counts.",
    "checkpoint": "The weights of each arm. What another arm has trained with the same rows and settings is reused.",
    "evaluation": "What the last checkpoint of each arm answers to the study's questions.",
}


def build_step_key(study: str, step: StepName) -> dg.AssetKey:
    """Return the key of a step of a study."""
    return dg.AssetKey([STUDY_KEY_PREFIX, study, step])


def build_partition_key(arm: ResolvedArm) -> str:
    """Return the partition of an arm with a seed."""
    return f"{arm.arm_id.arm}@{arm.arm_id.seed}"


def build_study_assets() -> list[dg.AssetsDefinition]:
    """Return the assets of all studies that were started here."""
    return [
        _build_step_asset(name, step, _list_upstream_keys() if step == "mixture" else [])
        for name in list_started_studies()
        for step in STEP_NAMES
    ]


def _list_upstream_keys() -> Sequence[dg.AssetKey]:
    return [
        *(dg.AssetKey([CATEGORY.name, category]) for category in asset_keys.list_categories()),
        *(dg.AssetKey([JUDGED.name, category]) for category in asset_keys.list_rewritten_categories()),
        dg.AssetKey(["curation", "duplicates"]),
        dg.AssetKey(["curation", "contamination"]),
    ]


def _build_step_asset(name: str, step: StepName, upstream_keys: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
    study = require_record(name).study
    partition_keys = [f"{arm_id.arm}@{arm_id.seed}" for arm_id in study.list_runs()]
    earlier_steps = STEP_NAMES[: STEP_NAMES.index(step)]

    @dg.asset(
        key=build_step_key(name, step),
        group_name="studies",
        description=f"{study.description.strip()} {DESCRIPTIONS[step]}".strip(),
        deps=[*upstream_keys, *(build_step_key(name, earlier) for earlier in earlier_steps[-1:])],
        partitions_def=dg.StaticPartitionsDefinition(partition_keys),
        kinds={"lance"} if step != "checkpoint" else {"deepspeed", "pytorch"},
        owners=OWNERS,
        pool=GPU_POOL if step in ("checkpoint", "evaluation") else None,
    )
    def _run_step(context: dg.AssetExecutionContext, launcher: Launcher) -> dg.MaterializeResult:
        record = require_record(name)
        arms = resolve_arms(record.study, asset_keys.load_active_profile())
        arm = next(arm for arm in arms if build_partition_key(arm) == context.partition_key)

        def run_command(command: Sequence[str], run_dir: Path) -> None:
            launcher.run(context, command, run_dir=run_dir)

        if step == "mixture":
            lake = Lake(load_settings().lake_root).get_pipeline_lake()
            require_same_inputs(record, arms, compute_input_versions(lake, record.study))
            state = arm_steps.make_mixtures(record.study, arm, run_id=context.run_id)
        elif step == "pack_plan":
            state = arm_steps.make_plans(record.study, arm, run_id=context.run_id, launch=run_command)
        elif step == "checkpoint":
            state = arm_steps.train_arm(arm, launch=run_command, log=context.log.info)
        else:
            state = arm_steps.evaluate_arm(
                record.study, arm, run_id=context.run_id, launch=run_command, log=context.log.info
            )
        return _build_result(step, state)

    return _run_step


def _build_result(step: StepName, state: ArmState) -> dg.MaterializeResult:
    versions: dict[str, str] = getattr(state, step)
    return dg.MaterializeResult(
        data_version=dg.DataVersion("-".join(version[:16] for version in versions.values())),
        metadata={
            metadata_keys.VERSIONS: dg.JsonMetadataValue(versions),
            metadata_keys.SECONDS: state.run_times[step],
        },
    )


def build_defs() -> dg.Definitions:
    """Return the definitions of the studies that were started here; the launcher comes from those of training."""
    return dg.Definitions(assets=build_study_assets())
