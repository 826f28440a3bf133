"""The index of judged pairs: what it selects, how it counts, and what a person's own condition cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import JUDGED
from mvl_assets.lake_queries.pair_index.build import build_file_name, build_pair_index, read_table_versions
from mvl_assets.lake_queries.pair_index.filters import NO_VALUE, PairFilter
from mvl_assets.lake_queries.pair_index.index import ConditionError, PairIndex
from mvl_assets.lake_queries.pair_index.search import search_rewrites
from mvl_assets.view.pairs import read_page
from tests.export.small_lake import SOURCE, fill_judged_lake
from tests.lake.rows import put


def build_index(lake: Lake, folder: Path) -> PairIndex:
    versions = read_table_versions(lake)
    path = folder / build_file_name(lake, versions, 0)
    build_pair_index(lake, versions, 0, path)
    return PairIndex(lake, path)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> PairIndex:
    folder = tmp_path_factory.mktemp("index")
    return build_index(fill_judged_lake(folder / "lake"), folder)


def list_answers(index: PairIndex, pair_filter: PairFilter) -> list[str]:
    """What the rewrites of a filter end with, in its order."""
    rows = index.read_rows(index.select(pair_filter).ordinals.tolist())
    rewrites = index.take("rewritten/chart", [row["rewrite_address"] for row in rows], ["conversations"])
    return [rewrite["conversations"][1]["value"].rpartition(" ")[2] for rewrite in rewrites if rewrite]


def test_rows_join_all_that_the_lake_says_about_a_pair(index: PairIndex) -> None:
    kept, *_ = index.read_rows(index.select(PairFilter(values={"keep": ("true",)})).ordinals.tolist())
    assert kept["category"] == "chart" and kept["judge_model"] == "judge" and kept["model"] == "writer"
    assert kept["answer_chars"] == len("First, see. So it is 1.") and kept["n_images"] == 1
    assert kept["content_score"] == 4 and kept["mixtures"] == "single_image" and kept["failed_criteria"] is None
    assert kept["agreement"] == "no reference, judge yes" and kept["split"] == "training"


def test_filters_select_by_values_ranges_and_conditions(index: PairIndex) -> None:
    assert list_answers(index, PairFilter()) == ["1.", "3.", "5.", "7."]
    assert list_answers(index, PairFilter(values={"drop_reason": ("judge_no",)})) == ["3.", "7."]
    assert list_answers(index, PairFilter(values={"drop_reason": (NO_VALUE,)})) == ["1.", "5."]
    assert list_answers(index, PairFilter(ranges={"p_yes": (0.5, None)})) == ["1.", "5."]
    assert list_answers(index, PairFilter(condition="NOT keep AND p_yes < 0.5")) == ["3.", "7."]


def test_orders_are_by_value_or_at_random_by_a_seed(index: PairIndex) -> None:
    assert list_answers(index, PairFilter(sort="p_yes")) == ["3.", "7.", "1.", "5."]
    assert list_answers(index, PairFilter(sort="p_yes", is_descending=True)) == ["1.", "5.", "3.", "7."]
    orders = {tuple(list_answers(index, PairFilter(sort="random", seed=seed))) for seed in range(8)}
    assert len(orders) > 1 and {frozenset(order) for order in orders} == {frozenset(("1.", "3.", "5.", "7."))}


def test_a_facet_is_counted_under_the_other_conditions(index: PairIndex) -> None:
    counts = index.count_values(PairFilter(values={"keep": ("true",)}))
    assert counts["keep"] == [("false", 2), ("true", 2)]
    assert counts["failed_criteria"] == [(None, 2)]
    assert index.count_values(PairFilter())["failed_criteria"] == [("correct, relevant", 2), (None, 2)]


def test_judges_agree_where_the_judge_and_the_others_of_its_panel_say_the_same(tmp_path: Path) -> None:
    lake = fill_judged_lake(tmp_path / "lake")
    verdicts = sorted(lake.get_table("judged/chart").iter_rows(), key=lambda row: row["keep"])
    second = {"model": "second", "model_revision": "1"}
    panels = [
        [second | {"all_yes": False}],  # as the judge
        [second | {"all_yes": True}],
        [second | {"all_yes": True}, second | {"all_yes": None}],  # the third gave no verdict
        [second | {"all_yes": None}],
    ]
    rows = [row | {"panel": panel} for row, panel in zip(verdicts, panels, strict=True)]
    put(lake, "judged/chart", JUDGED, rows, SOURCE)
    index = build_index(lake, tmp_path)
    agreement = {row["judged_id"]: row["judges_agree"] for row in index.read_rows(index.select(PairFilter()).ordinals)}
    assert [agreement[row["judged_id"]] for row in verdicts] == [True, False, True, None]
    page = read_page(index, int(index.select(PairFilter()).ordinals[0]), {})
    assert [judge["model"] for judge in page.judges][:2] == ["judge", "second"]


@pytest.mark.parametrize(
    "condition",
    [
        "1 = 1) OR (1 = 1",
        "true; DROP TABLE pairs",
        "p_yes > (SELECT count(*) FROM read_text('/etc/passwd'))",
        "EXISTS (SELECT 1 FROM 'pairs.parquet')",
        "source = getenv('HOME')",
        "nothing = 1",
        "(SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range * b.range = 7) > 0",
    ],
)
def test_a_condition_reads_no_files_and_ends(index: PairIndex, condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvl_assets.lake_queries.pair_index.index.TIMEOUT_S", 0.5)
    with pytest.raises(ConditionError):
        index.select(PairFilter(condition=condition))
    assert len(index.select(PairFilter())) == 4


def test_words_are_searched_in_the_texts_of_rewrites(index: PairIndex) -> None:
    assert search_rewrites(index, ["FIRST", "is 5"]).tolist() == [2]
    assert search_rewrites(index, ["first"], ["ocr"]).tolist() == []
    assert search_rewrites(index, ["' OR true --"]).tolist() == []


def test_scores_of_others_and_criteria_are_number_columns(index: PairIndex) -> None:
    assert {"p_yes_correct", "ratings.relevance", "sharpness"} <= set(index.number_columns)
    assert "ratings.topic" not in index.number_columns
    assert list_answers(index, PairFilter(ranges={"ratings.relevance": (4, None)})) == ["3."]
    assert list_answers(index, PairFilter(condition="ratings.topic = 'maps' AND p_yes_correct < 0.5")) == ["3."]
    assert list_answers(index, PairFilter(sort="p_yes_correct", is_descending=True))[:2] == ["1.", "5."]
    for wrong in (PairFilter(ranges={"ratings.nothing": (1, 2)}), PairFilter(sort="nothing")):
        with pytest.raises(ConditionError, match="no column"):
            index.select(wrong)
    with pytest.raises(ValueError, match="no such column"):
        PairFilter(sort="p_yes; DROP TABLE pairs")


def test_rewrites_without_verdicts_are_listed(tmp_path: Path) -> None:
    lake = fill_judged_lake(tmp_path / "lake")
    lake.get_table("judged/chart").delete("drop_reason IS NOT NULL")
    versions = read_table_versions(lake)
    build_pair_index(lake, versions, 0, tmp_path / "pairs.duckdb")
    index = PairIndex(lake, tmp_path / "pairs.duckdb")
    assert list_answers(index, PairFilter()) == ["1.", "5.", "3.", "7."]
    unjudged = PairFilter(values={"agreement": ("not judged",)})
    assert list_answers(index, unjudged) == ["3.", "7."]
    (row, _) = index.read_rows(index.select(unjudged).ordinals.tolist())
    assert (row["judged_id"], row["keep"], row["source"]) == (row["rewrite_id"], None, SOURCE)
    page = read_page(index, row["ordinal"], {})
    assert (page.card.state, page.card.outcome, page.judges[0]["verdicts"]) == ("unjudged", "not judged", [])
