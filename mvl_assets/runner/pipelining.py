"""Rewriting and judging beside each other: a partition is judged as soon as it is rewritten, while others still are.

As a rule each of the two stages has a model of its own. A partition starts when those of its stage that run no longer
fill their model's endpoints: one after another, so that the judge gets its first one early, and several at a time where
they are small. Belongs here: which step starts when. How a process is started and stopped is `pool.py`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait

from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.profile import ModelProfile
from mvl_assets.config.prompts import judge_prompts, load_prompts, rewrite_prompt
from mvl_assets.inference.progress import Progress
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.orchestration import asset_keys
from mvl_assets.rewriting.requests import about_requests, family_of
from mvl_assets.runner.asset_steps import Done, Step
from mvl_assets.runner.worker_pool import Reports, Workers, heard, reports

# Partitions of each stage at a time, each in a process with definitions of its own in memory.
AT_ONCE = {"rewritten": 3, "judged": 2}
# An endpoint is full while so many times its concurrency is still to be asked. More than once, because the next
# partition takes a while to come.
FULL = 2
TICK_S = 0.5
SAY_EVERY_S = 10.0

Say = Callable[[str], None]


class Load:
    """How much of a step is still to be asked, and how much fills its model."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._prompts = load_prompts()
        self._about: dict[str, int] = {}
        self.latest: dict[str, Progress] = {}

    def left(self, step: Step) -> int:
        """Requests, by the step's last report, or about as many as it has in all."""
        if (told := self.latest.get(step.name)) is not None and told.total is not None:
            return told.total - told.rows
        if step.name not in self._about:
            self._about[step.name] = self._all(step)
        return self._about[step.name]

    def _all(self, step: Step) -> int:
        source = load_catalog()[step.partition or ""]
        if step.stage == "rewritten":
            prompt = rewrite_prompt(self._prompts, family_of(source))
            return about_requests(self._lake, source, prompt, asset_keys.profile().rewrite_limit)
        criteria = judge_prompts(self._prompts, family_of(source))
        return len(criteria) * self._lake.table("/".join(("rewritten", *step.key[1:]))).count(
            sql.equals("source", source.slug)
        )

    def full(self, step: Step) -> int:
        """Requests that are enough to fill the model's endpoints."""
        model = _model(step)
        return FULL * model.concurrency * max(1, len(model.base_urls))


def _model(step: Step) -> ModelProfile:
    if step.stage == "judged":
        return asset_keys.profile().model_for("judge")
    return asset_keys.profile().model_for(
        "caption" if load_catalog()[step.partition or ""].family == "caption" else "rewrite"
    )


def run_beside(
    steps: Iterable[Step], then: Callable[[Done], Iterable[Step]], lake: Lake, say: Say
) -> Generator[Done, None, None]:
    """Runs steps of both stages and whatever `then` names after each, and yields each as it ends. `say` gets a line of
    progress per running step every `SAY_EVERY_S`. When the caller stops, or is interrupted, the steps under way are
    interrupted and waited for."""
    told = reports()
    workers = Workers(sum(AT_ONCE.values()), told)
    try:
        yield from _run(workers, steps, then, Load(lake), told, say)
    except BaseException:
        workers.interrupt()
        raise
    workers.let_go()


def _run(
    workers: Workers,
    steps: Iterable[Step],
    then: Callable[[Done], Iterable[Step]],
    load: Load,
    told: Reports,
    say: Say,
) -> Generator[Done, None, None]:
    waiting: dict[str, deque[Step]] = {stage: deque() for stage in AT_ONCE}
    for step in steps:
        waiting[step.stage].append(step)
    said = time.monotonic()
    while True:
        for stage, queue in waiting.items():
            while queue and _has_room(queue[0], [s for s in workers.running.values() if s.stage == stage], load):
                workers.start(queue.popleft())
        if not workers.running:
            return
        ended, _ = wait(workers.running, timeout=TICK_S, return_when=FIRST_COMPLETED)
        load.latest.update(heard(told))
        if time.monotonic() - said >= SAY_EVERY_S:
            said = time.monotonic()
            for step in workers.running.values():
                if step.name in load.latest:
                    say(load.latest[step.name].line())
        for future in ended:
            done = workers.ended(future)
            yield done
            for step in then(done):
                waiting[step.stage].append(step)


def _has_room(step: Step, running: Sequence[Step], load: Load) -> bool:
    """Whether a step of a stage may start beside those of it that run."""
    if len(running) >= AT_ONCE[step.stage]:
        return False
    return not running or sum(map(load.left, running)) < load.full(step)
