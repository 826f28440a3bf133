"""Mixtures: categories, sources, 70/30; never a held-out row, never a row in two stages, the same one every time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.mixture_config import MixtureConfig, apportion
from mvl_assets.curation.mixing import build_mixture, plan_mixtures
from mvl_assets.curation.quotas import fill_stage, split_by_kind
from mvl_assets.errors import MvlError
from mvl_assets.judging.keep import format_keep_condition
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CATEGORY, CONTAMINATION, DUPLICATES, JUDGED, REWRITTEN
from mvl_assets.lake_queries.holdout import is_held_out
from mvl_assets.lake_queries.mixtures.candidates import Cell, Quota
from mvl_assets.lake_queries.views import iter_mixture_rows
from tests.curation.mixture_profile import profile
from tests.lake.rows import category_row, judgement, put, put_category, put_samples, rewrite, sample

CATEGORIES = ("ocr", "chart", "video")


def manifest(lake: Lake, stage: str) -> list[dict[str, Any]]:
    return list(lake.get_table(f"mixture/{stage}").iter_rows())


def who(rows: list[dict[str, Any]]) -> list[str]:
    return [r["row_id"] for r in rows]


# -- counting -------------------------------------------------------------------------------------------------------

SHARES = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.001, 1), min_size=1)


@settings(derandomize=True, database=None, deadline=None)
@given(st.integers(0, 10_000_000), SHARES)
def test_apportioned_rows_add_up_and_are_within_one_row_of_their_share(total: int, shares: dict[str, float]) -> None:
    parts = apportion(total, shares)
    whole = sum(shares.values())
    assert sum(parts.values()) == total
    assert all(abs(parts[c] - total * s / whole) < 1 for c, s in shares.items())


@pytest.mark.parametrize(
    ("target", "rewritten", "original", "expected"),
    [
        (100, 1000, 1000, (70, 30)),
        (100, 0, 1000, (0, 100)),
        (100, 1000, 0, (100, 0)),
        (100, 50, 1000, (50, 50)),
        (100, 1000, 10, (90, 10)),
        (100, 20, 10, (20, 10)),
        (100, 0, 0, (0, 0)),
        (0, 10, 10, (0, 0)),
        (1, 10, 10, (1, 0)),
    ],
)
def test_category_is_filled_70_to_30_and_each_kind_covers_for_the_other(
    target: int, rewritten: int, original: int, expected: tuple[int, int]
) -> None:
    assert tuple(split_by_kind(target, rewritten, original, 0.7).values()) == expected


CELLS = [Cell(c, s, k) for c in CATEGORIES for s in ("a", "b") for k in ("rewritten", "original")]
COUNTS = st.fixed_dictionaries({cell: st.integers(0, 20) for cell in CELLS})


@settings(derandomize=True, database=None, deadline=None)
@given(COUNTS, st.integers(0, 60), st.integers(0, 60), st.floats(0, 1), st.booleans(), st.floats(0.5, 10))
def test_quotas_take_available_rows_once_and_report_the_shortfall(
    counts: dict[Cell, int], single: int, both: int, still: float, upsample: bool, temperature: float
) -> None:
    changed = {"one_vision_single_share": still, "upsample": upsample, "temperature": temperature}
    mixture = profile(single_image=single, one_vision=both, **changed).mixture
    taken: Counter[tuple[Cell, int]] = Counter()
    for stage in ("single_image", "one_vision"):
        filled = fill_stage(mixture, stage, counts)
        assert {f.category: f.target for f in filled.categories} == mixture.compute_targets(stage)
        for fill in filled.categories:
            rows = sum(q.n_rows for q in filled.quotas if q.cell.category == fill.category)
            assert fill.selected == rows == fill.target - fill.shortfall
            assert rows == sum(f.selected for f in filled.sources if f.category == fill.category)
            assert fill.selected <= (fill.target if upsample else min(fill.target, fill.available))
            assert fill.shortfall == 0 or fill.selected == fill.available or (upsample and not fill.available)
        for quota in filled.quotas:
            assert quota.start + quota.n_rows <= counts[quota.cell]
            if quota.repeat_index == 0:
                taken.update((quota.cell, quota.start + n) for n in range(quota.n_rows))
    assert not [row for row, times in taken.items() if times > 1], "no row is in both stages"


def test_rows_repeat_only_with_upsample() -> None:
    mixture = profile(upsample=True).mixture
    counts = {Cell("ocr", "a", "original"): 2, Cell("ocr", "a", "rewritten"): 1, Cell("chart", "c", "original"): 100}
    filled = fill_stage(mixture, "single_image", counts)
    assert [f.shortfall for f in filled.categories] == [0, 0]
    assert [(q.cell.kind, q.n_rows, q.repeat_index) for q in filled.quotas if q.cell.category == "ocr" and q.n_rows][
        :4
    ] == [
        ("rewritten", 1, 0),
        ("original", 2, 0),
        ("rewritten", 1, 1),
        ("original", 2, 1),
    ]
    assert sum(q.n_rows for q in filled.quotas if q.cell.category == "ocr") == 13
    assert Quota(Cell("chart", "c", "original"), 0, 7) in filled.quotas


def test_the_papers_mixture_has_ten_and_two_million_rows() -> None:
    assert sum(MixtureConfig().compute_targets("single_image").values()) == 10_000_000
    assert sum(MixtureConfig().compute_targets("one_vision").values()) == 2_000_000
    assert MixtureConfig().compute_targets("alignment") == {"alignment": 558_000}
    assert not {"video", "multi_image"} & MixtureConfig().compute_targets("single_image").keys()
    assert {"video", "multi_image"} < MixtureConfig().compute_targets("one_vision").keys()


# -- mixing ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def full(lake: Lake) -> Lake:
    """Two sources of ocr (one rewritten), one of chart, one of video, and the alignment corpus."""
    put_category(lake, "ocr", "a", 30, rewritten=20, dropped=5)
    put_category(lake, "ocr", "b", 10)
    put_category(lake, "chart", "c", 4)
    put_category(lake, "video", "v", 20)
    put_category(lake, "alignment", "l", 12)
    return lake


def test_a_mixture_has_its_shares_and_says_what_was_short(full: Lake) -> None:
    report = build_mixture(full, profile(), "single_image", run_id="one")
    assert {f.category: (f.target, f.available, f.selected, f.rewritten, f.shortfall) for f in report.fills} == {
        "ocr": (13, 40, 13, 9, 0),
        "chart": (7, 4, 4, 0, 3),
    }
    rows = manifest(full, "single_image")
    assert [r["position"] for r in rows] == list(range(17))
    assert Counter((r["category"], r["kind"]) for r in rows) == {
        ("ocr", "rewritten"): 9,
        ("ocr", "original"): 4,
        ("chart", "original"): 4,
    }
    assert len(set(who(rows))) == 17
    for row in rows:
        content = row["rewrite_id"] or row["version_id"]
        assert row["row_id"] == compute_digest("single_image", row["kind"], content, row["repeat_index"])
    assert [r["category"] for r in rows] != sorted(r["category"] for r in rows), "shuffled across categories"


def test_every_mixture_row_resolves_to_its_content(full: Lake) -> None:
    for stage in ("alignment", "single_image", "one_vision"):
        build_mixture(full, profile(), stage, run_id="one")
        rows = list(iter_mixture_rows(full, stage))
        assert rows
        for row in rows:
            assert row["conversations"][0]["value"].startswith("why" if row["kind"] == "rewritten" else "what is")
            assert (row["judged_id"] is not None) == (row["kind"] == "rewritten")


def test_stages_never_share_a_row(full: Lake) -> None:
    build_mixture(full, profile(), "single_image", run_id="one")
    build_mixture(full, profile(), "one_vision", run_id="one")
    single, both = manifest(full, "single_image"), manifest(full, "one_vision")
    assert not {r["sample_id"] for r in single} & {r["sample_id"] for r in both}
    assert sum(r["category"] == "video" for r in both) == 4
    assert sum(r["category"] == "ocr" for r in both) == 4


def test_kept_rewrite_replaces_its_original_and_a_dropped_one_does_not(full: Lake) -> None:
    build_mixture(full, profile(single_image=1000), "single_image", run_id="one")
    rows = [r for r in manifest(full, "single_image") if r["source"] == "a"]
    assert Counter(r["kind"] for r in rows) == {"rewritten": 20, "original": 10}
    assert len({r["sample_id"] for r in rows}) == 30


def test_a_rewrite_of_an_older_version_is_not_used(full: Lake) -> None:
    new = sample("a", 0, revision=2, answer="changed")
    rows = [category_row(sample("a", n), "ocr") for n in range(1, 30)]
    put_samples(full, "a", [*(sample("a", n) for n in range(30)), new])
    put(full, "category/ocr", CATEGORY, [*rows, category_row(new, "ocr")], "a")
    build_mixture(full, profile(single_image=1000), "single_image", run_id="one")
    result = [r for r in iter_mixture_rows(full, "single_image") if r["sample_id"] == new["sample_id"]]
    assert [(r["kind"], r["conversations"][1]["value"]) for r in result] == [("original", "changed")]


def test_a_mixture_says_why_kept_rewrites_are_not_in_it(full: Lake) -> None:
    """Every kept rewrite is outdated, held out, excluded or available."""
    for fraction in (0.0, 0.3):
        report = build_mixture(full, profile(holdout_fraction=fraction), "single_image", run_id="run")
        assert report.kept_rewrites
        for rewrites in report.kept_rewrites:
            kept = full.get_table(f"judged/{rewrites.category}").count("keep")
            assert kept == rewrites.kept
            assert kept == rewrites.outdated + rewrites.held_out + rewrites.excluded + rewrites.available
        assert any(rewrites.held_out for rewrites in report.kept_rewrites) == (fraction > 0)


def test_same_data_and_seed_give_the_same_mixture(full: Lake) -> None:
    first = build_mixture(full, profile(), "one_vision", run_id="one").published
    rows = manifest(full, "one_vision")
    again = build_mixture(full, profile(), "one_vision", run_id="two").published
    assert (again.data_version, again.version) == (first.data_version, first.version)
    other = build_mixture(full, profile(seed=1), "one_vision", run_id="three").published
    assert other.data_version != first.data_version
    assert who(manifest(full, "one_vision")) != who(rows)
    back = build_mixture(full, profile(), "one_vision", run_id="four").published
    assert back.data_version == first.data_version
    assert who(manifest(full, "one_vision")) == who(rows)


def test_a_larger_mixture_contains_the_smaller(full: Lake) -> None:
    build_mixture(full, profile(single_image=12), "single_image", run_id="one")
    small = set(who(manifest(full, "single_image")))
    build_mixture(full, profile(single_image=24), "single_image", run_id="two")
    assert small < set(who(manifest(full, "single_image")))


def test_a_new_source_takes_rows_from_the_others_and_changes_none(full: Lake) -> None:
    build_mixture(full, profile(), "single_image", run_id="one")
    before = manifest(full, "single_image")
    put_category(full, "ocr", "new", 30, rewritten=15)
    build_mixture(full, profile(), "single_image", run_id="two")
    after = manifest(full, "single_image")
    assert any(r["source"] == "new" for r in after)
    assert {r["row_id"] for r in after if r["source"] != "new"} < {r["row_id"] for r in before}
    order = [r["row_id"] for r in before]
    stayed = [r["row_id"] for r in after if r["row_id"] in order]
    assert stayed == sorted(stayed, key=order.index)


def test_a_sample_stays_in_the_mixture_when_its_rewrite_is_made_anew(full: Lake) -> None:
    build_mixture(full, profile(), "single_image", run_id="one")
    before = {r["sample_id"] for r in manifest(full, "single_image")}
    old = list(full.get_table("rewritten/ocr").iter_rows([f.name for f in REWRITTEN.columns]))
    new = [row | {"rewrite_id": compute_digest(row["rewrite_id"], "new prompt")} for row in old]
    kept = [judgement(row, keep=n < 20) for n, row in enumerate(new)]
    put(full, "rewritten/ocr", REWRITTEN, new, "a")
    put(full, "judged/ocr", JUDGED, kept, "a")
    build_mixture(full, profile(), "single_image", run_id="two")
    after = manifest(full, "single_image")
    assert {r["sample_id"] for r in after} == before
    assert not {r["rewrite_id"] for r in after} & {row["rewrite_id"] for row in old}


def test_rows_are_taken_evenly_from_the_strata_of_a_score(full: Lake) -> None:
    judged = list(full.get_table("judged/ocr").iter_rows([f.name for f in JUDGED.columns]))
    scores = {row["judged_id"]: n / len(judged) if n else None for n, row in enumerate(judged)}
    put(full, "judged/ocr", JUDGED, [row | {"p_yes": scores[row["judged_id"]]} for row in judged], "a")
    strata = {"column": "p_yes", "edges": [0.6], "shares": [0.5, 0.5]}
    build_mixture(full, profile(strata=strata, rewritten_share=0.5), "single_image", run_id="one")
    taken = [scores[r["judged_id"]] for r in manifest(full, "single_image") if r["kind"] == "rewritten"]
    assert len(taken) == 6 and None not in taken
    assert sum(score >= 0.6 for score in taken if score is not None) == 3
    build_mixture(full, profile(strata={"column": "n_images"}), "single_image", run_id="two")
    assert len(manifest(full, "single_image")) == 17


def test_a_column_with_too_many_values_for_strata_is_refused(full: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvl_assets.lake_queries.mixtures.candidates.MAX_STRATA", 5)
    with pytest.raises(MvlError, match=r"strata: about .* values, and 5 strata at most"):
        build_mixture(full, profile(strata={"column": "version_id"}), "single_image", run_id="one")


def test_a_plan_says_what_the_mixtures_then_take_and_writes_nothing(full: Lake) -> None:
    wants = profile(temperature=2.0, sources={"b": {"share": 0.5}})
    plans = plan_mixtures(full, wants, ["single_image", "one_vision"])
    assert not full.list_tables("mixture")
    for plan in plans:
        report = build_mixture(full, wants, plan.stage, run_id="one")
        assert (report.fills, report.source_fills, report.kept_rewrites) == (
            plan.fills,
            plan.source_fills,
            plan.kept_rewrites,
        )
        rows = manifest(full, plan.stage)
        assert Counter(r["source"] for r in rows) == {f.source: f.selected for f in plan.source_fills if f.selected}
        assert Counter(r["source"] for r in rows if r["kind"] == "rewritten") == {
            f.source: f.rewritten for f in plan.source_fills if f.rewritten
        }


def test_repeated_rows_have_their_own_ids(full: Lake) -> None:
    report = build_mixture(full, profile(upsample=True), "single_image", run_id="one")
    assert not any(f.shortfall for f in report.fills)
    charts = [r for r in manifest(full, "single_image") if r["category"] == "chart"]
    assert Counter(r["repeat_index"] for r in charts) == {0: 4, 1: 3}
    assert len(set(who(charts))) == 7
    assert len(list(iter_mixture_rows(full, "single_image"))) == 20


def test_held_out_rows_are_in_no_stage(full: Lake) -> None:
    for stage in ("alignment", "single_image", "one_vision"):
        build_mixture(full, profile(holdout_fraction=0.4, single_image=1000, one_vision=1000), stage, run_id="one")
        taken = {r["sample_id"] for r in manifest(full, stage)}
        assert taken
        assert not {s for s in taken if is_held_out(s, 0.4)}
    build_mixture(full, profile(holdout_fraction=0.4, single_image=1000), "single_image", run_id="one")
    everyone = {
        r["sample_id"] for c in ("ocr", "chart") for r in full.get_table(f"category/{c}").iter_rows(["sample_id"])
    }
    left_out = everyone - {r["sample_id"] for r in manifest(full, "single_image")}
    assert left_out == {s for s in everyone if is_held_out(s, 0.4)}


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        ({}, {0, 1}),
        ({"drop_duplicates": False}, {1}),
        ({"drop_contaminated": False}, {0}),
        ({"paper_parity": True}, set()),
    ],
)
def test_duplicates_and_contaminated_rows_are_left_out_unless_switched_off(
    full: Lake, changed: dict[str, Any], missing: set[int]
) -> None:
    rows = [sample("c", n) for n in range(4)]
    put(full, "curation/duplicates", DUPLICATES, [{"sample_id": rows[0]["sample_id"], "source": "c"}])
    hit = {"hit_id": "ab" * 16, "sample_id": rows[1]["sample_id"], "source": "c", "kind": "declared", "removed": True}
    stays = {**hit, "hit_id": "cd" * 16, "sample_id": rows[2]["sample_id"], "kind": "same_image", "removed": False}
    put(full, "curation/contamination", CONTAMINATION, [hit, stays])
    build_mixture(full, profile(**changed), "single_image", run_id="one")
    taken = {r["sample_id"] for r in manifest(full, "single_image") if r["source"] == "c"}
    assert taken == {r["sample_id"] for n, r in enumerate(rows) if n not in missing}


def test_empty_lake_gives_an_empty_mixture_with_full_shortfall(lake: Lake) -> None:
    report = build_mixture(lake, profile(), "one_vision", run_id="one")
    assert report.published.n_rows == 0
    assert sum(f.shortfall for f in report.fills) == 10


def test_sources_that_left_their_category_or_group_leave_the_mixture(full: Lake) -> None:
    def taken(groups: dict[str, dict[str, str]]) -> Counter[tuple[str, str]]:
        build_mixture(full, profile(single_image=1000), "single_image", run_id="one", groups=groups)
        return Counter((r["source"], r["kind"]) for r in manifest(full, "single_image"))

    everything = {"ocr": {"a": "B", "b": "A"}, "chart": {"c": "A"}}
    assert taken(everything) == {
        ("a", "rewritten"): 20,
        ("a", "original"): 10,
        ("b", "original"): 10,
        ("c", "original"): 4,
    }
    assert taken({"ocr": {"a": "A"}}) == {("a", "original"): 30}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rewritten_share": 70}, "rewritten_share"),
        ({"one_vision_single_share": -0.1}, "one_vision_single_share"),
        ({"single_image": -1}, "single_image"),
        ({"shares": {"chrat": 1.0}}, "chrat"),
        ({"shares": {"chart": -1.0}}, "shares.chart"),
    ],
)
def test_impossible_mixture_numbers_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        profile(**changed)


def test_shares_of_nothing_take_nothing() -> None:
    assert apportion(10, {"ocr": 0.0, "chart": 0.0}) == {"ocr": 0, "chart": 0}


def test_items_of_a_benchmark_enter_no_mixture_even_if_a_category_has_them(lake: Lake) -> None:
    for source in ("benchmark_ai2d", "c"):
        put_category(lake, "chart", source, 2)
    build_mixture(lake, profile(), "single_image", run_id="one")
    assert {row["source"] for row in manifest(lake, "single_image")} == {"c"}


@pytest.mark.parametrize(("rule", "kept"), [("true", 4), ("false", 0), ("p_yes >= 0.5", 2), ("no_reference", 3)])
def test_rewrites_can_be_kept_by_another_rule_than_they_were_judged_by(lake: Lake, rule: str, kept: int) -> None:
    rewrites = [rewrite(row, "ocr") for row in put_category(lake, "ocr", "a", 6)[:4]]
    put(lake, "rewritten/ocr", REWRITTEN, rewrites, "a")
    scores = [(0.9, None), (0.6, True), (0.2, None), (None, None)]
    rows = [
        judgement(row, keep=True) | {"p_yes": p_yes, "matches_reference": matches}
        for row, (p_yes, matches) in zip(rewrites, scores, strict=True)
    ]
    put(lake, "judged/ocr", JUDGED, rows, "a")
    condition = format_keep_condition(rule)
    build_mixture(
        lake, profile(shares={"ocr": 1.0}, one_vision=0), "single_image", run_id="r", keep_condition=condition
    )
    kinds = Counter(row["kind"] for row in manifest(lake, "single_image"))
    assert (kinds["rewritten"], kinds["original"]) == (kept, 6 - kept)
