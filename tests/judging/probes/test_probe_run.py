"""Asking judges about contrast pairs: every criterion with the image, once; votes and panels as when judging."""

from __future__ import annotations

from dataclasses import replace

from mvl_assets.config.profile import JudgingConfig
from mvl_assets.config.prompts import PROMPTS_DIR, load_prompts
from mvl_assets.judging.panel import combine_verdicts
from mvl_assets.judging.probes.build import build_contrast_pairs
from mvl_assets.judging.probes.run import PANEL, run_probes
from mvl_assets.lake.lake import Lake
from tests.rewriting.small_source import profile
from tests.servers import serving

PAIRS = build_contrast_pairs()[::23]
PROMPTS = load_prompts(PROMPTS_DIR)


def test_a_judge_gets_the_criteria_of_the_family_with_image_and_reference_once(lake: Lake):
    with serving() as (server, endpoint):
        server.record_bodies = True
        asked = run_probes(lake, profile(), PAIRS, run_id="r", prompts=PROMPTS, endpoints=[[endpoint]])
        assert len(server.bodies) == len(PAIRS) * 2 * 3
        contents = [body["messages"][0]["content"] for body in server.bodies]
        assert all(content[1]["type"] == "image_url" for content in contents)
        assert all("Source's answer: " in content[2]["text"] for content in contents)
        assert len({content[0]["text"] for content in contents}) == len({pair.family for pair in PAIRS})
    # No endpoint: only an attempt to send would notice.
    assert run_probes(lake, profile(), PAIRS, run_id="r2", prompts=PROMPTS) == asked
    (results,) = asked.values()
    assert [result.pair for result in results] == PAIRS
    assert all(result.good and result.good.p_yes is not None for result in results)
    assert lake.images.table.count() == 0, "the drawn images are no part of the lake"


def test_probes_are_voted_on_where_there_are_no_log_probabilities(lake: Lake):
    with serving() as (server, endpoint):
        server.config.output_form, server.config.logprobs = "openai", "ignored"
        server.config.text_by_pattern = {r'"seed":1001': "No", "": "Yes"}
        endpoints = [[replace(endpoint, output_form="auto")]]
        (results,) = run_probes(lake, profile(), PAIRS, run_id="r", endpoints=endpoints).values()
        assert sum(server.answer_counts.values()) == len(PAIRS) * 2 * 3 * 5
    assert {half.p_yes for result in results for half in (result.good, result.bad) if half} == {0.8}
    assert list(run_probes(lake, profile(), PAIRS, run_id="r2").values()) == [results]


def test_a_panel_is_probed_judge_by_judge_and_as_a_whole(lake: Lake):
    alone = profile()
    two = alone.models["one"].model_copy(update={"name": "two"})
    panel = alone.model_copy(
        update={
            "models": {**alone.models, "two": two},
            "judging": JudgingConfig(panel=["two"], panel_rule="unanimous"),
        }
    )
    with serving() as (_, endpoint):
        endpoints = [[endpoint], [replace(endpoint, model="two")]]
        results = run_probes(lake, panel, PAIRS, run_id="r", endpoints=endpoints)
    assert list(results) == ["one", "two", PANEL]
    for first, second, both in zip(*results.values(), strict=True):
        assert first.bad and second.bad and both.bad
        assert both.bad.all_yes == (first.bad.all_yes and second.bad.all_yes)
    assert combine_verdicts([[]], "unanimous") == []
