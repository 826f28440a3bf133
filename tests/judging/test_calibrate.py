"""The judge against labels: reading them, the figures, and the suggested threshold."""

from __future__ import annotations

import csv
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from mvl_assets.common.digest import compute_digest
from mvl_assets.errors import MvlError
from mvl_assets.judging.calibrate import calibrate, suggest_threshold
from mvl_assets.judging.kappa import Confusion
from mvl_assets.judging.labels import SHEET_COLUMNS, Label, draw_label_set, read_labels, write_label_sheet
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import JUDGED, REWRITTEN, SAMPLES
from mvl_assets.lake.schemas.rows import ImageRow
from tests.rewriting.small_source import make_image

PAPER_PEOPLE = {("A", "B"): 0.70, ("A", "C"): 0.42, ("B", "C"): 0.53}


def judged(lake: Lake, category: str, rows: list[tuple[bool, float | None]]) -> list[str]:
    """Puts rows of (all_yes, P(yes)) into `judged/<category>` and returns their rewrite ids."""
    ids = [compute_digest(category, n) for n in range(len(rows))]
    listed = [
        {
            "judged_id": compute_digest("judged", key),
            "rewrite_id": key,
            "category": category,
            "source": "drawn",
            "all_yes": yes,
            "p_yes": p,
        }
        for key, (yes, p) in zip(ids, rows, strict=True)
    ]
    lake.get_table(f"judged/{category}").publish([pa.Table.from_pylist(listed, schema=JUDGED.columns)], "drawn")
    return ids


def sheet(folder: Path, *rows: str, header: str = "rewrite_id,label,annotator") -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


# -- labels ------------------------------------------------------------------------------------------------------------


def test_labels_are_words_a_person_would_use(tmp_path: Path):
    result = read_labels(sheet(tmp_path, "a,Good,ann", "b,NO,ann", "c,,ann", "d, 1 ,", "a,bad,bob"))
    assert result.n_unlabelled == 1
    assert result.labels == [
        Label("a", "ann", True),
        Label("b", "ann", False),
        Label("d", "unknown", True),
        Label("a", "bob", False),
    ]


def test_a_sheet_saved_by_a_spreadsheet_with_other_columns_is_read(tmp_path: Path):
    path = tmp_path / "labels.csv"
    path.write_bytes('\ufeffjudged_id,question,label\r\nx,"two\r\nlines",bad\r\n'.encode())
    assert read_labels(path).labels == [Label("x", "unknown", False)]


@pytest.mark.parametrize(
    ("header", "rows", "problem"),
    [
        ("rewrite_id,label", ["a,maybe"], r"labels.csv:2: label 'maybe'"),
        ("id,label", ["a,good"], "needs the columns rewrite_id"),
        ("rewrite_id", ["a"], "needs the columns"),
        ("rewrite_id,label,annotator", ["a,good,ann", "a,bad,ann"], "ann labels a both good and bad"),
    ],
)
def test_a_wrong_sheet_is_explained(tmp_path: Path, header: str, rows: list[str], problem: str):
    with pytest.raises(MvlError, match=problem):
        read_labels(sheet(tmp_path, *rows, header=header))


# -- agreement ---------------------------------------------------------------------------------------------------------


def test_model_against_people_and_by_category(lake: Lake):
    chart = judged(lake, "chart", [(True, 0.9), (True, 0.8), (False, 0.2)])
    ocr = judged(lake, "ocr", [(False, 0.1), (False, 0.3)])
    labels = [Label(k, "ann", g) for k, g in zip([*chart, *ocr], [True, False, False, False, True], strict=True)]
    result = calibrate(lake, [*labels, Label("0" * 32, "ann", True)])
    assert (result.n_pairs, result.n_unmatched_labels, result.n_tied) == (5, 1, 0)
    assert result.judge_vs_majority == Confusion(both_yes=1, first_only=1, second_only=1, both_no=2)
    assert result.by_category == {"chart": Confusion(1, 1, 0, 1), "ocr": Confusion(0, 0, 1, 1)}
    assert (result.between_annotators, result.leave_one_out_kappa) == ({}, None)
    # By the id of the verdict it is the same.
    by_verdict = [Label(compute_digest("judged", label.row_id), "ann", label.is_good) for label in labels]
    assert calibrate(lake, by_verdict).judge_vs_majority == result.judge_vs_majority


def test_several_annotators_are_compared_as_in_the_paper(lake: Lake):
    ids = judged(lake, "chart", [(n % 2 == 0, 0.5) for n in range(40)])
    rng = Random(7)
    labels = [
        Label(key, who, (n % 2 == 0) != (rng.random() < wrong))
        for who, wrong in {"A": 0.1, "B": 0.2, "C": 0.3}.items()
        for n, key in enumerate(ids)
    ]
    result = calibrate(lake, labels)
    assert list(result.between_annotators) == list(PAPER_PEOPLE)
    kappa = {name: one.kappa for name, one in {**result.judge_vs_annotator, **result.between_annotators}.items()}
    groups = [
        [kappa["B"], kappa["C"], kappa["B", "C"]],
        [kappa["A"], kappa["C"], kappa["A", "C"]],
        [kappa["A"], kappa["B"], kappa["A", "B"]],
    ]
    assert result.leave_one_out_kappa == pytest.approx(sum(sum(group) / 3 for group in groups) / 3)
    # The paper's own figures give its own result in this way.
    paper = {"A": 0.73, "B": 0.70, "C": 0.63}
    three = [paper[a] + paper[b] + PAPER_PEOPLE[a, b] for a, b in PAPER_PEOPLE]
    assert sum(three) / 9 == pytest.approx(0.64, abs=0.005)


