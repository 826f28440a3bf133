"""`mvl try`: a round on the terminal, its page, and what it says when it cannot begin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.cli.home import Home, lines_with, one_error


def test_a_round_ends_with_a_summary_and_a_page(built: Home, copy_of: Callable[[Home], Home]) -> None:
    home = copy_of(built)
    output = home.run("try", "rewrite", "--source", "geo170k", "--rows", "2")
    # The run before has answered all of it.
    assert lines_with(output, ["0 requests sent", "answered before", "0 tokens read"])
    in_the_lake, new = lines_with(output, ["in the lake"])[0], lines_with(output, ["this round"])[0]
    assert in_the_lake.split()[3:] == new.split()[2:]
    page = home.folder / "try" / "rewrite-geo170k.html"
    assert f"page: {page}" in output and page.read_text(encoding="utf-8").count('<section class="row">') == 2


def test_a_round_that_cannot_begin_says_what_to_do(raw: Home, tmp_path: Path) -> None:
    one_error(raw.mvl("try", "rewrite", "--source", "geo170"), "no source 'geo170'", "geo170k")
    one_error(
        raw.mvl("try", "judge", "--source", "geo170k"), "no rows of it in rewritten/code_math", "--until rewritten"
    )
    out = str(tmp_path / "missing" / "page.html")
    one_error(raw.mvl("try", "rewrite", "--source", "geo170k", "--out", out), "is not a folder", "make it")
