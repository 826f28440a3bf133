"""Near duplicates: verified by pixels and words, each in favour of one that stays, and never compared twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvl_assets.config.duplicate_rules import DuplicateRules
from mvl_assets.config.profile import load_profile
from mvl_assets.curation import near_duplicates
from mvl_assets.curation.duplicates import DuplicateReport, find_duplicates, list_emptied_sources
from mvl_assets.curation.near_duplicates import TextLookup
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import SAMPLES
from mvl_assets.lake_queries import near_duplicates as near_duplicates_of_lake
from mvl_assets.lake_queries.duplicates import choose_representatives
from tests.curation.sources import source
from tests.curation.stored_images import QUESTION, put_row
from tests.lake.rows import put_samples, sample, table_of
from tests.media.image_copies import COPIES, draw_form, draw_waves, encode

RULES = DuplicateRules()
LONG_TEXT = (
    "The river rises in the western hills, crosses four counties and joins the sea near an old harbour town "
    "whose lighthouse still guides fishing boats home every night of the year"
)


def search(lake: Lake, *slugs: str, rules: DuplicateRules = RULES, **groups: str) -> DuplicateReport:
    fields = {slug: {"group": groups[slug], "reason": "noisy"} if slug in groups else {} for slug in slugs}
    return find_duplicates(lake, [source(slug, **fields[slug]) for slug in slugs], run_id="run", rules=rules)


def dropped(lake: Lake) -> dict[str, tuple[str, str]]:
    """Source that stays and the rule, by source that is dropped."""
    rows = lake.get_table("curation/duplicates").iter_rows()
    return {row["source"]: (row["canonical_source"], row["rule"]) for row in rows}


PHOTO, FORM = draw_waves(), draw_form("Ada Lovelace")
_COPIES_OF_PHOTO = [COPIES[name](PHOTO) for name in ("halved", "grey")]


def test_copies_of_an_image_with_the_same_words_are_duplicates(lake: Lake) -> None:
    put_row(lake, "a", encode(PHOTO))
    for name, copy in COPIES.items():
        put_row(lake, name, copy(PHOTO))
    search(lake, "a", *COPIES)
    assert dropped(lake) == dict.fromkeys(COPIES, ("a", "copied_images"))


def test_same_image_is_a_duplicate_only_with_the_same_question_and_answer(lake: Lake) -> None:
    rows = {
        "a": {},
        "reworded": {"question": f"<image>\nPlease look at the image and tell me: {QUESTION} Answer in one word."},
        "markup": {"answer": "**Ada** Lovelace"},
        "other_line": {"question": "What is written in the third line of the letter?"},
        "other_question": {"question": "Who wrote it?"},
        "other_answer": {"answer": "Grace Hopper"},
    }
    for slug, said in rows.items():
        put_row(lake, slug, encode(PHOTO), **said)
    report = search(lake, *rows)
    assert dropped(lake) == dict.fromkeys(["reworded", "markup"], ("a", "similar_text"))
    counts = {s.source: s.n_other_question for s in report.sources if s.n_other_question}
    assert counts == dict.fromkeys(["a", "other_line", "other_question", "other_answer"], 1)


def test_similar_image_that_is_no_copy_is_not_a_duplicate(lake: Lake) -> None:
    put_row(lake, "a", encode(FORM))
    put_row(lake, "b", encode(draw_form("Bob Lovelace")))
    report = search(lake, "a", "b")
    assert report.near is not None
    assert report.near.n_image_candidates == 1
    assert dropped(lake) == {}


def test_options_may_be_shuffled(lake: Lake) -> None:
    put_row(lake, "a", encode(PHOTO), question="Which animal is it?\n(A) cat\n(B) dog\n(C) fox", answer="B")
    put_row(lake, "b", encode(PHOTO), question="Which animal is it?\nA. fox\nB. cat\nC. dog", answer="C")
    put_row(lake, "c", encode(PHOTO), question="Which animal is it?\nA. fox\nB. cat\nC. dog", answer="B")
    search(lake, "a", "b", "c")
    assert dropped(lake) == {"b": ("a", "similar_text")}


def test_several_images_are_compared_one_to_one_in_order(lake: Lake) -> None:
    images = [draw_waves(seed) for seed in range(3)]
    put_row(lake, "a", encode(images[0]), encode(images[1]))
    for slug, numbers in {"same": (0, 1), "swapped": (1, 0), "fewer": (0,), "other": (0, 2)}.items():
        put_row(lake, slug, *(COPIES["reencoded"](images[n]) for n in numbers))
    search(lake, "a", "same", "swapped", "fewer", "other")
    assert dropped(lake) == {"same": ("a", "copied_images")}


def test_texts_without_images_are_compared_too(lake: Lake) -> None:
    put_row(lake, "a", question=LONG_TEXT, answer="It takes 4 hours")
    put_row(lake, "b", question=f"Please answer: {LONG_TEXT}", answer="**It takes 4 hours**")
    put_row(lake, "c", question=LONG_TEXT, answer="It takes 5 hours")
    search(lake, "a", "b", "c")
    assert dropped(lake) == {"b": ("a", "similar_text")}


def test_row_of_group_c_never_displaces_one_that_mixtures_take(lake: Lake) -> None:
    put_row(lake, "c", encode(PHOTO))
    put_row(lake, "a", COPIES["halved"](PHOTO))
    search(lake, "c", "a", c="C")
    assert dropped(lake) == {"c": ("a", "copied_images")}


def test_row_that_was_compared_stays_when_an_earlier_source_brings_a_copy(lake: Lake) -> None:
    put_row(lake, "b", encode(PHOTO))
    search(lake, "a", "b")
    put_row(lake, "a", COPIES["halved"](PHOTO))
    for _ in range(2):
        search(lake, "a", "b")
        assert dropped(lake) == {"a": ("b", "copied_images")}


def test_only_new_rows_are_compared(lake: Lake) -> None:
    put_row(lake, "a", encode(PHOTO))
    put_row(lake, "b", COPIES["halved"](PHOTO))
    first = search(lake, "a", "b", "c")
    again = search(lake, "a", "b", "c")
    put_row(lake, "c", COPIES["grey"](PHOTO))
    third = search(lake, "a", "b", "c")
    assert [report.near and report.near.n_contents for report in (first, again, third)] == [2, 0, 1]
    assert third.near is not None
    assert third.near.n_image_candidates == 2
    assert not again.published.changed_anything
    assert dropped(lake) == {"b": ("a", "copied_images"), "c": ("a", "copied_images")}


def test_threshold_moves_without_comparing_again(lake: Lake) -> None:
    put_row(lake, "a", encode(PHOTO))
    put_row(lake, "b", COPIES["watermarked"](PHOTO))
    search(lake, "a", "b")
    strict = search(lake, "a", "b", rules=DuplicateRules(min_correlation=1.0))
    assert dropped(lake) == {}
    assert strict.near is not None
    assert strict.near.n_contents == 0
    search(lake, "a", "b")
    assert dropped(lake) == {"b": ("a", "copied_images")}


def test_killed_comparison_goes_on_and_ends_with_the_same_rows(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    put_row(lake, "a", encode(PHOTO))
    put_row(lake, "b", COPIES["halved"](PHOTO))
    with monkeypatch.context() as patch:
        patch.setattr(TextLookup, "verify", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            search(lake, "a", "b")
    assert lake.get_table("curation/image_pairs").count() == 1
    report = search(lake, "a", "b")
    assert report.near is not None
    assert (report.near.n_contents, report.near.n_image_candidates) == (2, 0)
    assert lake.get_table("curation/image_pairs").count() == 1
    assert dropped(lake) == {"b": ("a", "copied_images")}


def test_texts_that_processes_sketch_are_compared_as_those_of_one_are(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates_of_lake, "BATCH_ROWS", 2)
    for slug, text in (("a", LONG_TEXT), ("b", f"Please answer: {LONG_TEXT}"), ("c", LONG_TEXT[::-1])):
        put_samples(lake, slug, [sample(slug, 0, question=text)])
    tasks: list[int] = []

    class Counting(ProcessExecutor):
        def run(self, function: Any, contents: Any) -> Any:
            return super().run(function, (tasks.append(len(table)) or table for table in contents))

    monkeypatch.setattr(near_duplicates, "MIN_SHARED_CONTENTS", 3)
    sources = [source(slug) for slug in "abc"]
    report = find_duplicates(lake, sources, run_id="run", rules=RULES, executor=Counting(2))
    assert sorted(tasks) == [1, 2] and report.near is not None and report.near.n_contents == 3
    assert dropped(lake) == {"b": ("a", "similar_text")}


def test_without_rules_only_exact_duplicates_are_dropped(lake: Lake) -> None:
    put_row(lake, "a", encode(PHOTO))
    put_row(lake, "b", encode(PHOTO))
    put_row(lake, "c", COPIES["halved"](PHOTO))
    assert find_duplicates(lake, [source(slug) for slug in "abc"], run_id="run").near is None
    assert dropped(lake) == {"b": ("a", "exact")}


def test_paper_parity_looks_for_no_near_duplicates() -> None:
    profile = load_profile("demo")
    assert profile.near_duplicate_rules == profile.duplicates
    assert profile.model_copy(update={"paper_parity": True}).near_duplicate_rules is None
    no_near = profile.model_copy(update={"duplicates": DuplicateRules(near=False)})
    assert no_near.near_duplicate_rules is None


def test_image_that_is_gone_is_like_no_other(lake: Lake) -> None:
    put_row(lake, "a", encode(PHOTO))
    put_row(lake, "b", COPIES["halved"](PHOTO))
    lake.get_table("images").delete("source = 'a'")
    search(lake, "a", "b")
    assert dropped(lake) == {}


def test_source_that_loses_more_than_allowed_is_named(lake: Lake) -> None:
    put_samples(lake, "a", [sample("a", n, question=f"How many {n}?") for n in range(4)])
    put_samples(lake, "b", [sample("b", n, question=f"How many {n}?") for n in range(3)] + [sample("b", 9)])
    report = search(lake, "a", "b")
    assert [(s.source, s.removed_share) for s in list_emptied_sources(report, RULES)] == [("b", 0.75)]
    assert list_emptied_sources(report, DuplicateRules(allow_removed={"b": "a subset of a"})) == []
    assert list_emptied_sources(search(lake, "a", "b", b="C"), RULES) == []


def test_likeness_is_not_passed_on() -> None:
    """1 is like 2, 2 like 3, 3 like 4: 2 goes in favour of 1, and 4 of 3."""
    first, second, was_chosen = np.array([1, 2, 4]), np.array([2, 3, 3]), np.zeros(3, dtype=bool)
    dropped_priorities, kept, _ = choose_representatives(first, second, was_chosen, np.arange(3))
    assert dict(zip(dropped_priorities.tolist(), kept.tolist(), strict=True)) == {2: 1, 4: 3}


def test_blank_images_are_no_copies_of_each_other(lake: Lake) -> None:
    for slug, side in (("a", 90), ("b", 120)):
        put_row(lake, slug, encode(Image.new("RGB", (side, side), "white")))
    search(lake, "a", "b")
    assert dropped(lake) == {}


def test_pairs_of_rows_that_are_gone_are_pruned_and_a_row_that_returns_is_compared_again(lake: Lake) -> None:
    slugs = ["a", "b", "c"]
    rows = [put_row(lake, slug, copy) for slug, copy in zip(slugs, [encode(PHOTO), *_COPIES_OF_PHOTO], strict=True)]
    search(lake, *slugs)
    tables = [lake.get_table(f"curation/{name}") for name in ("compared", "sample_pairs", "image_pairs")]
    assert [table.count() for table in tables] == [3, 3, 3]
    lake.get_table("samples").delete("source = 'c'")
    search(lake, *slugs)
    assert [table.count() for table in tables] == [2, 1, 1]
    assert dropped(lake) == {"b": ("a", "copied_images")}
    samples = lake.get_table("samples")
    samples.append_fragments([samples.write_fragments([table_of(SAMPLES, [rows[2]])], "c")])
    search(lake, *slugs)
    assert [table.count() for table in tables] == [3, 3, 3]
    assert dropped(lake) == dict.fromkeys("bc", ("a", "copied_images"))


def test_few_new_rows_of_a_large_source_are_looked_up(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    put_row(lake, "a", encode(PHOTO))
    put_row(lake, "a", number=1, question=LONG_TEXT, answer="It takes 4 hours")
    search(lake, "a")
    monkeypatch.setattr(near_duplicates_of_lake, "MIN_ROWS_PER_LOOKUP", 0)
    put_row(lake, "b", COPIES["halved"](PHOTO))
    put_row(lake, "c", question=f"Please answer: {LONG_TEXT}", answer="**It takes 4 hours**")
    search(lake, "a", "b", "c")
    assert dropped(lake) == {"b": ("a", "copied_images"), "c": ("a", "similar_text")}
