"""Items of benchmarks: found by image and words, scored once, and never trained on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import pytest

from mvl_assets.config.benchmarks import BenchmarkItems
from mvl_assets.config.contamination_rules import ContaminationRules
from mvl_assets.curation import benchmark_matches
from mvl_assets.curation.contamination import ContaminationReport, find_contamination
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import LABELS
from tests.curation.sources import source
from tests.curation.stored_images import ANSWER, QUESTION, put_row
from tests.lake.rows import table_of
from tests.media.image_copies import COPIES, draw_form, draw_waves, encode

LONG_QUESTION = (
    "A lighthouse keeper rows from the northern pier to the old harbour at five knots against a current of two knots"
    " and returns within the same afternoon. How many nautical miles lie between the pier and the harbour?"
)
PHOTO, FORM = draw_waves(), draw_form("Ada Lovelace")


def items(name: str = "exam", **fields: Any) -> BenchmarkItems:
    defaults = {"slug": f"benchmark_{name}", "title": name, "modality": "single_image", "format": None}
    return BenchmarkItems.model_validate(defaults | {"tasks": {name: "*"}} | fields)


def search(
    lake: Lake, *slugs: str, of: Mapping[str, BenchmarkItems] | None = None, **fields: Any
) -> ContaminationReport:
    rules = ContaminationRules.model_validate(fields)
    benchmarks = of or {"benchmark_exam": items()}
    return find_contamination(
        lake, [source(s) for s in slugs], holdout_fraction=0, run_id="run", rules=rules, benchmarks=benchmarks
    )


def hits(lake: Lake) -> dict[str, str]:
    """Kind of hit by source."""
    return {row["source"]: row["kind"] for row in lake.get_table("curation/contamination").iter_rows()}


def test_copy_of_an_image_with_the_question_of_an_item_is_the_strongest_hit(lake: Lake) -> None:
    put_row(lake, "benchmark_exam", encode(PHOTO), question=QUESTION, answer=ANSWER)
    for name, copy in COPIES.items():
        put_row(lake, name, copy(PHOTO), question=f"<image>\nPlease tell me: {QUESTION}", answer="something else")
    search(lake, *COPIES)
    assert hits(lake) == dict.fromkeys(COPIES, "same_image_same_question")


def test_image_with_another_question_and_another_image_with_the_question(lake: Lake) -> None:
    put_row(lake, "benchmark_exam", encode(FORM), question=QUESTION, answer=ANSWER)
    put_row(lake, "other_question", encode(FORM), question="Which colour has the frame?", answer="grey")
    put_row(lake, "other_line", encode(FORM), question=QUESTION.replace("second", "third"), answer="Bob")
    put_row(lake, "other_image", encode(draw_form("Bob Lovelace")), question=QUESTION, answer=ANSWER)
    report = search(lake, "other_question", "other_line", "other_image")
    assert hits(lake) == dict.fromkeys(["other_question", "other_line"], "same_image")
    assert report.counts.benchmarks == {("exam", "same_image"): 1}
    assert report.counts.n_removed == 0


def test_one_turn_of_many_and_one_image_of_many_are_enough(lake: Lake) -> None:
    put_row(lake, "benchmark_exam", encode(PHOTO), question=QUESTION, answer=ANSWER)
    turns = [("human", "What is it?"), ("gpt", "A letter."), ("human", QUESTION), ("gpt", ANSWER)]
    conversations = [{"from": role, "value": text} for role, text in turns]
    put_row(lake, "a", encode(FORM), encode(PHOTO), conversations=conversations)
    search(lake, "a")
    assert hits(lake) == {"a": "same_image_same_question"}


def test_long_question_is_found_in_text_alone_and_under_another_image(lake: Lake) -> None:
    put_row(lake, "benchmark_exam", encode(PHOTO), question=LONG_QUESTION, answer="7 miles")
    put_row(lake, "benchmark_exam", encode(PHOTO), question=QUESTION, answer=ANSWER, number=1)
    put_row(lake, "text", question=f"Solve this. {LONG_QUESTION} Think first.", answer="It is 7 miles.")
    put_row(lake, "image", encode(FORM), question=LONG_QUESTION.upper(), answer="7 miles")
    put_row(lake, "no_answer", question=LONG_QUESTION, answer="nobody knows")
    half = " ".join(LONG_QUESTION.split()[:24])
    put_row(lake, "half", question=f"{half} and then?", answer="7 miles")
    put_row(lake, "short", question=QUESTION, answer=ANSWER)
    search(lake, "text", "image", "no_answer", "half", "short")
    assert hits(lake) == dict.fromkeys(["text", "image", "no_answer"], "same_question")
    stored = {row["n_tokens"]: row["ngram_overlap"] for row in lake.get_table("curation/contamination").iter_rows()}
    assert stored == {38: pytest.approx(1.0)}


def test_threshold_moves_without_matching_anything_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    put_row(lake, "benchmark_exam", encode(PHOTO), question=QUESTION, answer=ANSWER)
    put_row(lake, "a", encode(PHOTO), question="What is in the letter's second line at the top?", answer=ANSWER)
    search(lake, "a", min_question_containment=1)
    assert hits(lake) == {"a": "same_image"}
    monkeypatch.setattr(benchmark_matches, "compare_questions", lambda *_: pytest.fail("compared again"))
    report = search(lake, "a", min_question_containment=0.5, min_question_overlap=0.3)
    assert hits(lake) == {"a": "same_image_same_question"}
    assert report.matched.n_contents == 0


def test_only_new_rows_and_new_benchmarks_are_matched(lake: Lake) -> None:
    of = {f"benchmark_{name}": items(name) for name in ("exam", "quiz")}
    put_row(lake, "benchmark_exam", encode(PHOTO), question=QUESTION, answer=ANSWER)
    put_row(lake, "a", encode(PHOTO), question=QUESTION, answer=ANSWER)
    assert search(lake, "a", of=of).matched.n_contents == 1
    assert search(lake, "a", of=of).matched.n_contents == 0
    put_row(lake, "a", encode(FORM), question=QUESTION, answer=ANSWER, number=1)
    assert search(lake, "a", of=of).matched.n_contents == 1
    put_row(lake, "benchmark_quiz", encode(FORM), question=QUESTION, answer=ANSWER)
    report = search(lake, "a", of=of)
    assert report.matched.n_contents == 2
    assert (report.matched.n_image_matches, report.matched.n_text_matches) == (1, 0)
    rows = lake.get_table("curation/contamination").iter_rows()
    assert sorted(row["benchmark"] for row in rows) == ["exam", "quiz"]
    assert not search(lake, "a", of=of).published.changed_anything


def test_changed_item_is_matched_again_and_its_old_matches_do_not_count(lake: Lake) -> None:
    put_row(lake, "benchmark_exam", encode(PHOTO), question=QUESTION, answer=ANSWER)
    put_row(lake, "a", encode(PHOTO), question=QUESTION, answer=ANSWER)
    search(lake, "a")
    put_row(lake, "benchmark_exam", encode(FORM), question=QUESTION, answer=ANSWER, revision=2)
    report = search(lake, "a")
    assert report.matched.n_contents == 1
    assert hits(lake) == {}
    assert lake.get_table("curation/benchmark_matches").count() == 0


def test_killed_run_goes_on_and_ends_with_the_same_rows(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    put_row(lake, "benchmark_exam", encode(PHOTO), question=LONG_QUESTION, answer="7 miles")
    for number, (name, copy) in enumerate(COPIES.items()):
        put_row(lake, "a", copy(PHOTO), question=LONG_QUESTION, answer=name, number=number)
    with monkeypatch.context() as patched:
        patched.setattr(benchmark_matches, "_record_waves", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            search(lake, "a")
    n_stored = lake.get_table("curation/benchmark_matches").count()
    assert n_stored == 2 * len(COPIES)
    assert search(lake, "a").matched.n_contents == len(COPIES)
    assert lake.get_table("curation/benchmark_matches").count() == n_stored
    assert lake.get_table("curation/contamination").count() == len(COPIES)


@pytest.mark.parametrize("key", ["a", "exam", "a:exam"])
def test_allowed_hit_is_counted_and_removes_nothing(lake: Lake, key: str) -> None:
    put_row(lake, "benchmark_exam", encode(PHOTO), question=QUESTION, answer=ANSWER)
    put_row(lake, "a", encode(PHOTO), question=QUESTION, answer=ANSWER)
    assert search(lake, "a").counts.n_removed == 1
    counts = search(lake, "a", allow={key: "their training split"}).counts
    assert (counts.n_rows, counts.n_removed, counts.n_allowed) == (1, 0, 1)
    (row,) = lake.get_table("curation/contamination").iter_rows()
    assert (row["removed"], row["allowed"]) == (False, "their training split")


def test_hits_of_pairs_that_people_call_good_are_allowed_where_the_profile_says_so(lake: Lake) -> None:
    put_row(lake, "benchmark_exam", encode(PHOTO), question=QUESTION, answer=ANSWER)
    sample_id = put_row(lake, "a", encode(PHOTO), question=QUESTION, answer=ANSWER)["sample_id"]

    def give(number: int, label: str | None, annotator: str) -> None:
        moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=number)
        row = {"label_id": f"{number:032x}", "rewrite_id": "1" * 32, "sample_id": sample_id, "source": "a"}
        row |= {"annotator": annotator, "label": label, "created_at": moment}
        table = lake.get_table(LABELS.name)
        table.append_fragments([table.write_fragments([table_of(LABELS, [row])], "a")])

    give(1, "bad", "ben")
    give(2, "good", "anna")
    assert search(lake, "a", allow_labelled=True).counts.n_removed == 1
    give(3, None, "ben")
    assert search(lake, "a").counts.n_removed == 1
    assert search(lake, "a", allow_labelled=True).counts.n_removed == 0
    (row,) = lake.get_table("curation/contamination").iter_rows()
    assert row["allowed"] == "labelled good by anna"


def test_unpublished_answer_is_no_evidence(lake: Lake) -> None:
    put_row(lake, "benchmark_exam", question=LONG_QUESTION, answer="7 miles")
    put_row(lake, "a", question=LONG_QUESTION, answer="7 miles")
    search(lake, "a", of={"benchmark_exam": items(has_answers=False)})
    (row,) = lake.get_table("curation/contamination").iter_rows()
    assert row["answer_overlap"] is None


def test_questions_of_a_task_are_the_rows_of_its_files_in_order(lake: Lake) -> None:
    for number, (file, position) in enumerate([("b-2.parquet", 0), ("b-1.parquet", 0), ("b-1.parquet", 2)]):
        put_row(lake, "benchmark_exam", question=f"{number}", answer="!", number=number, file=file, position=position)
    put_row(lake, "a", question="?", answer="!")
    search(lake, "a", of={"benchmark_exam": items(tasks={"second": "b-*", "none": "c-*"})})
    rows = {(row["task"], row["doc_id"]): row for row in lake.get_table("curation/benchmark_items").iter_rows()}
    assert sorted(rows) == [("second", 0), ("second", 2), ("second", 3)]
