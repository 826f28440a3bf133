"""Rewriting and judging beside each other: a partition is judged as soon as it is rewritten, while others still are.

As a rule each of the two stages has a model of its own. A partition starts when those of its stage that run no longer
fill their model's endpoints: one after another, so that the judge gets its first one early, and several at a time where
they are small. Belongs here: which step starts when. How a process is started and stopped is `worker_pool.py`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait

from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.profile import ModelProfile
from mvl_assets.config.prompts import get_judge_prompts, get_rewrite_prompt, load_prompts
from mvl_assets.inference.progress import Progress
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.orchestration import asset_keys
from mvl_assets.rewriting.requests import estimate_request_count, resolve_prompt_family
from mvl_assets.runner.asset_steps import AssetStep, StepResult
from mvl_assets.runner.worker_pool import ReportQueue, WorkerPool, drain_reports, make_report_queue

# Partitions of each stage at a time, each in a process with definitions of its own in memory.
MAX_CONCURRENT = {"rewritten": 3, "judged": 2}
# An endpoint is full while so many times its concurrency is still to be asked. More than once, because the next
# partition takes a while to come.
SATURATION_FACTOR = 2
POLL_INTERVAL_S = 0.5
PROGRESS_INTERVAL_S = 10.0

LogFn = Callable[[str], None]


class StepLoad:
    """How much of a step is still to be asked, and how much fills its model."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._prompts = load_prompts()
        self._estimated_totals: dict[str, int] = {}
        self.latest_progress: dict[str, Progress] = {}

    def estimate_remaining_requests(self, step: AssetStep) -> int:
        """Requests, by the step's last report, or about as many as it has in all."""
        if (progress := self.latest_progress.get(step.name)) is not None and progress.total is not None:
            return progress.total - progress.n_finished
        if step.name not in self._estimated_totals:
            self._estimated_totals[step.name] = self._estimate_total_requests(step)
        return self._estimated_totals[step.name]

    def _estimate_total_requests(self, step: AssetStep) -> int:
        source = load_catalog()[step.partition_key or ""]
        if step.stage == "rewritten":
            prompt = get_rewrite_prompt(self._prompts, resolve_prompt_family(source))
            return estimate_request_count(self._lake, source, prompt, asset_keys.load_active_profile().rewrite_limit)
        criteria = get_judge_prompts(self._prompts, resolve_prompt_family(source))
        return len(criteria) * self._lake.get_table("/".join(("rewritten", *step.key[1:]))).count(
            sql.equals("source", source.slug)
        )

    def compute_saturation(self, step: AssetStep) -> int:
        """Requests that are enough to fill the model's endpoints."""
        model = _resolve_model(step)
        return SATURATION_FACTOR * model.concurrency * max(1, len(model.base_urls))


def _resolve_model(step: AssetStep) -> ModelProfile:
    if step.stage == "judged":
        return asset_keys.load_active_profile().get_model("judge")
    return asset_keys.load_active_profile().get_rewriter(load_catalog()[step.partition_key or ""].family)


def run_pipelined(
    steps: Iterable[AssetStep], list_next_steps: Callable[[StepResult], Iterable[AssetStep]], lake: Lake, log: LogFn
) -> Generator[StepResult, None, None]:
    """Runs steps of both stages and whatever `list_next_steps` names after each, and yields each as it ends. `log` gets a line of
    progress per running step every `PROGRESS_INTERVAL_S`. When the caller stops, or is interrupted, the steps under way are
    interrupted and waited for."""
    report_queue = make_report_queue()
    workers = WorkerPool(sum(MAX_CONCURRENT.values()), report_queue)
    try:
        yield from _schedule_steps(workers, steps, list_next_steps, StepLoad(lake), report_queue, log)
    except BaseException:
        workers.interrupt()
        raise
    workers.shutdown()


def _schedule_steps(
    workers: WorkerPool,
    steps: Iterable[AssetStep],
    list_next_steps: Callable[[StepResult], Iterable[AssetStep]],
    step_load: StepLoad,
    report_queue: ReportQueue,
    log: LogFn,
) -> Generator[StepResult, None, None]:
    pending: dict[str, deque[AssetStep]] = {stage: deque() for stage in MAX_CONCURRENT}
    for step in steps:
        pending[step.stage].append(step)
    last_logged_at = time.monotonic()
    while True:
        for stage, queue in pending.items():
            while queue and _has_capacity(
                queue[0], [s for s in workers.running.values() if s.stage == stage], step_load
            ):
                workers.start(queue.popleft())
        if not workers.running:
            return
        completed, _ = wait(workers.running, timeout=POLL_INTERVAL_S, return_when=FIRST_COMPLETED)
        step_load.latest_progress.update(drain_reports(report_queue))
        if time.monotonic() - last_logged_at >= PROGRESS_INTERVAL_S:
            last_logged_at = time.monotonic()
            for step in workers.running.values():
                if step.name in step_load.latest_progress:
                    log(step_load.latest_progress[step.name].format_line())
        for future in completed:
            result = workers.collect_result(future)
            yield result
            for step in list_next_steps(result):
                pending[step.stage].append(step)


def _has_capacity(step: AssetStep, running: Sequence[AssetStep], step_load: StepLoad) -> bool:
    """Whether a step of a stage may start beside those of it that run."""
    if len(running) >= MAX_CONCURRENT[step.stage]:
        return False
    return not running or sum(map(step_load.estimate_remaining_requests, running)) < step_load.compute_saturation(step)
