"""Scores that others gave rows: joined by id, counted where they are missing, named by filters of mixtures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mvl_assets.config.score_file import ScoreFile
from mvl_assets.curation.foreign_scores import join_scores
from mvl_assets.curation.mixing import build_mixture, plan_mixtures
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.removal.purge_scope import PurgeScope
from tests.curation.mixture_profile import profile
from tests.lake.rows import put_category

RELEVANCE = {"relevance": "number"}


def write(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def read_scores(lake: Lake, name: str = "ratings") -> dict[str, dict[str, Any]]:
    """Return the values by sample id and name of the score."""
    return {
        row["sample_id"]: {
            score["name"]: next((score[t] for t in ("number", "text", "boolean") if score[t] is not None), None)
            for score in row["scores"]
        }
        for row in lake.get_table(f"scores/{name}").iter_rows()
    }


def test_scores_join_by_sample_id_and_what_is_missing_is_counted(lake: Lake, tmp_path: Path) -> None:
    first, second, third = put_category(lake, "ocr", "a", 3)
    put_category(lake, "ocr", "b", 2)
    path = write(
        tmp_path / "ratings.parquet",
        id=[first["sample_id"].upper(), second["sample_id"], "f" * 32, None],
        relevance=[3, 4, 5, 1],
        topic=["maps", None, "x", "y"],
        good=[True, False, None, None],
    )
    spec = ScoreFile(path=str(path), key="id", columns={**RELEVANCE, "topic": "text", "good": "boolean"})
    report = join_scores(lake, "ratings", spec, run_id="run")
    assert (report.n_rows, report.n_without_id, report.n_unknown, report.example) == (4, 1, 1, "f" * 32)
    assert [(s.source, s.n_scored, s.n_unscored) for s in report.sources] == [("a", 2, 1)]
    assert read_scores(lake) == {
        first["sample_id"]: {"relevance": 3.0, "topic": "maps", "good": True},
        second["sample_id"]: {"relevance": 4.0, "topic": None, "good": False},
    }
    assert third["sample_id"] not in read_scores(lake)
    assert join_scores(lake, "ratings", spec, run_id="again").published.data_version == report.published.data_version


def test_scores_join_by_the_ids_of_a_source_and_by_its_rows(lake: Lake, tmp_path: Path) -> None:
    rows = put_category(lake, "ocr", "a", 3)
    put_category(lake, "ocr", "b", 3)
    by_id = write(tmp_path / "ids.parquet", row=[2, 0], relevance=[float("nan"), 1.5])
    join_scores(lake, "ratings", ScoreFile(path=str(by_id), key="row", source="a", columns=RELEVANCE), run_id="run")
    assert read_scores(lake) == {rows[2]["sample_id"]: {"relevance": None}, rows[0]["sample_id"]: {"relevance": 1.5}}

    write(tmp_path / "beside" / "rows.json.parquet", relevance=[9.0])
    lake.get_table("samples").delete("source = 'c'")
    put_category(lake, "ocr", "c", 0)
    with pytest.raises(MvlError, match="none of the 1 rows"):
        join_scores(
            lake,
            "ratings",
            ScoreFile(path=str(tmp_path / "beside"), key=None, source="a", columns=RELEVANCE),
            run_id="run",
        )
    (tmp_path / "beside" / "rows.json.parquet").rename(tmp_path / "beside" / "rows.json")
    report = join_scores(
        lake,
        "ratings",
        ScoreFile(path=str(tmp_path / "beside" / "*.json"), key=None, source="a", columns=RELEVANCE),
        run_id="run",
    )
    assert (report.published.n_rows, read_scores(lake)) == (1, {rows[0]["sample_id"]: {"relevance": 9.0}})


@pytest.mark.parametrize(
    ("columns", "spec", "problem"),
    [
        ({"sample_id": ["1"], "score": [1]}, {}, "has no column 'relevance'"),
        ({"id": ["1"], "relevance": [1]}, {}, "has no column 'sample_id'"),
        ({"sample_id": ["1"], "relevance": ["high"]}, {}, "'relevance' is text, and no number"),
        ({"sample_id": ["1"], "relevance": [[1, 2]]}, {}, "is list<element: int64>, and no number"),
        ({"sample_id": [1.5], "relevance": [1]}, {}, "the key 'sample_id' is double"),
        ({"sample_id": ["1"], "relevance": [1]}, {}, "none of the 1 rows of"),
        ({"sample_id": ["1", "1"], "relevance": [1, 2]}, {}, "1 ids are there twice with different scores, such as 1"),
        ({"sample_id": ["1"], "relevance": [1]}, {"path": "nowhere.parquet"}, "there is no file"),
    ],
)
def test_a_wrong_file_is_one_clear_error(
    lake: Lake, tmp_path: Path, columns: dict[str, Any], spec: dict[str, Any], problem: str
) -> None:
    put_category(lake, "ocr", "a", 1)
    path = write(tmp_path / "ratings.parquet", **columns)
    with pytest.raises(MvlError) as caught:
        join_scores(lake, "ratings", ScoreFile(**{"path": str(path), "columns": RELEVANCE} | spec), run_id="run")
    assert problem in caught.value.message
    assert caught.value.message.startswith("scores: ratings: ")
    assert caught.value.hint
    assert not lake.get_table("scores/ratings").exists()


def test_what_is_no_parquet_is_one_clear_error(lake: Lake, tmp_path: Path) -> None:
    put_category(lake, "ocr", "a", 1)
    path = tmp_path / "ratings.parquet"
    path.write_bytes(b"sample_id,relevance\n1,2\n")
    with pytest.raises(MvlError, match="cannot be read as Parquet"):
        join_scores(lake, "ratings", ScoreFile(path=str(path), columns=RELEVANCE), run_id="run")


def test_a_filter_names_scores_of_others(lake: Lake, tmp_path: Path) -> None:
    rows = put_category(lake, "ocr", "a", 6)
    ids = [row["sample_id"] for row in rows]
    path = write(tmp_path / "ratings.parquet", sample_id=ids[:4], relevance=[1, 2, 3, 4])
    spec = {"path": str(path), "columns": RELEVANCE}
    filtered = profile(single_image=10).model_copy(
        update={"scores": {"ratings": ScoreFile.model_validate(spec)}, "where": "ratings.relevance >= 3"}
    )
    with pytest.raises(MvlError, match="no table scores/ratings"):
        plan_mixtures(lake, filtered, ["single_image"])
    join_scores(lake, "ratings", filtered.scores["ratings"], run_id="run")
    (plan,) = plan_mixtures(lake, filtered, ["single_image"])
    (clause,) = plan.clauses
    assert (clause.clause, clause.refused, clause.unknown, clause.rows) == ("ratings.relevance >= 3", 2, 2, 6)
    build_mixture(lake, filtered, "single_image", run_id="run")
    assert {row["sample_id"] for row in lake.get_table("mixture/single_image").iter_rows()} == set(ids[2:])


def test_purging_a_source_takes_its_scores(lake: Lake) -> None:
    lake.get_table("scores/ratings").create()
    assert PurgeScope(lake, "a").delete_filters["scores/ratings"] == "`source` = 'a'"


def test_scores_with_names_that_no_condition_can_say_are_refused() -> None:
    base = profile().model_dump()
    for name, problem in {"p_yes": "is taken", "fine-vision": "is no word"}.items():
        with pytest.raises(ValueError, match=problem):
            type(profile()).model_validate(base | {"scores": {name: {"path": "x", "columns": RELEVANCE}}})
    with pytest.raises(ValueError, match="name the source"):
        ScoreFile(path="x", key=None, columns=RELEVANCE)
