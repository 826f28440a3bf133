from __future__ import annotations

from mvl_assets.view.boxes import TextBox, extract_boxes
from mvl_assets.view.word_diff import mark_differences


def test_words_that_the_other_text_lacks_are_marked() -> None:
    original, rewritten = mark_differences("The red house is big", "The blue tiny house is very big")
    assert original == [("The ", False), ("red", True), (" house is big", False)]
    assert ("blue tiny", True) in rewritten and ("very ", True) in rewritten
    assert mark_differences("7", "17") == ([("7", True)], [("17", True)])


def test_texts_that_share_little_or_are_too_long_are_not_marked() -> None:
    assert mark_differences("What is shown in it?", "How many legs are there") == (
        [("What is shown in it?", False)],
        [("How many legs are there", False)],
    )
    long_text = "word " * 10_000
    assert mark_differences(long_text, long_text + "x")[0] == [(long_text, False)]


def test_boxes_are_shares_of_the_image() -> None:
    texts = [
        "at [0.1, 0.2, 0.5, 0.6]",
        "again [0.1,0.2,0.5,0.6], not [1, 0, 1, 1], [0.5, 0.5, 0.1, 0.9] or [3, 4, 5, 6]",
    ]
    assert extract_boxes(texts) == [TextBox(0.1, 0.2, 0.4, 0.4)]
