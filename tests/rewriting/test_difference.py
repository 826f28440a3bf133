"""A change costs what it changes: after each, the plan says the difference, and the server is sent exactly that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import ModelRole, Profile
from mvl_assets.config.prompts import Prompt, load_prompts
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.testing.fake_server import FakeServer
from mvl_assets.judging.judge import judge_source
from mvl_assets.lake.lake import Lake
from mvl_assets.rewriting.rewrite import rewrite_source
from tests.rewriting.small_source import MATH, plan_judges, plan_rewrite, profile, prompt_folder, put, source_of
from tests.servers import serving

ROWS = 20
CHART = source_of("chart", "chart", "charts")
SOURCES = (MATH, CHART)
CRITERIA = 3


@dataclass
class Pipeline:
    """Two sources of different families, and the prompts and profile they are made with now."""

    lake: Lake
    server: FakeServer
    endpoint: Endpoint
    profile: Profile = field(default_factory=profile)
    prompts: Mapping[str, Prompt] = field(default_factory=load_prompts)

    def make(self, limit: int | None = None) -> dict[tuple[str, str], int]:
        """Requests sent by stage and family, as the server counts them; the plan must have said so before."""
        sent = {}
        for source in SOURCES:
            for stage in ("rewritten", "judged"):
                planned = self.plan(stage, source, limit)
                before = sum(self.server.request_counts.values())
                if stage == "rewritten":
                    rewrite_source(self.lake, source, self.profile, run_id="r", limit=limit, **self.given("rewrite"))
                else:
                    judge_source(self.lake, source, self.profile, run_id="r", **self.given("judge"))
                sent[stage, source.family or ""] = sum(self.server.request_counts.values()) - before
                assert sent[stage, source.family or ""] == planned, (stage, source.family)
        assert max(self.server.request_counts.values()) == 1, "no request was sent twice"
        return {key: count for key, count in sent.items() if count}

    def plan(self, stage: str, source: SourceSpec, limit: int | None) -> int:
        options = {"prompts": self.prompts, "limit": limit}
        if stage == "rewritten":
            result = plan_rewrite(self.lake, source, self.profile, **options)
        else:
            (result,) = plan_judges(self.lake, source, self.profile, **options)
        assert result.requested == result.cache_hits + result.to_send
        return result.to_send

    def given(self, role: ModelRole) -> dict[str, object]:
        served = replace(self.endpoint, model=self.profile.get_model(role).name)
        return {"prompts": self.prompts, "endpoints": [served]}


@pytest.fixture
def pipeline(lake: Lake) -> Iterator[Pipeline]:
    """Everything was made once."""
    with serving() as (server, endpoint):
        pipeline = Pipeline(lake, server, endpoint)
        for source in SOURCES:
            put(lake, source, range(ROWS))
        everything = {("rewritten", "math"): ROWS, ("rewritten", "chart"): ROWS}
        assert pipeline.make() == everything | {
            ("judged", family): CRITERIA * n for (_, family), n in everything.items()
        }
        yield pipeline


def test_an_unchanged_source_sends_nothing(pipeline: Pipeline):
    assert pipeline.make() == {}


def test_appended_rows_send_only_their_requests(pipeline: Pipeline):
    put(pipeline.lake, MATH, range(ROWS + ROWS // 10))
    assert pipeline.make() == {("rewritten", "math"): 2, ("judged", "math"): 2 * CRITERIA}


def test_an_edited_prompt_sends_only_its_family(pipeline: Pipeline, tmp_path: Path):
    pipeline.prompts = load_prompts(prompt_folder(tmp_path, rewrite_chart=("Values are copied", "Numbers are copied")))
    # The rewrites are others now, and so is what is judged; the other family keeps its own.
    assert pipeline.make() == {("rewritten", "chart"): ROWS, ("judged", "chart"): ROWS * CRITERIA}


def test_another_temperature_sends_its_family_once(pipeline: Pipeline, tmp_path: Path):
    pipeline.prompts = load_prompts(prompt_folder(tmp_path, rewrite_math=("temperature: 0.2", "temperature: 0.3")))
    assert pipeline.make() == {("rewritten", "math"): ROWS, ("judged", "math"): ROWS * CRITERIA}
    # And back: both are stored.
    pipeline.prompts = load_prompts()
    assert pipeline.make() == {}


def test_another_retry_sampling_sends_nothing_for_usable_answers(pipeline: Pipeline, tmp_path: Path):
    pipeline.prompts = load_prompts(
        prompt_folder(tmp_path, rewrite_math=("retry_sampling: {temperature: 0.7", "retry_sampling: {temperature: 0.8"))
    )
    assert pipeline.make() == {}


def test_another_judge_is_sent_every_rewrite(pipeline: Pipeline):
    judge = pipeline.profile.models["one"].model_copy(update={"name": "other"})
    pipeline.profile = pipeline.profile.model_copy(
        update={
            "models": {**pipeline.profile.models, "two": judge},
            "roles": {**pipeline.profile.roles, "judge": "two"},
        }
    )
    assert pipeline.make() == {("judged", "math"): ROWS * CRITERIA, ("judged", "chart"): ROWS * CRITERIA}


def test_a_reworded_criterion_sends_only_that_criterion(pipeline: Pipeline, tmp_path: Path):
    pipeline.prompts = load_prompts(prompt_folder(tmp_path, judge_general=("completely", "in full")))
    assert pipeline.make() == {("judged", "math"): ROWS, ("judged", "chart"): ROWS}


def test_a_moved_threshold_sends_nothing(pipeline: Pipeline):
    pipeline.profile = profile(rule="p_yes >= 0.3")
    assert pipeline.make() == {}


def test_an_edited_note_of_a_prompt_sends_nothing(pipeline: Pipeline, tmp_path: Path):
    pipeline.prompts = load_prompts(prompt_folder(tmp_path, rewrite_math=("note: The problem", "note: A problem")))
    assert pipeline.make() == {}


def test_a_larger_limit_sends_only_what_the_smaller_did_not(lake: Lake):
    with serving() as (server, endpoint):
        pipeline = Pipeline(lake, server, endpoint)
        for source in SOURCES:
            put(lake, source, range(ROWS))
        assert pipeline.make(limit=5)["rewritten", "math"] == 5
        assert pipeline.make(limit=12)["judged", "chart"] == 7 * CRITERIA
        assert pipeline.make(limit=12) == {}
        assert pipeline.make()["rewritten", "math"] == ROWS - 12


def test_equal_requests_are_planned_and_sent_once_and_answer_all_their_rows(lake: Lake):
    turns = [{"from": "human", "value": "What is one plus one?"}, {"from": "gpt", "value": "2"}]
    with serving() as (server, endpoint):
        pipeline = Pipeline(lake, server, endpoint)
        put(lake, MATH, range(ROWS), conversations=turns, image_ids=[])
        put(lake, CHART, range(2))
        plan = plan_rewrite(lake, MATH, profile())
        assert (plan.rows, plan.requested, plan.to_send) == (ROWS, 1, 1)
        assert pipeline.make() == {
            ("rewritten", "math"): 1,
            ("judged", "math"): CRITERIA,
            ("rewritten", "chart"): 2,
            ("judged", "chart"): 2 * CRITERIA,
        }
        assert lake.get_table("rewritten/code_math").count() == lake.get_table("judged/code_math").count() == ROWS


def test_a_plan_computes_gpu_hours_and_cost_from_tokens(pipeline: Pipeline):
    put(pipeline.lake, MATH, range(ROWS + 10))
    price = {
        "prompt_tokens_per_gpu_second": 100.0,
        "tokens_per_gpu_second": 10.0,
        "gpu_hour": 2.0,
        "input_per_million": 1.0,
    }
    model = profile().models["one"].model_dump() | {"price": price}
    priced = Profile.model_validate(profile().model_dump() | {"models": {"one": model}})
    plan = plan_rewrite(pipeline.lake, MATH, priced)
    assert plan.to_send == 10
    hours = (plan.prompt_tokens / 100 + plan.completion_tokens / 10) / 3600
    assert plan.gpu_hours == pytest.approx(hours)
    assert plan.cost == pytest.approx(2.0 * hours + plan.prompt_tokens / 1e6, abs=1e-6)
    assert plan.cost_low is not None and plan.cost_high is not None and plan.cost is not None
    assert plan.cost_low < plan.cost < plan.cost_high
    free = plan_rewrite(pipeline.lake, MATH, profile())
    assert (free.prompt_tokens, free.gpu_hours, free.cost) == (plan.prompt_tokens, None, None)
