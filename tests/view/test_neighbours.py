"""What the page of a pair shows beside it: duplicates and items of benchmarks, each next to the pair's own sample."""

from __future__ import annotations

from pathlib import Path

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CONTAMINATION, DUPLICATES
from mvl_assets.view.neighbours import read_neighbours
from tests.export.small_lake import SOURCE, draw_image, fill_judged_lake
from tests.lake.rows import put, put_samples, sample
from tests.view.site import serving_view

BENCHMARK = "benchmark_charts"
OWN, KEPT = compute_digest(SOURCE, 1), compute_digest(SOURCE, 0)


def fill_lake(root: Path) -> tuple[Lake, str]:
    """The second sample is a copy of the first, and of an item of a benchmark; returns the item's image, too."""
    lake = fill_judged_lake(root)
    image = draw_image(200)
    lake.get_images(BENCHMARK).insert([image])
    item = sample(BENCHMARK, 0, pictures=[image], question="<image>\nThe item's question?")
    put_samples(lake, BENCHMARK, [item])
    duplicate = {"sample_id": OWN, "source": SOURCE, "canonical_sample_id": KEPT, "canonical_source": SOURCE}
    put(lake, "curation/duplicates", DUPLICATES, [duplicate | {"rule": "copied_images", "correlation": 0.991}])
    hit = {"sample_id": OWN, "source": SOURCE, "benchmark": "charts", "removed": True}
    hits = [
        hit | {"kind": "same_question", "benchmark_item": item["sample_id"], "item_source": BENCHMARK},
        hit | {"kind": "same_image", "benchmark_item": compute_digest("gone"), "item_source": BENCHMARK},
        hit | {"kind": "declared", "removed": False, "allowed": "an old copy"},
    ]
    hits = [{"hit_id": compute_digest(number), "question_overlap": 0.75, **row} for number, row in enumerate(hits)]
    put(lake, "curation/contamination", CONTAMINATION, hits)
    return lake, image.image_id


def test_both_sides_of_every_likeness_are_named_with_what_follows(tmp_path: Path) -> None:
    lake, image_id = fill_lake(tmp_path / "lake")
    duplicate, *hits = read_neighbours(lake, OWN)
    assert duplicate.relation == "copied images, kept instead of this one"
    assert duplicate.scores == [("correlation", "0.99")]
    assert duplicate.sample is not None and "Question 0?" in duplicate.sample.text
    by_relation = {hit.relation: hit for hit in hits}
    found = by_relation["same question: an item of charts, left out of mixtures"]
    assert found.sample is not None and found.sample.image_ids == [image_id] and found.sample.source == BENCHMARK
    assert found.scores == [("question overlap", "0.75")]
    assert by_relation["same image: an item of charts, left out of mixtures"].sample is None
    assert "declared: the source belongs to charts, not left out of mixtures (an old copy)" in by_relation
    (of_kept,) = read_neighbours(lake, KEPT)
    assert of_kept.relation == "copied images, left out for this one"


def test_the_page_shows_this_sample_beside_the_other(tmp_path: Path) -> None:
    lake, image_id = fill_lake(tmp_path / "lake")
    with serving_view(lake, tmp_path / "index") as site:
        judged_id = next(
            row["judged_id"] for row in lake.get_table("judged/chart").iter_rows() if row["sample_id"] == OWN
        )
        status, _, html = site.get(f"/pair/{judged_id}/neighbours")
    text = html.decode()
    assert status == 200 and f"/thumbnail/{BENCHMARK}/{image_id}" in text and "not in the lake" in text
    assert text.count("this sample") == text.count("the other") == 4
    assert text.count("Question 1?") == 4 and "The item&#39;s question?" in text
