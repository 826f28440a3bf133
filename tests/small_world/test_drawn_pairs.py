"""Planted pairs: the good half is true of the drawing, the bad one is not, and the image is always the same."""

from mvl_assets.config.prompts import load_prompts
from mvl_assets.judging.probes.run import run_probes
from mvl_assets.lake.lake import Lake
from mvl_assets.small_world.drawn_faults import FAULTS
from mvl_assets.small_world.drawn_pairs import build_drawn_pairs
from mvl_assets.small_world.lessons import SUBJECTS
from mvl_assets.small_world.summary import FILTERS, count_faults, select_decision, summarize_rewrites
from mvl_assets.small_world.truth import CheckedRewrite
from tests.rewriting.small_source import profile
from tests.servers import serving

PAIRS = build_drawn_pairs(4)


def test_pairs_are_the_same_each_time_and_of_all_subjects():
    again = build_drawn_pairs(4)
    assert again == PAIRS and [pair.render_png() for pair in again[:3]] == [pair.render_png() for pair in PAIRS[:3]]
    assert {pair.image["subject"] for pair in PAIRS} == set(SUBJECTS)
    assert {pair.fault for pair in PAIRS} <= set(FAULTS)
    assert all(pair.good.question == pair.bad.question and pair.good.answer != pair.bad.answer for pair in PAIRS)


def test_a_judge_that_always_says_yes_catches_nothing_and_one_that_says_no_loses_everything(tmp_path):
    prompts = load_prompts(profile=profile())
    counts = {}
    for word in ("Yes", "No"):
        with serving() as (server, endpoint):
            server.config.text_by_pattern = {"": word}
            lake = Lake(str(tmp_path / word))
            results = run_probes(lake, profile(), PAIRS, run_id="r", prompts=prompts, endpoints=[[endpoint]])
        counts[word] = count_faults(select_decision(results))
    n = len(PAIRS)
    assert counts == {
        "Yes": {"planted": n, "caught": 0, "lost": 0},
        "No": {"planted": n, "caught": n, "lost": n},
    }


def test_rewrites_are_counted_by_source_and_by_what_lets_them_through():
    rewrites = [
        CheckedRewrite("a", "charts", is_true=True, keep=True, matches_reference=True, all_yes=True),
        CheckedRewrite("b", "charts", is_true=False, keep=False, matches_reference=True, all_yes=False),
        CheckedRewrite("c", "signs", is_true=False, keep=True, matches_reference=None, all_yes=True),
    ]
    counts = summarize_rewrites(rewrites)
    assert counts["charts"]["all rewrites"] == (2, 1) and counts["signs"]["kept"] == (1, 0)
    assert counts["all"] == dict(zip(FILTERS, [(3, 1), (2, 1), (2, 1), (1, 1), (2, 1)], strict=True))
