"""Rows that a filter or their licences keep out of mixtures, and how they are counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from mvl_assets.config.profile import Profile
from mvl_assets.curation.mixing import build_mixture, plan_mixtures
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CATEGORY, JUDGED, REWRITTEN
from tests.curation.mixture_profile import profile
from tests.lake.rows import category_row, judgement, put, put_samples, rewrite, sample


@pytest.fixture
def scored(lake: Lake) -> Lake:
    """Ten samples of `a` (CC-BY-4.0), six with a kept rewrite of P(yes) 0.0 to 0.5, one of these null; six of `b`."""
    samples = [sample("a", n) for n in range(10)]
    put_samples(lake, "a", samples)
    put(lake, "category/ocr", CATEGORY, [category_row(s, "ocr", license="CC-BY-4.0") for s in samples], "a")
    rewrites = [rewrite(s, "ocr") | {"model": "writer"} for s in samples[:6]]
    put(lake, "rewritten/ocr", REWRITTEN, rewrites, "a")
    verdicts = [
        judgement(r, keep=True) | {"p_yes": None if n == 3 else n / 10, "all_yes": n > 0}
        for n, r in enumerate(rewrites)
    ]
    put(lake, "judged/ocr", JUDGED, verdicts, "a")
    others = [sample("b", n) for n in range(6)]
    put_samples(lake, "b", others)
    put(lake, "category/ocr", CATEGORY, [category_row(s, "ocr", n_chars=100 * n) for n, s in enumerate(others)], "b")
    return lake


def refusing(**changed: Any) -> Profile:
    return profile(single_image=1000, shares={"ocr": 1.0, "video": 1.0}).model_copy(update=changed)


def count_taken(lake: Lake, chosen: Profile) -> Counter[tuple[str, str]]:
    build_mixture(lake, chosen, "single_image", run_id="run")
    return Counter((row["source"], row["kind"]) for row in lake.get_table("mixture/single_image").iter_rows())


def test_row_is_refused_if_a_clause_is_false_and_taken_if_it_is_unknown(scored: Lake) -> None:
    chosen = refusing(where="p_yes >= 0.2 and n_chars < 300 and all_yes")
    assert count_taken(scored, chosen) == {("a", "rewritten"): 4, ("a", "original"): 4, ("b", "original"): 3}
    (plan,) = plan_mixtures(scored, chosen, ["single_image"])
    assert [(c.clause, c.rows, c.refused, c.refused_alone, c.unknown) for c in plan.clauses] == [
        ("p_yes >= 0.2", 16, 2, 1, 11),
        ("n_chars < 300", 16, 3, 3, 0),
        ("all_yes", 16, 1, 0, 10),
    ]
    (kept,) = plan.kept_rewrites
    assert (kept.kept, kept.filtered, kept.available, kept.outdated) == (6, 2, 4, 0)


def test_who_wants_a_score_asks_for_it(scored: Lake) -> None:
    assert count_taken(scored, refusing(where="p_yes is not null")) == {("a", "rewritten"): 5}
    assert count_taken(scored, refusing(where="kind = 'original' and source <> 'b'")) == {("a", "original"): 4}


def test_without_a_filter_all_are_taken(scored: Lake) -> None:
    assert count_taken(scored, refusing()).total() == 16
    assert plan_mixtures(scored, refusing(), ["single_image"])[0].clauses == []


def test_licences_of_sources_and_rewriters_have_to_permit_the_use(scored: Lake) -> None:
    models = {name: model.model_copy(update={"name": "writer", "license": "Apache-2.0"}) for name, model in MODELS}
    chosen = refusing(licences="permissive", models=models)
    assert count_taken(scored, chosen) == {("a", "rewritten"): 6, ("a", "original"): 4}
    (plan,) = plan_mixtures(scored, chosen, ["single_image"])
    assert [(r.source, r.license, r.rewriter, r.rows) for r in plan.unlicensed] == [("b", None, None, 6)]
    terms = {row["output_license"] for row in scored.get_table("mixture/single_image").iter_rows()}
    assert terms == {"Apache-2.0", None}


def test_rewrites_of_a_model_with_unknown_terms_are_refused(scored: Lake) -> None:
    chosen = refusing(licences="research")
    assert count_taken(scored, chosen) == {("a", "original"): 4}
    (plan,) = plan_mixtures(scored, chosen, ["single_image"])
    assert {(r.source, r.rewriter): r.rows for r in plan.unlicensed} == {("a", "writer"): 6, ("b", None): 6}
    assert plan.kept_rewrites[0].unlicensed == 6


MODELS = list(profile().models.items())
