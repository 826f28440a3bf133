"""Which partition is rewritten and judged when. No process is started here; `test_run` does that."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import Future

import pyarrow as pa
import pytest

from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.prompts import get_judge_prompts, load_prompts
from mvl_assets.inference.progress import Progress
from mvl_assets.lake.lake import Lake
from mvl_assets.orchestration import asset_keys
from mvl_assets.runner.asset_steps import AssetStep, StepResult
from mvl_assets.runner.pipelining import MAX_CONCURRENT, StepLoad, has_capacity, schedule_steps
from mvl_assets.stages import CATEGORY, REWRITTEN

SLUGS = [slug for slug, spec in load_catalog().items() if spec.group == "B"][:5]


def rewriting(slug: str) -> AssetStep:
    return AssetStep("mvl_assets", ("rewritten", load_catalog()[slug].category), slug)


def judging(step: AssetStep) -> AssetStep:
    return AssetStep(step.location, ("judged", step.key[1]), step.partition_key)


def progress(rows: int, total: int) -> Progress:
    return Progress(
        name="rewritten somewhere",
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


class InstantWorkers:
    """Workers whose steps end as soon as they start."""

    def __init__(self) -> None:
        self.running: dict[Future[StepResult], AssetStep] = {}
        self.started: list[AssetStep] = []

    def start(self, step: AssetStep) -> None:
        future: Future[StepResult] = Future()
        future.set_result(StepResult(step, None, {}, 0.0))
        self.running[future] = step
        self.started.append(step)

    def collect_result(self, future: Future[StepResult]) -> StepResult:
        del self.running[future]
        return future.result()


class EmptyQueue:
    def get_nowait(self) -> None:
        raise queue.Empty


@pytest.fixture
def load(lake: Lake) -> StepLoad:
    return StepLoad(lake)


def drive(load: StepLoad, steps: list[AssetStep]) -> list[AssetStep]:
    workers = InstantWorkers()

    def list_next_steps(result: StepResult) -> list[AssetStep]:
        return [judging(result.step)] if result.step.stage == REWRITTEN.name else []

    results: Iterator[StepResult] = schedule_steps(workers, steps, list_next_steps, load, EmptyQueue(), print)  # type: ignore[arg-type]
    assert {result.step for result in results} == set(steps) | {judging(step) for step in steps}
    return workers.started


def test_large_partitions_run_one_after_another_and_are_judged_while_the_next_is_rewritten(load: StepLoad) -> None:
    steps = [rewriting(slug) for slug in SLUGS]
    for step in steps:
        load.latest_progress[step.name] = progress(0, 1_000_000)
    started = drive(load, steps)
    for index in range(len(SLUGS) - 2):
        assert started.index(judging(steps[index])) < started.index(steps[index + 2])


def test_small_partitions_share_their_model(load: StepLoad) -> None:
    steps = [rewriting(slug) for slug in SLUGS]
    for step in steps:
        load.latest_progress[step.name] = progress(3, 4)
    assert drive(load, steps)[: MAX_CONCURRENT["rewritten"]] == steps[: MAX_CONCURRENT["rewritten"]]


def test_the_next_partition_starts_when_the_running_one_no_longer_fills_the_endpoint(load: StepLoad) -> None:
    one, other = (rewriting(slug) for slug in SLUGS[:2])
    full = load.compute_saturation(other)
    assert full > 1
    load.latest_progress[one.name] = progress(1000, 1000 + full)
    assert not has_capacity(other, [one], load)
    load.latest_progress[one.name] = progress(1001, 1000 + full)
    assert has_capacity(other, [one], load)
    assert has_capacity(judging(other), [], load)


def test_before_its_first_report_a_partition_counts_by_its_rows(
    load: StepLoad, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = asset_keys.load_active_profile().model_copy(update={"rewrite_limit": None})
    monkeypatch.setattr(asset_keys, "load_active_profile", lambda: profile)
    source = next(spec for spec in load_catalog().values() if spec.group == "B" and spec.family == "math")
    rows = [
        {"sample_id": f"{n:032x}", "version_id": f"{n:032x}", "source": source.slug, "n_turns": 2 * n} for n in range(4)
    ]
    category = lake.get_table(CATEGORY.get_table_name(source.category))
    category.publish([pa.Table.from_pylist(rows, schema=category.spec.columns)], source.slug)
    rewrites = [{"rewrite_id": f"{n:032x}", "sample_id": f"{n:032x}", "source": source.slug} for n in range(5)]
    rewritten = lake.get_table(REWRITTEN.get_table_name(source.category))
    rewritten.publish([pa.Table.from_pylist(rewrites, schema=rewritten.spec.columns)], source.slug)
    prompts = load_prompts()
    # Its prompt asks about each pair, and about a sample without turns once.
    assert prompts["rewrite_math"].unit == "pair"
    assert load.estimate_remaining_requests(rewriting(source.slug)) == 1 + 1 + 2 + 3
    n_criteria = len(get_judge_prompts(prompts, "math"))
    assert load.estimate_remaining_requests(judging(rewriting(source.slug))) == 5 * n_criteria > 0
