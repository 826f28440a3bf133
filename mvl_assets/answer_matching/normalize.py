"""Normalization of answers to the form in which they are compared."""

from __future__ import annotations

import re
import unicodedata

CURRENCY_AND_PERCENT = "$€£%"

_ARTICLES = frozenset({"a", "an", "the"})
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_NUMBER = re.compile(r"^[-+]?\d*\.?\d+$")
_RELATIONS = re.compile(r"([<>=])")
_KEPT_PUNCTUATION = frozenset(".%#+-")
_LATEX_WRAPPER = re.compile(r"\\(?:text|mathrm|mathbf|textbf|operatorname)\s*\{([^{}]*)\}")


def normalize_answer(text: str) -> str:
    """Return the form in which two answers are compared; normalizing it again changes nothing.

    Lower case, Unicode NFKC (but 2² is not 22), no articles and dashes (unless there is nothing else), no punctuation
    around words and numbers, single spaces; symbols stay. `1,200.0` and `1200` are one number, `$5.00` and `5` one
    amount.
    """
    spaced_text = _RELATIONS.sub(r" \1 ", _THOUSANDS.sub("", _normalize_unicode(text).lower()))
    words: list[str] = []
    fillers: list[str] = []
    for word in "".join(char if _is_kept(char) else " " for char in spaced_text).split():
        bare = _format_number(
            word
            if _NUMBER.match(word)
            else word.lstrip("#" + CURRENCY_AND_PERCENT).rstrip("." + CURRENCY_AND_PERCENT) or word
        )
        (fillers if bare in _ARTICLES or bare in (".", "-") else words).append(bare)
    return " ".join(words or fillers)


def unwrap_markup(text: str) -> str:
    r"""Return text without LaTeX wrappers such as `\text{...}` and `\(...\)`, and without emphasis around it."""
    previous = None
    while previous != text:
        previous, text = text, _LATEX_WRAPPER.sub(r"\1", text)
    for delimiter in ("\\(", "\\)", "\\[", "\\]"):
        text = text.replace(delimiter, " ")
    return text.replace("\\%", "%").strip().strip("*_`").strip()


def _normalize_unicode(text: str) -> str:
    """Apply NFKC except to superscripts and subscripts, and write every minus as a hyphen."""
    normalized_chars = (
        char
        if unicodedata.decomposition(char).startswith(("<super>", "<sub>"))
        else unicodedata.normalize("NFKC", char)
        for char in unicodedata.normalize("NFC", text.replace("\u2212", "-"))
    )
    return unicodedata.normalize("NFC", "".join(normalized_chars))


def _is_kept(char: str) -> bool:
    """Return whether this is a letter, digit, mark or symbol; backticks only set text in another font."""
    if char.isalnum() or char in _KEPT_PUNCTUATION or char == "_":
        return True
    return char != "`" and unicodedata.category(char)[0] in "MS"


def _format_number(word: str) -> str:
    if not _NUMBER.match(word):
        return word
    value = float(word)
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
