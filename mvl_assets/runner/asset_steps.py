"""Running one asset, or one partition of it, in this process, as `mvl run` and `mvl stale --launch` do.

A process runs one step at a time. Dagster configures Python's logging at the start of every run and redirects the
process's output during it, so two runs in threads of one process deadlock.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.orchestration.retry_tags import RETRY_TAG
from mvl_assets.runner.dagster_home import get_instance, load_code_locations, suppress_dagster_warnings
from mvl_assets.runner.orphaned_runs import build_process_tags
from mvl_assets.runner.user_errors import ErrorReport, build_unexpected_error, to_user_facing_error

# The event log keeps everything; the terminal gets one line per step.
QUIET_RUN_CONFIG = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
# The numbers of a materialization that its line shows.
SUMMARY_METADATA_KEYS = (
    metadata_keys.ROW_COUNT,
    metadata_keys.PARTITION_ROW_COUNT,
    metadata_keys.REJECTED,
    metadata_keys.REQUESTS_SENT,
    metadata_keys.REQUESTS_REUSED,
    metadata_keys.REQUESTS_LEFT,
    metadata_keys.KEPT,
    metadata_keys.REWRITES_TAKEN,
    metadata_keys.LOCKSTEP_EFFICIENCY,
    metadata_keys.STEPS,
    metadata_keys.LOSS_FIRST,
    metadata_keys.LOSS_LAST,
)


CHECK_HINT = "`mvl ui` shows the check on the page of the asset; what needs the asset is not made until it passes"


@dataclass(frozen=True, slots=True)
class AssetStep:
    """One run: an asset and, where it is partitioned, one of its partitions.

    `retry_errors` names the error classes of rejects that it asks again, separated by commas.
    """

    location: str
    key: tuple[str, ...]
    partition_key: str | None
    retry_errors: str | None = None

    @property
    def stage(self) -> str:
        """The name of the stage."""
        return self.key[0]

    @property
    def name(self) -> str:
        """The asset and its partition, such as `judged/ocr[a]`."""
        return "/".join(self.key) + (f"[{self.partition_key}]" if self.partition_key else "")


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of a step. `error` is None if it succeeded; `figures` are the numbers of what it made."""

    step: AssetStep
    error: ErrorReport | None
    figures: Mapping[str, float]
    seconds: float

    @property
    def summary(self) -> str:
        """The numbers that the step's line shows."""
        return ", ".join(
            f"{key.split('/')[-1].removeprefix('partition_')} {self.figures[key]:g}"
            for key in SUMMARY_METADATA_KEYS
            if key in self.figures
            and not (key == metadata_keys.ROW_COUNT and metadata_keys.PARTITION_ROW_COUNT in self.figures)
        )


class StepRunner:
    """Dagster's instance and the jobs of all code locations, loaded once per process."""

    def __init__(self) -> None:
        suppress_dagster_warnings()
        self.instance = get_instance()
        self.locations = load_code_locations()
        self._jobs = {n: d.resolve_implicit_global_asset_job_def() for n, d in self.locations.items()}

    def run(self, step: AssetStep) -> StepResult:
        """Materialise the step as a run of its own; a failure is returned, an interrupt is raised."""
        started_at = time.monotonic()
        user_error, figures = None, {}
        run_id = str(uuid.uuid4())
        try:
            result = self._jobs[step.location].execute_in_process(
                instance=self.instance,
                asset_selection=[dg.AssetKey(step.key)],
                partition_key=step.partition_key,
                run_config=QUIET_RUN_CONFIG,
                tags=build_process_tags() | ({RETRY_TAG: step.retry_errors} if step.retry_errors else {}),
                run_id=run_id,
            )
            figures = _collect_figures(result)
        except dg.DagsterExecutionInterruptedError:
            raise KeyboardInterrupt from None
        except Exception as error:
            user_error = (
                to_user_facing_error(error)
                or _build_check_report(self.instance, run_id)
                or build_unexpected_error(error)
            )
        return StepResult(step, user_error, figures, time.monotonic() - started_at)


def _build_check_report(instance: dg.DagsterInstance, run_id: str) -> ErrorReport | None:
    """Return what the blocking check that failed in a run says; None if it says nothing."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    for record in records:
        event = record.event_log_entry.dagster_event
        evaluation = event.asset_check_evaluation_data if event is not None else None
        if evaluation is not None and evaluation.blocking and not evaluation.passed and evaluation.description:
            return ErrorReport(f"check {evaluation.check_name}: {evaluation.description}", CHECK_HINT, is_fatal=False)
    return None


@cache
def _get_step_runner() -> StepRunner:
    return StepRunner()


def run_step_in_worker(step: AssetStep) -> StepResult:
    """Run a step in a worker process, which makes its `StepRunner` on the first step and keeps it."""
    return _get_step_runner().run(step)


def _collect_figures(result: dg.ExecuteInProcessResult) -> dict[str, float]:
    figures: dict[str, float] = {}
    for event in result.get_asset_materialization_events():
        values = {key: getattr(entry, "value", None) for key, entry in event.materialization.metadata.items()}
        figures |= {key: value for key, value in values.items() if isinstance(value, int | float)}
    return figures
