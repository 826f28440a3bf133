"""Tables become pictures: the same bytes for the same cells, bounded in size, honest about what cannot be written."""

from __future__ import annotations

import io
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mvl_assets.media.image import inspect_image
from mvl_assets.media.table_image import (
    MAX_CELLS,
    MAX_PAGE_HEIGHT,
    PAGE_WIDTH,
    Page,
    TableImageError,
    draw_page,
    lay_out_page,
)

TABLE = [["", "2019", "2018"], ["Fixed Price", "$  1,452.4", "$  1,146.2"], ["Other", "44.1", "56.7"]]


def words(page: Page) -> list[str]:
    return [word for _, _, word in page.texts if word]


def grey(page: Page) -> np.ndarray:
    with Image.open(io.BytesIO(draw_page(page))) as image:
        return np.asarray(image.convert("L"))


def test_page_has_all_cells_and_paragraphs_in_reading_order() -> None:
    page = lay_out_page(TABLE, ["Sales by contract type:"], ["In millions."])
    cells = ["2019", "2018", "Fixed Price", "$ 1,452.4", "$ 1,146.2", "Other", "44.1", "56.7"]
    assert words(page) == ["Sales by contract type:", *cells, "In millions."]
    assert len(page.boxes) == 9
    info = inspect_image(draw_page(page))
    assert (info.width, info.height, info.format) == (PAGE_WIDTH, page.height, "PNG")


def test_equal_tables_give_equal_bytes_and_another_cell_gives_others() -> None:
    other = [*TABLE[:2], ["Other", "44.1", "56.8"]]
    assert draw_page(lay_out_page(TABLE)) == draw_page(lay_out_page(TABLE))
    assert draw_page(lay_out_page(TABLE)) != draw_page(lay_out_page(other))


def test_page_has_ink_only_where_its_text_is() -> None:
    page = lay_out_page([["alone"]])
    dark = np.argwhere(grey(page) < 100)
    ((x, y, _),) = [word for word in page.texts if word[2]]
    assert dark[:, 0].min() >= y and dark[:, 0].max() <= y + 22
    assert dark[:, 1].min() >= x and dark[:, 1].max() <= x + 60


def test_wide_cells_wrap_into_lines_that_fit_their_boxes() -> None:
    long = "a very long description of one row " * 8
    page = lay_out_page([["item", "amount"], [long, "1"], ["x" * 400, "2"]])
    assert max(right for _, _, right, _ in page.boxes) <= PAGE_WIDTH - 20
    assert " ".join(long.split()) in " ".join(words(page))
    paper = grey(page)[:, PAGE_WIDTH - 20 :]
    assert int(paper.min()) == 255


def test_short_rows_are_filled_with_empty_cells() -> None:
    assert len(lay_out_page([["a", "b", "c"], ["d"]]).boxes) == 6


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("café £5 ½", "café £5 ½"),
        ("2019 €m", "2019 EURm"),
        ("net – gross", "net - gross"),
        ("a\u200bb\u00a0c\td", "ab c d"),
        ("\ufb03 ② …", "ffi 2 …"),
    ],
)
def test_missing_glyphs_come_from_the_bitmap_font_or_are_transliterated(text: str, shown: str) -> None:
    assert words(lay_out_page([[text, "a plain cell beside it"]]))[0] == " ".join(shown.split())


def test_bitmap_font_letters_leave_ink() -> None:
    with_accent, without = grey(lay_out_page([["é é é", "plain text"]])), grey(lay_out_page([["     ", "plain text"]]))
    assert (with_accent < 100).sum() > (without < 100).sum()


def test_few_unknown_characters_become_question_marks_and_many_reject_the_page() -> None:
    assert (
        words(lay_out_page([["one 中 in a long enough english sentence, long enough that it does not count"]]))[0][:5]
        == "one ?"
    )
    with pytest.raises(TableImageError) as refused:
        lay_out_page([["营业收入", "2019"]])
    assert refused.value.code == "no_glyphs"


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ([], "empty_table"),
        ([["", " "], []], "empty_table"),
        ([["x"]] * (MAX_CELLS + 1), "table_too_large"),
        ([["x"]] * 400, "table_too_large"),
        ([["x" * 70_000]], "table_too_large"),
        ([["some words"] * 60], "table_too_large"),
    ],
)
def test_table_too_large_for_a_page_is_rejected(table: list[list[str]], error: str) -> None:
    with pytest.raises(TableImageError) as refused:
        lay_out_page(table)
    assert refused.value.code == error


CELLS = st.text(max_size=30)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(CELLS, max_size=5), max_size=6), st.lists(CELLS, max_size=3))
def test_arbitrary_text_is_drawn_or_rejected(table: list[list[str]], before: list[str]) -> None:
    try:
        page = lay_out_page(table, before)
    except TableImageError as refused:
        assert refused.code in ("empty_table", "no_glyphs")
        return
    assert page.height <= MAX_PAGE_HEIGHT
    assert all(unicodedata.category(c) != "Cc" for _, _, word in page.texts for c in word)
    assert inspect_image(draw_page(page)).width == PAGE_WIDTH
