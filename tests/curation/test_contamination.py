"""Contamination: sources that are benchmarks, and copies of held-out questions under other bytes."""

from __future__ import annotations

import pytest

from mvl_assets.curation.contamination import find_contamination
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import ImageRow
from mvl_assets.lake_queries.benchmarks import hits as hit_queries
from mvl_assets.lake_queries.holdout import is_held_out
from tests.curation.sources import source
from tests.lake.rows import make_image, put_samples, sample

SHARE = 0.5


def pictures(held_out: bool, count: int = 1) -> list[ImageRow]:
    """Pictures that are (not) held out at `MIN_DELETED_FRACTION`."""
    return [p for p in map(make_image, range(40)) if is_held_out(p.image_id, SHARE) == held_out][:count]


def looks_like(shown: ImageRow, other: ImageRow) -> ImageRow:
    """Other bytes with the perceptual hash of `shown`."""
    return ImageRow(other.image_id, other.data, "PNG", 32, 24, 1, "RGB", shown.phash)


def hits(lake: Lake) -> dict[tuple[str, str], str | None]:
    rows = lake.get_table("curation/contamination").iter_rows()
    return {(r["sample_id"], r["kind"]): r["benchmark_item"] for r in rows}


def test_every_row_of_a_source_that_is_a_benchmark_is_a_hit(lake: Lake) -> None:
    put_samples(lake, "a", [sample("a", n) for n in range(3)])
    put_samples(lake, "b", [sample("b", 1)])
    relations = [{"name": "EgoSchema", "relation": "is_benchmark"}, {"name": "MMMU", "relation": "shares_origin"}]
    report = find_contamination(
        lake, [source("a", benchmarks=relations), source("b")], holdout_fraction=0, run_id="one"
    )
    assert report.hit_counts == {"declared": 3}
    assert set(hits(lake)) == {(sample("a", n)["sample_id"], "declared") for n in range(3)}


@pytest.mark.parametrize(
    ("words", "same_look", "is_copy"),
    [("what is it?", True, True), ("What IS it", True, True), ("where?", True, False), ("what is it?", False, False)],
)
def test_near_duplicate_has_the_words_and_similar_images_of_a_held_out_row(
    lake: Lake, words: str, same_look: bool, is_copy: bool
) -> None:
    (asked,), (shown,) = pictures(held_out=True), pictures(held_out=False)
    shown = looks_like(asked, shown) if same_look else shown
    exam = sample("a", 1, question="what is it?", answer="a cat", pictures=[asked])
    lesson = sample("b", 1, question=words, answer="a cat", pictures=[shown])
    put_samples(lake, "a", [exam])
    put_samples(lake, "b", [lesson])
    report = find_contamination(lake, [source("b"), source("a")], holdout_fraction=SHARE, run_id="one")
    assert report.hit_counts == ({"near_duplicate": 1} if is_copy else {})
    assert hits(lake) == ({(lesson["sample_id"], "near_duplicate"): exam["sample_id"]} if is_copy else {})


def test_held_out_row_is_not_a_near_duplicate_of_held_out_rows(lake: Lake) -> None:
    first, second = pictures(held_out=True, count=2)
    shown = (first, looks_like(first, second))
    rows = [sample("a", n, question="?", answer="!", pictures=[p]) for n, p in enumerate(shown)]
    put_samples(lake, "a", rows)
    assert find_contamination(lake, [source("a")], holdout_fraction=SHARE, run_id="one").hit_counts == {}


def test_no_holdout_and_no_benchmark_give_no_hits_and_read_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    put_samples(lake, "a", [sample("a", n) for n in range(5)])
    monkeypatch.setattr(hit_queries, "stream_current_samples", lambda *_: pytest.fail("samples were read"))
    report = find_contamination(lake, [source("a")], holdout_fraction=0, run_id="one")
    assert report.published.n_rows == 0
    assert report.hit_counts == {}


def test_running_it_again_changes_nothing(lake: Lake) -> None:
    put_samples(lake, "a", [sample("a", n) for n in range(5)])
    of = [source("a", benchmarks=[{"name": "EgoSchema", "relation": "is_benchmark"}])]
    first = find_contamination(lake, of, holdout_fraction=SHARE, run_id="one").published
    again = find_contamination(lake, of, holdout_fraction=SHARE, run_id="two").published
    assert first.n_added == 5
    assert not again.changed_anything


def test_row_with_an_image_of_a_held_out_row_is_a_hit(lake: Lake) -> None:
    (asked,), (shown,) = pictures(held_out=True), pictures(held_out=False)
    exam = sample("a", 1, pictures=[asked])
    lesson = sample("b", 1, pictures=[shown, asked])
    other = sample("b", 2, pictures=[shown])
    put_samples(lake, "a", [exam])
    put_samples(lake, "b", [lesson, other])
    find_contamination(lake, [source("b"), source("a")], holdout_fraction=SHARE, run_id="one")
    assert hits(lake) == {(lesson["sample_id"], "shared_image"): exam["sample_id"]}


def test_older_versions_and_withdrawn_samples_are_neither_held_out_nor_hits(lake: Lake) -> None:
    (asked,), (shown,) = pictures(held_out=True), pictures(held_out=False)
    rows = [
        sample("a", 1, pictures=[asked]),
        sample("a", 1, pictures=[shown], revision=2),
        sample("a", 2, pictures=[asked]),
        sample("a", 2, withdrawn=True, revision=2),
        sample("b", 1, pictures=[shown, asked]),
    ]
    for slug in "ab":
        put_samples(lake, slug, [row for row in rows if row["source"] == slug])
    find_contamination(lake, [source("a"), source("b")], holdout_fraction=SHARE, run_id="one")
    assert hits(lake) == {}
    put_samples(lake, "c", [sample("c", 1, pictures=[asked])])
    find_contamination(lake, [source("a"), source("b"), source("c")], holdout_fraction=SHARE, run_id="two")
    assert hits(lake) == {(rows[-1]["sample_id"], "shared_image"): sample("c", 1)["sample_id"]}
