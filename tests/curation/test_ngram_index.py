"""Index of items by runs of words: rare runs count, those of a template do not, and options may be in any order."""

from __future__ import annotations

import pytest

from mvl_assets.curation.ngram_index import IndexedItem, NgramIndex, TextMatch, build_index_arrays

TEMPLATE = "Look at the drawing with care and answer the question with the letter of the option that is right:"
RARE = "how many {} pass the seventh lock of the northern canal in a dry summer"
THINGS = ("barges", "swans", "pilots", "crates", "kites", "otters", "mills", "sluices")


def build_index(*texts: str, sources: tuple[str, ...] = ("a",)) -> NgramIndex:
    items = (IndexedItem(n, sources[n % len(sources)], text) for n, text in enumerate(texts))
    return NgramIndex(build_index_arrays(items))


def find(index: NgramIndex, *texts: str) -> list[tuple[int, int]]:
    return [(match.text, match.item) for match in index.iter_matches(texts)]


def test_text_around_an_item_does_not_matter_and_other_items_are_not_held() -> None:
    index = build_index(*(RARE.format(thing) + f" when {thing} are counted twice" for thing in THINGS))
    inside = f"Some words before. {RARE.format('OTTERS')} when otters are counted twice, and some after."
    assert (0, 5) in find(index, inside, "nothing of the kind")
    (best,) = [match for match in index.iter_matches([inside]) if match.item == 5]
    assert best == TextMatch(0, 5, 20, pytest.approx(1.0))


def test_runs_of_a_template_weigh_little() -> None:
    index = build_index(*(f"{TEMPLATE} {RARE.format(thing)} {thing}" for thing in THINGS))
    assert find(index, TEMPLATE) == []
    only_one = build_index(f"{TEMPLATE} {RARE.format('swans')}")
    assert find(only_one, TEMPLATE) == [(0, 0)]


def test_weights_are_those_of_the_own_benchmark() -> None:
    texts = [f"{TEMPLATE} {RARE.format(thing)} {thing}" for thing in THINGS]
    alone = build_index(*texts)
    text = f"{TEMPLATE} {RARE.format('kites')} kites"
    (before,) = [match.overlap for match in alone.iter_matches([text[:-30]]) if match.item == 4]
    items = [IndexedItem(n, "ab"[n >= len(texts)], text) for n, text in enumerate([*texts, *[TEMPLATE] * 20])]
    both = NgramIndex(build_index_arrays(items))
    (after,) = [match.overlap for match in both.iter_matches([text[:-30]]) if match.item == 4]
    assert before == after


def test_options_may_be_in_any_order_and_no_run_goes_over_their_ends() -> None:
    question = RARE.format("barges")
    index = build_index(f"{question}?\nA. four hundred\nB. seven hundred and more\nC. none of them at all")
    shuffled = f"{question}?\n(A) none of them at all\n(B) four hundred\n(C) seven hundred and more"
    assert [match.overlap for match in index.iter_matches([shuffled])] == [pytest.approx(1.0)]


def test_short_items_are_not_found_and_an_empty_index_finds_nothing() -> None:
    assert find(build_index("what is the highest value"), "what is the highest value") == []
    assert find(build_index(), "anything") == []
    assert find(build_index(RARE), "") == []
