"""Numbers in text: thousands separators, currencies, percent, fractions, LaTeX, small number words; and when two are
the same."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_WORDS = {
    word: value
    for value, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"],
    )
}
_SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}

# Digits inside a word, such as "B2" or "3f9a", are no number; a unit may follow directly ("5km").
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![\w)\]])-\s?)?
    (?:[$€£¥]\s?)?
    (?:
      (?:(?P<lwhole>\d+)\s*)?\\[dt]?frac\s*\{{\s*(?P<lsign>-?)(?P<ltop>\d+(?:\.\d+)?)\s*\}}\s*\{{\s*(?P<lbottom>\d+(?:\.\d+)?)\s*\}}
    | (?:(?P<whole>\d+)\s+)?(?P<top>\d+)\s?/\s?(?P<bottom>\d+)(?![\d/])
    | (?<![^\W_])(?P<plain>{_DIGITS})(?:e(?P<power>[+-]?\d{{1,2}})(?!\d))?(?![^\W\d_]+\d)
    | (?<!\w)(?P<word>{"|".join(_WORDS)})(?!\w)
    )
    (?:\s?(?P<percent>%|percent\b|per\scent\b)|\s(?P<scale>{"|".join(_SCALES)})\b)?
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Number:
    """A number found in a text. `decimals` are the digits after the point as written; `percent` if marked as such."""

    text: str
    value: float
    decimals: int
    percent: bool


def numbers_in(text: str) -> list[Number]:
    """Every number in reading order. A minus counts as a sign where no value stands before it."""
    text = (
        unicodedata.normalize("NFKC", text).replace("−", "-").replace("⁄", "/").replace("\\%", "%").replace("\\$", "$")
    )
    return [number for match in _NUMBER.finditer(text) if (number := _number(match)) is not None]


def same_number(a: Number, b: Number) -> bool:
    """Equal up to rounding to the digits of the one written with fewer decimals (two at least); 12% equals 0.12 too.

    Units are not compared: "$5" equals "5 dollars".
    """
    if a.percent != b.percent:
        plain, percent = (a, b) if b.percent else (b, a)
        if _close(plain.value, percent.value / 100, max(plain.decimals, 4), percent.decimals + 2):
            return True
    return _close(a.value, b.value, a.decimals, b.decimals)


def _close(a: float, b: float, decimals_a: int, decimals_b: int) -> bool:
    if abs(a - b) <= 1e-12 * max(abs(a), abs(b)):
        return True
    fewer = min(decimals_a, decimals_b)
    return decimals_a != decimals_b and fewer >= 2 and abs(a - b) <= 0.5000001 * 10**-fewer


def _number(match: re.Match[str]) -> Number | None:
    decimals = 0
    if match["ltop"] is not None or match["top"] is not None:
        top, bottom, whole = (
            (match["ltop"], match["lbottom"], match["lwhole"])
            if match["ltop"]
            else (
                match["top"],
                match["bottom"],
                match["whole"],
            )
        )
        if float(bottom) == 0:
            return None
        value = float(whole or 0) + float(top) / float(bottom)
        # A fraction is exact: as many decimals as anyone will write.
        decimals = 12
        if match["lsign"]:
            value = -value
    elif match["word"] is not None:
        value = float(_WORDS[match["word"].lower()])
    else:
        digits = match["plain"].replace(",", "")
        decimals = len(digits.partition(".")[2])
        value = float(digits) * 10.0 ** int(match["power"] or 0)
    if match["scale"]:
        value *= _SCALES[match["scale"].lower()]
    if match["sign"]:
        value = -value
    return Number(match[0], value, decimals, match["percent"] is not None)
