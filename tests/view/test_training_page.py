"""The page of trainings and studies: pictures and tables that hold nothing but text."""

from __future__ import annotations

from pathlib import Path

from mvl_assets.view.app import PageOptions, build_environment
from mvl_assets.view.diagrams import Interval, draw_intervals, draw_lines
from mvl_assets.view.training_page import StudySummary, TrainingCurve, TrainingOverview, draw_training_page
from tests.view.site import HOSTILE, ViewSite, fill_hostile_lake, serving_view
from tests.view.svg_texts import list_texts

CURVE = TrainingCurve(f"single_image {HOSTILE}", HOSTILE, {"loss": [(1, 3.0), (9, 2.0)], "held-out loss": []})
STUDY = StudySummary(
    HOSTILE,
    [HOSTILE],
    {HOSTILE: [{HOSTILE: HOSTILE, "n": 3}], "nothing": []},
    {HOSTILE: [Interval(HOSTILE, -1, 2, 5, False), Interval("b", 1, 2, 3, True)]},
)


def test_lines_and_intervals_say_their_values_and_escape_names() -> None:
    texts = list_texts(draw_lines(HOSTILE, {HOSTILE: [(1, 3.0), (1000, 2.25)], "empty": []}))
    assert {HOSTILE, f"{HOSTILE} 2.25", "step 1,000", "3", "2.25"} <= set(texts)
    assert draw_lines("a", {"b": []}) == "" and list_texts(draw_lines("a", {"b": [(5, 1.0)]}))
    texts = list_texts(draw_intervals(HOSTILE, STUDY.intervals[HOSTILE]))
    assert f"{HOSTILE}: +2.0 (-1.0 to +5.0)" in texts
    assert draw_intervals("a", []) == ""


def test_the_page_shows_them_without_markup_of_data() -> None:
    page = draw_training_page(TrainingOverview([CURVE], [STUDY]))
    template = build_environment().get_template("training.html")
    html = template.render(page=page, options=PageOptions("lake"), token="t", label_filters=())
    assert "<script>window" not in html and "<img src=x" not in html and html.count("<svg") == 2
    assert "&lt;script&gt;window" in html and "nothing" not in html
    empty = draw_training_page(TrainingOverview([], []))
    assert "Nothing has been trained" in template.render(page=empty, options=PageOptions("lake"), token="t")


def test_a_server_without_training_says_so(tmp_path: Path) -> None:
    with serving_view(fill_hostile_lake(tmp_path / "lake", 2), tmp_path / "index") as site:
        assert isinstance(site, ViewSite) and site.get("/training")[0] == 400
        assert b'href="/training"' not in site.get("/")[2]
