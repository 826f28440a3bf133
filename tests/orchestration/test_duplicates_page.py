"""The page of `curation/duplicates` shows both samples of a pair, and nothing of theirs as markup."""

from __future__ import annotations

from typing import Any

from mvl_assets.curation.duplicates import SourceDuplicates
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.duplicate_examples import DuplicateExample
from mvl_assets.orchestration.duplicates_page import (
    render_duplicate_pairs,
    render_removed_shares,
    render_source_duplicates,
)
from tests.lake.rows import make_image, sample
from tests.media.image_copies import draw_waves, encode

SCORES: dict[str, Any] = {
    "correlation": 0.98,
    "block_difference": 0.1,
    "lost_edges": 0.0,
    "text_overlap": 1.0,
    "text_containment": 1.0,
}


def test_pairs_are_shown_with_both_images_and_their_scores(lake: Lake) -> None:
    shown, broken = make_image(1), make_image(2)
    shown = type(shown)(shown.image_id, encode(draw_waves()), "PNG", 360, 280, 1, "RGB", None)
    for slug, row in (("a", shown), ("b", broken)):
        lake.get_images(slug).insert([row])
    dropped = sample("a", 1, pictures=[shown], question="<b>Who?</b> | x")
    kept = sample("b", 1, pictures=[broken])
    example = DuplicateExample({"rule": "copied_images", **SCORES}, dropped, kept)
    text = str(render_duplicate_pairs(lake, [example]).value)
    assert text.count("data:image/jpeg") == 1
    assert "<b>" not in text
    assert "correlation 0.98" in text.replace("&#95;", "_")
    assert render_duplicate_pairs(lake, []).value == "none"


def test_sources_are_shown_with_what_they_lose() -> None:
    sources = [SourceDuplicates("charts", True, 10, 2, 1, 4), SourceDuplicates("other", True, 5, 0, 0, 1)]
    assert "| charts | 10 | 2 | 1 | 30.0% | 4 |" in str(render_source_duplicates(sources).value)
    assert "data:image/png" in str(getattr(render_removed_shares(sources), "value", ""))
    assert render_removed_shares(sources[1:]) is None
