"""Mixtures: shares first, then 70/30, never a held-out row, never a row in two stages, the same one every time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.profile import MixtureConfig, Profile, load_profile
from mvl_assets.curation.mixing import apportion, build_mixture, build_quotas, compute_targets, split_by_kind
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CATEGORY, CONTAMINATION, DUPLICATES
from mvl_assets.lake_queries.candidates import Quota
from mvl_assets.lake_queries.holdout import is_held_out
from mvl_assets.lake_queries.views import iter_mixture_rows
from tests.lake.rows import category_row, put, put_category, put_samples, sample

CATEGORIES = ("ocr", "chart", "video")


def profile(**changed: Any) -> Profile:
    """The demo's profile with the given fields of its mixture (or `holdout_fraction`, `paper_parity`) changed."""
    base = load_profile("demo")
    own = {k: changed.pop(k) for k in ("holdout_fraction", "paper_parity") if k in changed}
    whole = base.model_dump() | {"holdout_fraction": 0.0} | own
    small = {"alignment": 10, "single_image": 20, "one_vision": 10, "one_vision_single_share": 0.6, "seed": 0}
    shares = {"ocr": 0.5, "chart": 0.25, "video": 0.25}
    whole["mixture"] = whole["mixture"] | {"shares": shares, "upsample": False} | small | changed
    return Profile.model_validate(whole)


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


COUNTS = st.fixed_dictionaries({(c, k): st.integers(0, 40) for c in CATEGORIES for k in ("rewritten", "original")})


@settings(derandomize=True, database=None, deadline=None)
@given(COUNTS, st.integers(0, 60), st.integers(0, 60), st.floats(0, 1), st.booleans())
def test_quotas_take_available_rows_once_and_report_the_shortfall(
    counts: dict[tuple[str, str], int], single: int, both: int, still: float, upsample: bool
) -> None:
    mixture = profile(single_image=single, one_vision=both, one_vision_single_share=still, upsample=upsample).mixture
    taken: Counter[tuple[str, str, int]] = Counter()
    for stage in ("single_image", "one_vision"):
        chosen, fills = build_quotas(mixture, stage, counts)
        wanted = compute_targets(mixture, stage)
        assert {f.category: f.target for f in fills} == wanted
        for fill in fills:
            rows = sum(q.n_rows for q in chosen if q.category == fill.category)
            assert fill.selected == rows == fill.target - fill.shortfall
            assert fill.selected <= (fill.target if upsample else min(fill.target, fill.available))
            assert fill.shortfall == 0 or fill.selected == fill.available or (upsample and not fill.available)
        for quota in chosen:
            assert quota.start + quota.n_rows <= counts[quota.category, quota.kind]
            if quota.repeat_index == 0:
                taken.update((quota.category, quota.kind, quota.start + n) for n in range(quota.n_rows))
    assert not [row for row, times in taken.items() if times > 1], "no row is in both stages"


def test_rows_repeat_only_with_upsample() -> None:
    mixture = profile(upsample=True).mixture
    counts = {("ocr", "original"): 2, ("ocr", "rewritten"): 1, ("chart", "original"): 100}
    chosen, fills = build_quotas(mixture, "single_image", counts)
    assert [f.shortfall for f in fills] == [0, 0]
    assert [(q.kind, q.n_rows, q.repeat_index) for q in chosen if q.category == "ocr" and q.n_rows][:4] == [
        ("rewritten", 1, 0),
        ("original", 2, 0),
        ("rewritten", 1, 1),
        ("original", 2, 1),
    ]
    assert sum(q.n_rows for q in chosen if q.category == "ocr") == 13
    assert Quota("chart", "original", 0, 7) in chosen


def test_the_papers_mixture_has_ten_and_two_million_rows() -> None:
    assert sum(compute_targets(MixtureConfig(), "single_image").values()) == 10_000_000
    assert sum(compute_targets(MixtureConfig(), "one_vision").values()) == 2_000_000
    assert compute_targets(MixtureConfig(), "alignment") == {"alignment": 558_000}
    assert not {"video", "multi_image"} & compute_targets(MixtureConfig(), "single_image").keys()
    assert {"video", "multi_image"} < compute_targets(MixtureConfig(), "one_vision").keys()


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
    hit = {"hit_id": "ab" * 16, "sample_id": rows[1]["sample_id"], "source": "c", "kind": "declared"}
    put(full, "curation/contamination", CONTAMINATION, [hit])
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
