"""Markdown and LaTeX of data as HTML that holds nothing but text in its form.

Data is never HTML: Markdown is read without HTML, links and images, whose source stays as it is written. LaTeX becomes
MathML, which browsers draw themselves; of it only the elements and attributes below are kept, and what cannot be read
is shown as it is written.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_core import StateCore
    from markdown_it.rules_inline import StateInline

MAX_TEXT_CHARS, MAX_FORMULA_CHARS, MAX_FORMULAS = 16_000, 1000, 300
"""Longer texts and formulas, and formulas after so many in one text, are shown as they are written: with marks that
nothing closes, reading takes time with the square of the length."""

MATHML: Final = "http://www.w3.org/1998/Math/MathML"
_ELEMENT_NAMES: Final = """math mrow mi mn mo ms mtext mspace mfrac msqrt mroot mstyle merror mpadded mphantom mfenced
menclose msub msup msubsup munder mover munderover mmultiscripts mprescripts none mtable mtr mtd mlabeledtr"""
_ATTRIBUTE_NAMES: Final = """display displaystyle scriptlevel mathvariant stretchy fence form separator lspace rspace
largeop movablelimits symmetric minsize maxsize accent accentunder linethickness columnalign rowalign columnspacing
rowspacing columnlines rowlines width height depth notation"""
_ELEMENTS, _ATTRIBUTES = frozenset(_ELEMENT_NAMES.split()), frozenset(_ATTRIBUTE_NAMES.split())
_VALUE: Final = re.compile(r"[\w.%+\- ]{0,40}", re.ASCII)
_FORBIDDEN_RULES: Final = ("html_block", "html_inline", "link", "autolink", "image", "reference")
_DELIMITERS: Final = {"\\(": ("\\)", False), "\\[": ("\\]", True), "$$": ("$$", True), "$": ("$", False)}
"""How a formula begins, by how it ends and whether it stands on lines of its own."""


def render_text(text: str) -> Markup:
    """Return a text with Markdown and LaTeX as HTML; a long one as it is written."""
    if len(text) > MAX_TEXT_CHARS:
        return Markup("<p>{}</p>").format(text)
    return Markup(_build_parser().render(text, {"formulas": 0}))  # noqa: S704 - the parser escapes all text


def render_formula(source: str, *, is_block: bool) -> str:
    """Return LaTeX as MathML, or as code where it cannot be read.

    Args:
        source: The formula without its delimiters.
        is_block: Whether it stands on lines of its own.
    """
    from latex2mathml.converter import convert

    try:
        if len(source) > MAX_FORMULA_CHARS:
            raise ValueError("too long")
        root = ElementTree.fromstring(convert(source, display="block" if is_block else "inline"))  # noqa: S314 - of the converter
        _remove_unknown(root)
        return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)
    except Exception:  # the converter raises what it likes
        return f"<code>{escape(source)}</code>"


def _remove_unknown(element: ElementTree.Element) -> None:
    """Remove attributes that are not known to be harmless, and the name space, which HTML does not need.

    Raises:
        ValueError: An element is not known to be harmless.
    """
    element.tag = element.tag.removeprefix(f"{{{MATHML}}}")
    if element.tag not in _ELEMENTS:
        raise ValueError(f"no element of MathML: {element.tag}")
    for name, value in list(element.attrib.items()):
        if name not in _ATTRIBUTES or not _VALUE.fullmatch(value):
            del element.attrib[name]
    for child in element:
        _remove_unknown(child)


@cache
def _build_parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    parser.disable(list(_FORBIDDEN_RULES))
    parser.inline.ruler.before("escape", "formula", _parse_formula)
    parser.core.ruler.push("no_style", _remove_styles)
    parser.add_render_rule("formula", _render_token)
    return parser


def _remove_styles(state: StateCore) -> None:
    """Remove the alignment of columns, which is an inline style: the pages' policy has none."""
    for token in state.tokens:
        token.attrs.pop("style", None)


def _parse_formula(state: StateInline, silent: bool) -> bool:
    """Read a formula at the position of a parser, as `markdown_it` calls its rules."""
    opening = next((mark for mark in _DELIMITERS if state.src.startswith(mark, state.pos)), None)
    if opening is None:
        return False
    closing, is_block = _DELIMITERS[opening]
    start = state.pos + len(opening)
    stop = state.src.find(closing, start, start + MAX_FORMULA_CHARS + len(closing))
    source = state.src[start:stop] if stop >= 0 else ""
    if not source.strip() or (opening == "$" and not _is_between_dollars(source, state.src[stop + 1 : stop + 2])):
        return False
    if not silent:
        token = state.push("formula", "", 0)
        token.content, token.markup, token.meta = source, opening, {"is_block": is_block}
        state.env["formulas"] += 1
        token.hidden = state.env["formulas"] > MAX_FORMULAS
    state.pos = stop + len(closing)
    return True


def _is_between_dollars(source: str, following: str) -> bool:
    """Return whether what stands between two dollars is a formula, and no price: the rule of Pandoc."""
    return not (source[0].isspace() or source[-1].isspace() or following.isdigit() or "\n\n" in source)


def _render_token(self: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    if token.hidden:
        return escape(f"{token.markup}{token.content}{_DELIMITERS[token.markup][0]}")
    return render_formula(token.content, is_block=token.meta["is_block"])
