"""Running one asset, or one partition of it, in this process: what `mvl run` and `mvl stale --launch` are made of.

A process runs one step at a time. Dagster configures Python's logging at the start of every run and redirects the
process's output during it, so two runs in threads of one process lock each other up.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import dagster as dg

from mvl_assets.orchestration.retry_tags import TAG as RETRY
from mvl_assets.runner.dagster_home import code_locations, instance, quiet_dagster
from mvl_assets.runner.orphaned_runs import tags_of_this_process
from mvl_assets.runner.user_errors import Problem, problem_of, unexpected

# The event log keeps everything; the terminal gets one line a step.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
# The numbers of a materialization that are worth a place in its line.
SHOWN = (
    "dagster/row_count",
    "dagster/partition_row_count",
    "rejected",
    "requests_sent",
    "requests_reused",
    "requests_left",
    "kept",
    "packs",
    "fill",
    "steps",
    "loss first",
    "loss last",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One run: an asset and, where it has them, one of its partitions. `retry` names the error classes of rejects that
    it asks again."""

    location: str
    key: tuple[str, ...]
    partition: str | None
    retry: str | None = None

    @property
    def stage(self) -> str:
        return self.key[0]

    @property
    def name(self) -> str:
        return "/".join(self.key) + (f"[{self.partition}]" if self.partition else "")


@dataclass(frozen=True, slots=True)
class Done:
    """How a step ended. `problem` is None when it was made."""

    step: Step
    problem: Problem | None
    facts: str
    seconds: float


class Runner:
    """Dagster's instance and the jobs of all code locations, loaded once per process."""

    def __init__(self) -> None:
        quiet_dagster()
        self.instance = instance()
        self.locations = code_locations()
        self._jobs = {n: d.resolve_implicit_global_asset_job_def() for n, d in self.locations.items()}

    def run(self, step: Step) -> Done:
        """Materialises the step as a run of its own; a failure is returned, an interrupt is raised."""
        began = time.monotonic()
        problem, facts = None, ""
        try:
            result = self._jobs[step.location].execute_in_process(
                instance=self.instance,
                asset_selection=[dg.AssetKey(step.key)],
                partition_key=step.partition,
                run_config=QUIET,
                tags=tags_of_this_process() | ({RETRY: step.retry} if step.retry else {}),
            )
            facts = _facts(result)
        except dg.DagsterExecutionInterruptedError:
            raise KeyboardInterrupt from None
        except Exception as error:
            problem = problem_of(error) or unexpected(error)
        return Done(step, problem, facts, time.monotonic() - began)


@cache
def _runner() -> Runner:
    return Runner()


def run_here(step: Step) -> Done:
    """For worker processes: the runner is made on the first step and kept."""
    return _runner().run(step)


def _facts(result: dg.ExecuteInProcessResult) -> str:
    words = []
    for event in result.get_asset_materialization_events():
        metadata = event.materialization.metadata
        for key in SHOWN:
            if key == "dagster/row_count" and "dagster/partition_row_count" in metadata:
                continue
            value = getattr(metadata.get(key), "value", None)
            if isinstance(value, int | float):
                words.append(f"{key.split('/')[-1].removeprefix('partition_')} {value:g}")
    return ", ".join(words)
