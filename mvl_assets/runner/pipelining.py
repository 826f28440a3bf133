"""Pipelined rewriting and judging: a partition is judged as soon as it is rewritten, while others are being rewritten.

Usually each of the two stages has its own model. A partition starts when the running partitions of its stage no longer
saturate their model's endpoints. So large partitions run one after another, which gives the judge its first one early,
and small ones run several at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait

from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.profile import ModelProfile
from mvl_assets.inference.endpoints import estimate_endpoint_count
from mvl_assets.inference.progress import Progress
from mvl_assets.lake.lake import Lake
from mvl_assets.orchestration import asset_keys
from mvl_assets.runner.asset_steps import AssetStep, StepResult
from mvl_assets.runner.model_stages import build_model_stage
from mvl_assets.runner.worker_pool import ReportQueue, WorkerPool, drain_reports, make_report_queue
from mvl_assets.stages import JUDGED, REWRITTEN

# Partitions of each stage at a time, each in a process with definitions of its own in memory.
MAX_CONCURRENT = {REWRITTEN.name: 3, JUDGED.name: 2}
# An endpoint is saturated while this many times its concurrency is still to be sent. More than once, because the next
# partition takes a while to start.
SATURATION_FACTOR = 2
POLL_INTERVAL_S = 0.5

ReportFn = Callable[[str, Progress], object]
"""Takes the name of a step and its progress."""


class StepLoad:
    """Estimates of the requests that a step still has to send, and of how many saturate its model."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._estimated_totals: dict[str, int] = {}
        self.latest_progress: dict[str, Progress] = {}

    def estimate_remaining_requests(self, step: AssetStep) -> int:
        """Return the requests left by the step's last report, or about how many it has in all."""
        if (progress := self.latest_progress.get(step.name)) is not None and progress.total is not None:
            return progress.total - progress.n_finished
        if step.name not in self._estimated_totals:
            self._estimated_totals[step.name] = self._estimate_total_requests(step)
        return self._estimated_totals[step.name]

    def _estimate_total_requests(self, step: AssetStep) -> int:
        source = load_catalog()[step.partition_key or ""]
        stage = build_model_stage(step.stage, self._lake, source, asset_keys.load_active_profile())
        return stage.estimate_request_count() or 0

    def compute_saturation(self, step: AssetStep) -> int:
        """Return how many requests keep the model's endpoints full."""
        model = _resolve_model(step)
        return SATURATION_FACTOR * model.concurrency * estimate_endpoint_count(model)


def _resolve_model(step: AssetStep) -> ModelProfile:
    profile = asset_keys.load_active_profile()
    if step.stage == JUDGED.name:
        return profile.get_model("judge")
    return profile.get_rewriter(load_catalog()[step.partition_key or ""].family)


def run_pipelined(
    steps: Iterable[AssetStep],
    list_next_steps: Callable[[StepResult], Iterable[AssetStep]],
    lake: Lake,
    report_progress: ReportFn,
) -> Generator[StepResult, None, None]:
    """Run steps of both stages in worker processes, and yield each result as the step ends.

    When the caller stops, or is interrupted, the running steps are interrupted and waited for.

    Args:
        steps: The steps to begin with.
        list_next_steps: Returns the steps that follow a result.
        lake: The lake.
        report_progress: Called for every running step at every poll.
    """
    report_queue = make_report_queue()
    workers = WorkerPool(sum(MAX_CONCURRENT.values()), report_queue)
    try:
        yield from schedule_steps(workers, steps, list_next_steps, StepLoad(lake), report_queue, report_progress)
    except BaseException:
        workers.interrupt()
        raise
    workers.shutdown()


def schedule_steps(
    workers: WorkerPool,
    steps: Iterable[AssetStep],
    list_next_steps: Callable[[StepResult], Iterable[AssetStep]],
    step_load: StepLoad,
    report_queue: ReportQueue,
    report_progress: ReportFn,
) -> Generator[StepResult, None, None]:
    """Start steps while their stage has capacity, and yield each result as the step ends.

    Args:
        workers: Runs the steps.
        steps: The steps to begin with.
        list_next_steps: Returns the steps that follow a result.
        step_load: Estimates how many requests are left.
        report_queue: Receives the progress of the workers.
        report_progress: Called for every running step at every poll.
    """
    pending: dict[str, deque[AssetStep]] = {stage: deque() for stage in MAX_CONCURRENT}
    for step in steps:
        pending[step.stage].append(step)
    while True:
        for stage, queue in pending.items():
            while queue and has_capacity(
                queue[0], [s for s in workers.running.values() if s.stage == stage], step_load
            ):
                workers.start(queue.popleft())
        if not workers.running:
            return
        completed, _ = wait(workers.running, timeout=POLL_INTERVAL_S, return_when=FIRST_COMPLETED)
        step_load.latest_progress.update(drain_reports(report_queue))
        for step in workers.running.values():
            if step.name in step_load.latest_progress:
                report_progress(step.name, step_load.latest_progress[step.name])
        for future in completed:
            result = workers.collect_result(future)
            yield result
            for step in list_next_steps(result):
                pending[step.stage].append(step)


def has_capacity(step: AssetStep, running: Sequence[AssetStep], step_load: StepLoad) -> bool:
    """Return whether a step may start while others of its stage run."""
    if len(running) >= MAX_CONCURRENT[step.stage]:
        return False
    return not running or sum(map(step_load.estimate_remaining_requests, running)) < step_load.compute_saturation(step)
