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
from mvl_assets.runner.asset_steps import Done, Step
from mvl_assets.runner.pipelining import AT_ONCE, Load

SLUGS = [slug for slug, spec in load_catalog().items() if spec.group == "B"][:5]


def rewriting(slug: str) -> Step:
    return Step("mvl_assets", ("rewritten", load_catalog()[slug].category), slug)


def judging(step: Step) -> Step:
    return Step(step.location, ("judged", step.key[1]), step.partition)


def progress(rows: int, total: int) -> Progress:
    return Progress(
        name="rewrite somewhere",
        rows=rows,
        total=total,
        rows_per_s=1.0,
        prompt_tokens=0,
        completion_tokens=0,
        tokens_per_s=1.0,
        in_flight=1,
        limit=1,
        endpoints_up=1,
        endpoints=1,
        errors={},
        failed=0,
        seconds=1.0,
        eta_s=None,
        cost=None,
        currency="",
    )


class AtOnce:
    """Workers whose steps end as soon as they have begun."""

    def __init__(self) -> None:
        self.running: dict[Future[Done], Step] = {}
        self.started: list[Step] = []

    def start(self, step: Step) -> None:
        future: Future[Done] = Future()
        future.set_result(Done(step, None, "", 0.0))
        self.running[future] = step
        self.started.append(step)

    def ended(self, future: Future[Done]) -> Done:
        del self.running[future]
        return future.result()


class Silent:
    def get_nowait(self) -> None:
        raise queue.Empty


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return Load(Lake(str(tmp_path / "lake")))


def drive(load: Load, steps: list[Step]) -> list[Step]:
    workers = AtOnce()

    def then(done: Done) -> list[Step]:
        return [judging(done.step)] if done.step.stage == "rewritten" else []

    ended: Iterator[Done] = pipelining._run(workers, steps, then, load, Silent(), print)  # type: ignore[arg-type]
    assert {done.step for done in ended} == set(steps) | {judging(step) for step in steps}
    return workers.started


def test_large_partitions_go_one_after_another_and_each_is_judged_while_the_next_is_rewritten(load: Load) -> None:
    steps = [rewriting(slug) for slug in SLUGS]
    for step in steps:
        load.latest[step.name] = progress(0, 1_000_000)
    started = drive(load, steps)
    for place in range(len(SLUGS) - 2):
        assert started.index(judging(steps[place])) < started.index(steps[place + 2])


def test_small_partitions_share_their_model(load: Load) -> None:
    steps = [rewriting(slug) for slug in SLUGS]
    for step in steps:
        load.latest[step.name] = progress(3, 4)
    assert drive(load, steps)[: AT_ONCE["rewritten"]] == steps[: AT_ONCE["rewritten"]]


def test_the_next_partition_comes_when_the_last_one_no_longer_fills_the_endpoint(load: Load) -> None:
    one, other = (rewriting(slug) for slug in SLUGS[:2])
    full = load.full(other)
    assert full > 1
    load.latest[one.name] = progress(1000, 1000 + full)
    assert not pipelining._has_room(other, [one], load)
    load.latest[one.name] = progress(1001, 1000 + full)
    assert pipelining._has_room(other, [one], load)
    assert pipelining._has_room(judging(other), [], load)


def test_before_its_first_report_a_partition_counts_as_large_as_its_rows(load: Load) -> None:
    assert load.left(rewriting(SLUGS[0])) == load.left(judging(rewriting(SLUGS[0]))) == 0
