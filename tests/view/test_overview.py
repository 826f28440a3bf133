"""The overview: what flows where, and pictures that hold nothing of the data but text."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.lake_queries.pair_index.build import build_pair_index, read_table_versions
from mvl_assets.lake_queries.pair_index.index import PairIndex
from mvl_assets.lake_queries.pair_index.overview import PairFlow, SourceFlow, SourceRate, read_overview
from mvl_assets.view.diagrams import FlowLink, draw_bars, draw_flow
from mvl_assets.view.overview_page import draw_pair_flow
from tests.export.small_lake import SOURCE, fill_judged_lake
from tests.view.site import HOSTILE
from tests.view.svg_texts import list_texts


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> PairIndex:
    folder: Path = tmp_path_factory.mktemp("overview")
    lake = fill_judged_lake(folder / "lake")
    build_pair_index(lake, read_table_versions(lake), 0, folder / "pairs.duckdb")
    return PairIndex(lake, folder / "pairs.duckdb")


def test_rows_flow_to_where_they_are_used(index: PairIndex) -> None:
    overview = read_overview(index)
    assert overview.samples == [SourceFlow("chart", 0, 4, 8)]
    assert overview.pairs == [PairFlow("chart", "judge_no", "", 2), PairFlow("chart", "kept", "in a mixture", 2)]
    assert overview.sources == [SourceRate("chart", SOURCE, 4, 2)]
    by_heading = {d.heading: d.counts for d in overview.distributions}
    assert {name: sum(counts) for name, counts in by_heading["P(yes)"].items()} == {"kept": 2, "dropped": 2}
    assert by_heading["P(yes)"]["dropped"][4] == 2
    assert sum(by_heading["characters of the answer"]["rewrites"]) == 4


def test_a_flow_says_its_numbers(index: PairIndex) -> None:
    texts = list_texts(draw_pair_flow(read_overview(index).pairs))
    for text in ("chart 4", "judge_no 2", "kept 2", "in a mixture 2", "kept → in a mixture: 2 pairs"):
        assert text in texts


def test_pictures_escape_what_they_show() -> None:
    links = [FlowLink(0, HOSTILE, "kept", 3), FlowLink(0, "b", HOSTILE, 1_000_000), FlowLink(0, "c", "kept", 0)]
    texts = list_texts(draw_flow(links, ["from", HOSTILE], {}))
    assert f"{HOSTILE} 3" in texts and f"{HOSTILE} 1,000,000" in texts and HOSTILE in texts
    assert not [text for text in texts if text.startswith("c ")], "what has no rows is not drawn"
    assert HOSTILE in list_texts(draw_bars(HOSTILE, [0, 1], {"a": [1, 2], HOSTILE: [0, 0]}))
    assert draw_flow([], ["a", "b"], {}) == ""
