"""Which partition is rewritten and judged when. Processes are not started here; what they do is in `test_run`."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from mvl_assets.config.catalog import load_catalog
from mvl_assets.inference.progress import Progress
from mvl_assets.lake.lake import Lake
from mvl_assets.runner import pipelining
from mvl_assets.runner.asset_steps import AssetStep, StepResult
from mvl_assets.runner.pipelining import MAX_CONCURRENT, StepLoad

SLUGS = [slug for slug, spec in load_catalog().items() if spec.group == "B"][:5]


def rewriting(slug: str) -> AssetStep:
    return AssetStep("mvl_assets", ("rewritten", load_catalog()[slug].category), slug)


def judging(step: AssetStep) -> AssetStep:
    return AssetStep(step.location, ("judged", step.key[1]), step.partition_key)


def progress(rows: int, total: int) -> Progress:
    return Progress(
        name="rewrite somewhere",
        n_finished=rows,
        total=total,
        requests_per_s=1.0,
        prompt_tokens=0,
        completion_tokens=0,
        tokens_per_s=1.0,
        in_flight=1,
        concurrency_limit=1,
        n_endpoints_up=1,
        n_endpoints=1,
        error_counts={},
        n_failed=0,
        elapsed_s=1.0,
        eta_s=None,
        cost=None,
        currency="",
    )


class AtOnce:
    """Workers whose steps end as soon as they have begun."""

    def __init__(self) -> None:
        self.running: dict[Future[StepResult], AssetStep] = {}
        self.started: list[AssetStep] = []

    def start(self, step: AssetStep) -> None:
        future: Future[StepResult] = Future()
        future.set_result(StepResult(step, None, "", 0.0))
        self.running[future] = step
        self.started.append(step)

    def collect_result(self, future: Future[StepResult]) -> StepResult:
        del self.running[future]
        return future.result()


class Silent:
    def get_nowait(self) -> None:
        raise queue.Empty


@pytest.fixture
def load(tmp_path: Path) -> StepLoad:
    return StepLoad(Lake(str(tmp_path / "lake")))


def drive(load: StepLoad, steps: list[AssetStep]) -> list[AssetStep]:
    workers = AtOnce()

    def then(done: StepResult) -> list[AssetStep]:
        return [judging(done.step)] if done.step.stage == "rewritten" else []

    ended: Iterator[StepResult] = pipelining._schedule_steps(workers, steps, then, load, Silent(), print)  # type: ignore[arg-type]
    assert {done.step for done in ended} == set(steps) | {judging(step) for step in steps}
    return workers.started


def test_large_partitions_go_one_after_another_and_each_is_judged_while_the_next_is_rewritten(load: StepLoad) -> None:
    steps = [rewriting(slug) for slug in SLUGS]
    for step in steps:
        load.latest_progress[step.name] = progress(0, 1_000_000)
    started = drive(load, steps)
    for place in range(len(SLUGS) - 2):
        assert started.index(judging(steps[place])) < started.index(steps[place + 2])


def test_small_partitions_share_their_model(load: StepLoad) -> None:
    steps = [rewriting(slug) for slug in SLUGS]
    for step in steps:
        load.latest_progress[step.name] = progress(3, 4)
    assert drive(load, steps)[: MAX_CONCURRENT["rewritten"]] == steps[: MAX_CONCURRENT["rewritten"]]


def test_the_next_partition_comes_when_the_last_one_no_longer_fills_the_endpoint(load: StepLoad) -> None:
    one, other = (rewriting(slug) for slug in SLUGS[:2])
    full = load.compute_saturation(other)
    assert full > 1
    load.latest_progress[one.name] = progress(1000, 1000 + full)
    assert not pipelining._has_capacity(other, [one], load)
    load.latest_progress[one.name] = progress(1001, 1000 + full)
    assert pipelining._has_capacity(other, [one], load)
    assert pipelining._has_capacity(judging(other), [], load)


def test_before_its_first_report_a_partition_counts_as_large_as_its_rows(load: StepLoad) -> None:
    assert (
        load.estimate_remaining_requests(rewriting(SLUGS[0]))
        == load.estimate_remaining_requests(judging(rewriting(SLUGS[0])))
        == 0
    )
