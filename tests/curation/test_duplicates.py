"""Duplicates: the same pictures and the same words. Which of them stays does not change once it mattered."""

from __future__ import annotations

from typing import Any

import pytest

from mvl_assets.common.sample_facts import compute_fingerprint
from mvl_assets.curation.duplicates import find_duplicates
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import REWRITTEN, SAMPLES
from tests.curation.sources import source
from tests.lake.rows import put, put_samples, rewrite, sample, table_of

PICTURE, OTHER = "aa" * 16, "bb" * 16


def copy(of: str, number: int = 0, **said: Any) -> dict[str, Any]:
    """A sample that says what every other copy says."""
    same: dict[str, Any] = {"question": "What is it?", "answer": "A cat.", "image_ids": [PICTURE]}
    return sample(of, number, **(same | said))


def dropped(lake: Lake) -> dict[str, str]:
    """Who is dropped, and in favour of whom."""
    return {r["source"]: r["canonical_source"] for r in lake.get_table("curation/duplicates").iter_rows()}


def put_copies(lake: Lake, *slugs: str) -> None:
    for slug in slugs:
        put_samples(lake, slug, [copy(slug)])


@pytest.mark.parametrize(
    ("other", "is_duplicate"),
    [
        ({}, True),
        ({"question": "<image>\nwhat is it", "answer": "a  CAT!"}, True),
        ({"answer": "A dog."}, False),
        ({"image_ids": [OTHER]}, False),
        ({"image_ids": []}, False),
        ({"image_ids": [PICTURE, PICTURE]}, False),
    ],
)
def test_duplicates_have_the_same_images_and_words(lake: Lake, other: dict, is_duplicate: bool) -> None:
    put_samples(lake, "a", [copy("a")])
    put_samples(lake, "b", [copy("b", **other)])
    report = find_duplicates(lake, [source("a"), source("b")], run_id="one")
    assert (report.n_compared, report.n_duplicates) == (2, int(is_duplicate))
    assert dropped(lake) == ({"b": "a"} if is_duplicate else {})


def test_fingerprint_depends_on_the_order_of_images() -> None:
    turns = sample("a", 1)["conversations"]
    assert compute_fingerprint(turns, [PICTURE, OTHER]) != compute_fingerprint(turns, [OTHER, PICTURE])


def test_fingerprint_depends_on_the_speaker() -> None:
    turns = sample("a", 1)["conversations"]
    swapped = [{"from": b["from"], "value": a["value"]} for a, b in zip(turns, reversed(turns), strict=True)]
    assert compute_fingerprint(turns, []) != compute_fingerprint(swapped, [])


def test_fingerprint_depends_on_words_in_other_scripts() -> None:
    assert compute_fingerprint([{"from": "human", "value": "猫"}], []) != compute_fingerprint(
        [{"from": "human", "value": "犬"}], []
    )


def test_copies_within_one_source_leave_one(lake: Lake) -> None:
    put_samples(lake, "a", [copy("a", n) for n in range(3)])
    assert find_duplicates(lake, [source("a")], run_id="one").n_duplicates == 2
    rows = list(lake.get_table("curation/duplicates").iter_rows())
    assert len({r["canonical_sample_id"] for r in rows}) == 1
    assert {r["sample_id"] for r in rows}.isdisjoint(r["canonical_sample_id"] for r in rows)


def test_first_source_of_the_catalog_is_kept_and_group_c_comes_last(lake: Lake) -> None:
    put_copies(lake, "z", "y", "x")
    sources = [source("z", group="C", reason="too noisy"), source("y"), source("x")]
    find_duplicates(lake, sources, run_id="one")
    assert dropped(lake) == {"x": "y", "z": "y"}


def test_earlier_kept_row_stays_when_an_earlier_source_arrives(lake: Lake) -> None:
    put_copies(lake, "b", "c")
    sources = [source("a"), source("b"), source("c")]
    find_duplicates(lake, sources, run_id="one")
    put_copies(lake, "a")
    find_duplicates(lake, sources, run_id="two")
    assert dropped(lake) == {"a": "b", "c": "b"}
    find_duplicates(lake, sources, run_id="three")
    assert dropped(lake) == {"a": "b", "c": "b"}


def test_rewritten_row_stays_when_an_earlier_source_arrives(lake: Lake) -> None:
    put_copies(lake, "a", "b")
    put(lake, "rewritten/ocr", REWRITTEN, [rewrite(copy("b"), "ocr")], "b")
    find_duplicates(lake, [source("a"), source("b")], run_id="one")
    assert dropped(lake) == {"a": "b"}


def test_running_it_again_changes_nothing(lake: Lake) -> None:
    put_copies(lake, "a", "b")
    first = find_duplicates(lake, [source("a"), source("b")], run_id="one").published
    again = find_duplicates(lake, [source("a"), source("b")], run_id="two").published
    assert first.n_added == 1
    assert not again.changed_anything
    assert again.version == first.version


def test_duplicate_returns_when_its_canonical_row_is_withdrawn(lake: Lake) -> None:
    put_copies(lake, "a", "b")
    sources = [source("a"), source("b")]
    find_duplicates(lake, sources, run_id="one")
    lake.get_table("samples").insert(table_of(SAMPLES, [copy("a", revision=2, withdrawn=True)]))
    assert find_duplicates(lake, sources, run_id="two").n_duplicates == 0
    assert dropped(lake) == {}


def test_an_empty_lake_has_no_duplicates(lake: Lake) -> None:
    assert find_duplicates(lake, [source("a")], run_id="one").n_compared == 0


def test_row_that_mixtures_take_is_kept_over_one_of_group_c_or_none(lake: Lake) -> None:
    sources = [source("released", group=None), source("c", group="C", reason="too noisy"), source("a")]
    put_copies(lake, "released", "c")
    find_duplicates(lake, sources, run_id="before")
    put_copies(lake, "a")
    find_duplicates(lake, sources, run_id="after")
    assert dropped(lake) == {"released": "a", "c": "a"}


@pytest.mark.parametrize(
    ("one", "other"),
    [("-5 - 3", "5 + 3"), ("is 3 < 4?", "is 3 > 4?"), ("3.5", "35"), ("x^2/2", "x-2*2"), ("C", "C++")],
)
def test_fingerprint_depends_on_punctuation_inside_words(one: str, other: str) -> None:
    assert compute_fingerprint([{"from": "human", "value": one}], []) != compute_fingerprint(
        [{"from": "human", "value": other}], []
    )
