"""Markdown and LaTeX are drawn, and nothing of a text becomes HTML, a link or a picture."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_assets.view.rendered_text import MAX_FORMULA_CHARS, MAX_TEXT_CHARS, render_text
from tests.view.site import HOSTILE

MARKDOWN_TAGS = set(
    "p br h1 h2 h3 h4 h5 h6 strong em s code pre ul ol li blockquote hr table thead tbody tr th td".split()
)
MATHML_TAGS = set(
    "math mrow mi mn mo ms mtext mspace mfrac msqrt mroot mstyle mpadded mphantom menclose msub msup msubsup munder"
    " mover munderover mtable mtr mtd".split()
)


class Checker(HTMLParser):
    """Lists what an output has besides text and harmless elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.surprises: list[object] = []
        self.said = ""
        self.feed(str(html))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in MARKDOWN_TAGS:
            allowed = {"class"} if tag == "code" else {"start"} if tag == "ol" else set()
            self.surprises += [(tag, name) for name, _ in attrs if name not in allowed]
        elif tag in MATHML_TAGS:
            self.surprises += [(tag, a) for a in attrs if a[0] in ("href", "style", "class", "id") or a[0][:2] == "on"]
        else:
            self.surprises.append(tag)

    def handle_data(self, data: str) -> None:
        self.said += data

    def handle_comment(self, data: str) -> None:
        self.surprises.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def test_markdown_and_formulas_are_drawn() -> None:
    html = render_text("# A\n**b** $x^2$ and \\(y\\), \\[ \\frac{1}{2} \\]\n\n| a | b |\n|:-:|---|\n| 1 | 2 |\n\n1. c")
    for part in ("<h1>A</h1>", "<strong>b</strong>", "<msup>", "<mfrac>", 'display="block"', "<td>1</td>", "<ol>"):
        assert part in html
    assert Checker(html).surprises == []


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5, and then $6.",
        "`$x$` and a \\$ sign",
        "$" + "x" * (MAX_FORMULA_CHARS + 1) + "$",
        "snake_case_names and 2 * 3 * 4",
        "[a](http://e.example) <http://e.example> ![b](http://e.example/c.png)",
    ],
)
def test_what_is_no_formula_stays_as_it_is_written(text: str) -> None:
    checker = Checker(render_text(text))
    assert checker.surprises == []
    assert checker.said.strip() == text.replace("`", "").replace("\\$", "$")


@pytest.mark.parametrize("source", ["\\frac{", "\\left(", "a & b \\\\ {", "{" * 500, "\\begin{matrix}", "\\href{x}{y}"])
def test_a_formula_that_cannot_be_read_is_shown_as_it_is_written(source: str) -> None:
    checker = Checker(render_text(f"before ${source}$ after"))
    assert checker.surprises == [] and checker.said.startswith("before ") and checker.said.strip().endswith(" after")


@pytest.mark.parametrize(
    "text",
    [
        HOSTILE,
        f"${HOSTILE}$",
        f"\\({HOSTILE}\\)",
        f"| {HOSTILE} |\n|---|\n| {HOSTILE} |",
        f"```{HOSTILE}\n{HOSTILE}\n```",
        f"# {HOSTILE}\n> {HOSTILE}\n\n- {HOSTILE}",
        "[x](javascript:alert(1)) [y]: javascript:alert(1)\n\n[z]: data:text/html,x 'y'\n[z]",
        "$\\text{<script>alert(1)</script>}$ $\\mathrm{<img src=x onerror=alert(1)>}$",
        "$\\style{background:url(http://e.example)}{x} \\class{a}{x} \\href{javascript:alert(1)}{x}$",
        '$\\color{red\\" onload=alert(1)}{x}$ $\\hspace{1em;x:url(y)}$',
        "&lt;script&gt; &#60;script&#62; <!-- x --> <?php ?> <![CDATA[x]]> <!DOCTYPE x>",
    ],
)
def test_hostile_text_is_text(text: str) -> None:
    assert Checker(render_text(text)).surprises == []


PIECES = """
    $ $$ \\( \\) \\[ \\] <b> <script> </p> " ' &lt; | - > ` ``` [x]( ) ![ * _ # \\frac{ \\text{ } { ^ & \\\\ \\href{
    a javascript: style= \0 \ud800 \u202e \\begin{array}{c} \\end{array}
"""


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(st.lists(st.sampled_from([*PIECES.split(), " ", "\n", "\n\n"]), max_size=40).map("".join))
def test_no_text_becomes_markup(text: str) -> None:
    assert Checker(render_text(text)).surprises == []


def test_long_texts_are_shown_as_they_are_written() -> None:
    text = "**" + "x" * MAX_TEXT_CHARS
    assert render_text(text) == f"<p>{text}</p>"