def test_a_pair_without_a_majority_is_left_out(lake: Lake):
    ids = judged(lake, "chart", [(True, 0.9), (False, 0.1)])
    labels = [Label(ids[0], "ann", True), Label(ids[0], "bob", False), Label(ids[1], "ann", False)]
    result = calibrate(lake, labels)
    assert (result.n_pairs, result.n_tied, result.judge_vs_majority.n) == (2, 1, 1)


def test_labels_of_another_lake_are_refused(lake: Lake):
    judged(lake, "chart", [(True, 0.9)])
    with pytest.raises(MvlError, match="none of the labelled rows is judged"):
        calibrate(lake, [Label("0" * 32, "ann", True)])


# -- the threshold -----------------------------------------------------------------------------------------------------


def test_the_suggested_threshold_separates_answers_labelled_bad_and_good():
    scored = [(0.1, False), (0.2, False), (0.3, False), (0.62, True), (0.7, True), (0.9, True)] * 5
    result = suggest_threshold(scored, min_keep_rate=0.1)
    assert result is not None
    assert result.value == pytest.approx(0.46)
    assert (result.in_sample.kappa, result.keep_rate) == (1.0, 0.5)
    assert result.cross_validated.kappa == 1.0


def test_a_suggested_threshold_keeps_at_least_the_minimum_keep_rate():
    # Only the surest tenth is good: without a bound the threshold would keep just that.
    scored = [(n / 100, n >= 90) for n in range(100)]
    assert suggest_threshold(scored, min_keep_rate=0.05).keep_rate == 0.1
    assert suggest_threshold(scored, min_keep_rate=0.5).keep_rate == 0.5


def test_without_two_kinds_of_labels_or_probabilities_there_is_nothing_to_suggest():
    assert suggest_threshold([(0.1, True), (0.9, True)], 0.1) is None
    assert suggest_threshold([(0.5, True), (0.5, False)], 0.1) is None
    assert suggest_threshold([], 0.1) is None


def test_a_threshold_fitted_to_noise_shows_that_on_labels_it_has_not_seen():
    rng = Random(3)
    result = suggest_threshold([(rng.random(), rng.random() < 0.5) for _ in range(60)], 0.1)
    assert result.in_sample.kappa > 0.1
    assert result.cross_validated.kappa < result.in_sample.kappa


# -- the sheet ---------------------------------------------------------------------------------------------------------


def rewritten(lake: Lake, category: str, count: int, question: str = "How many?") -> None:
    """Judged and rewritten rows of one category, each with a picture."""
    ids = judged(lake, category, [(True, 0.9)] * count)
    shown: ImageRow = make_image(len(category))
    lake.get_images("drawn").insert([shown])
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": "=1+1"}]
    rows = [
        {
            "rewrite_id": key,
            "version_id": compute_digest("v", key),
            "source": "drawn",
            "category": category,
            "conversations": turns,
        }
        for key in ids
    ]
    lake.get_table(f"rewritten/{category}").publish([pa.Table.from_pylist(rows, schema=REWRITTEN.columns)], "drawn")
    samples = [
        {"version_id": compute_digest("v", key), "sample_id": key, "source": "drawn", "image_ids": [shown.image_id]}
        for key in ids
    ]
    lake.get_table("samples").insert(pa.Table.from_pylist(samples, schema=SAMPLES.columns))


def read(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_sheet_has_as_many_of_each_category_and_says_nothing_of_the_verdict(lake: Lake, tmp_path: Path):
    for category, count in {"chart": 20, "ocr": 20, "caption": 3}.items():
        rewritten(lake, category, count)
    chosen = draw_label_set(lake, 12)
    assert {r["rewrite_id"] for r in draw_label_set(lake, 6)} <= {r["rewrite_id"] for r in chosen}
    assert {r["rewrite_id"] for r in draw_label_set(lake, 12, seed=1)} != {r["rewrite_id"] for r in chosen}
    path = tmp_path / "labels.csv"
    assert write_label_sheet(lake, chosen, path) == 12
    rows = read(path)
    assert tuple(rows[0]) == SHEET_COLUMNS
    counts = {c: sum(r["category"] == c for r in rows) for c in ("chart", "ocr", "caption")}
    assert counts == {"chart": 5, "ocr": 4, "caption": 3} or counts == {"chart": 4, "ocr": 5, "caption": 3}
    assert {(r["question"], r["label"]) for r in rows} == {("How many?", "")}
    assert all((tmp_path / r["images"]).read_bytes().startswith(b"\x89PNG") for r in rows)
    # What is in the sheet can be calibrated as it is.
    path.write_text(path.read_text(encoding="utf-8").replace("'=1+1,,", "'=1+1,good,"), encoding="utf-8")
    assert calibrate(lake, read_labels(path).labels).judge_vs_majority == Confusion(both_yes=12)


def test_a_spreadsheet_takes_no_answer_for_a_formula(lake: Lake, tmp_path: Path):
    rewritten(lake, "chart", 1, question="@SUM(A1)")
    write_label_sheet(lake, draw_label_set(lake, 1), tmp_path / "labels.csv")
    (row,) = read(tmp_path / "labels.csv")
    assert (row["question"], row["answer"]) == ("'@SUM(A1)", "'=1+1")


def test_a_sheet_with_somebodys_work_is_never_overwritten(lake: Lake, tmp_path: Path):
    rewritten(lake, "chart", 1)
    path = tmp_path / "labels.csv"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(MvlError, match="may hold labels"):
        write_label_sheet(lake, draw_label_set(lake, 1), path)
    assert path.read_text(encoding="utf-8") == "mine"
