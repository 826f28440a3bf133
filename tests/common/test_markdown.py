"""Markdown built from data: nothing in the data can break a table or bring markup of its own."""

from __future__ import annotations

import base64
import re

import pytest

from mvl_assets.common.markdown import MAX_CELL_CHARS, embed_image, encode_data_uri, escape_cell, format_markdown_table

TEXT = "<script>alert(1)</script> **bold** [link](https://example.org) | ![p](x) `code` $x_1$ # ~no~ \\frac {a}"


def test_a_table_has_the_columns_of_its_first_row_and_escaped_values() -> None:
    rows = [{"reason": "a|b", "rows": 2}, {"reason": None, "rows": 0.123456}]
    assert format_markdown_table(rows).split("\n") == [
        "| reason | rows |",
        "|---|---|",
        "| a&#124;b | 2 |",
        "|  | 0.1235 |",
    ]
    assert format_markdown_table([]) == "none"


def test_a_cell_is_cut_to_its_limit_before_it_is_escaped() -> None:
    assert escape_cell("*" * 20, 5) == "&#42;" * 4 + "…"
    assert escape_cell(True) == "yes"


def test_an_image_is_embedded_unless_it_is_too_large() -> None:
    uri = encode_data_uri(b"png", "image/png")
    assert base64.b64decode(uri.removeprefix("data:image/png;base64,")) == b"png"
    assert embed_image(b"png", "loss", max_chars=len(uri)) == f"![loss]({uri})"
    assert embed_image(b"png" * 1000, "loss", max_chars=100) == "*loss: 3 kB, too large to show here*"


def test_markup_in_the_data_stays_text() -> None:
    shown = escape_cell(TEXT)
    assert not re.search(r"[<>*\[\]()`|$~\\{}!]", shown)
    assert "&#95;1" in shown  # and not escaped twice
    assert shown.count("&") == shown.count("&#") == len(re.findall(r"[<>*\[\]()`|$~\\{}!_#]", TEXT))


def test_a_cell_is_short_and_its_long_words_break() -> None:
    assert len(escape_cell("word " * 1000)) <= MAX_CELL_CHARS
    assert max(len(part) for part in escape_cell("x" * 290).split("\u200b")) <= 24
    assert escape_cell("two\nlines\tand  spaces") == "two lines and spaces"


@pytest.mark.parametrize(("value", "shown"), [(None, ""), (True, "yes"), (False, "no"), (0.592666, "0.5927"), (7, "7")])
def test_a_value_reads_as_a_person_writes_it(value: object, shown: str) -> None:
    assert escape_cell(value) == shown
