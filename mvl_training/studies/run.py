"""`mvl study run`: the steps of all arms that are not done, one after the other, each as a run of Dagster's.

All mixtures come first, then arm by arm, so that the first seed of every arm is complete before the second begins. A
step that fails ends its arm; the other arms go on, and the next call picks it up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mvl_assets.errors import InfrastructureError, MvlError
from mvl_assets.runner.asset_steps import AssetStep, StepRunner
from mvl_assets.runner.orphaned_runs import fail_orphaned_runs
from mvl_training.studies.arm_steps import STEP_NAMES, StepName, is_step_done
from mvl_training.studies.arms import ResolvedArm
from mvl_training.studies.assets import build_partition_key, build_step_key
from mvl_training.studies.study import Study


@dataclass
class RunTally:
    """Steps that were made, that were done already, and that failed, the latter with what went wrong."""

    made: int = 0
    done: int = 0
    failed: list[str] = field(default_factory=list)

    def add(self, other: RunTally) -> None:
        """Count the steps of another call, too."""
        self.made += other.made
        self.done += other.done
        self.failed += other.failed


def run_arms(study: Study, arms: Sequence[ResolvedArm], log: Callable[[str], None]) -> RunTally:
    """Run what is left of the arms.

    Raises:
        InfrastructureError: A step failed for a reason that would fail every other step, too.
        MvlError: No code location has the study's assets.
    """
    step_runner = StepRunner()
    fail_orphaned_runs(step_runner.instance)
    location, tally, failed_arms = _find_location(step_runner, study), RunTally(), set()
    first_step, *later_steps = STEP_NAMES
    for arm, step in [*((arm, first_step) for arm in arms), *((arm, step) for arm in arms for step in later_steps)]:
        if arm.arm_id in failed_arms:
            continue
        if is_step_done(study, arm, step):
            tally.done += 1
            continue
        result = step_runner.run(
            AssetStep(location, tuple(build_step_key(study.name, step).path), build_partition_key(arm))
        )
        label = f"{arm.arm_id.arm} seed {arm.arm_id.seed}: {step}"
        if result.error is None:
            tally.made += 1
            log(f"{label} ({result.seconds:.1f} s)")
        elif result.error.is_fatal:
            raise InfrastructureError(f"{label}: {result.error.message}", hint=result.error.hint)
        else:
            failed_arms.add(arm.arm_id)
            hint = f"; {result.error.hint}" if result.error.hint else ""
            tally.failed.append(f"{label}: {result.error.first_line}{hint}")
            log(f"{label} FAILED: {result.error.first_line}")
    return tally


def _find_location(step_runner: StepRunner, study: Study) -> str:
    key = build_step_key(study.name, _get_last_step())
    for name, definitions in step_runner.locations.items():
        if key in definitions.resolve_asset_graph().materializable_asset_keys:
            return name
    raise MvlError(
        f"no code location of workspace.yaml has the assets of study {study.name}",
        hint="studies need the lake and training in one location: `mvl_training.pipeline_definitions`",
    )


def _get_last_step() -> StepName:
    return STEP_NAMES[-1]
