"""Numbers in text: reading them and comparing two of them.

Reads thousands separators, currencies, percent, fractions, powers of ten, LaTeX, number words up to ninety-nine, and
units of length, mass, time and volume.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

_SMALL_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS_WORDS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBER_WORDS = {
    **{word: value for value, word in enumerate(_SMALL_NUMBER_WORDS)},
    **{word: 10 * value for value, word in enumerate(_TENS_WORDS, 2)},
    **{
        f"{tens}-{unit}": 10 * ten + value
        for ten, tens in enumerate(_TENS_WORDS, 2)
        for value, unit in enumerate(_SMALL_NUMBER_WORDS[:10])
        if value
    },
}
_SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}

# Quantity and size of each unit, in metres, grams, seconds and litres.
_UNITS: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("mm", "millimetre", "millimeter"), ("length", 1e-3)),
    **dict.fromkeys(("cm", "centimetre", "centimeter"), ("length", 1e-2)),
    **dict.fromkeys(("m", "metre", "meter"), ("length", 1.0)),
    **dict.fromkeys(("km", "kilometre", "kilometer"), ("length", 1e3)),
    **dict.fromkeys(("mg", "milligram"), ("mass", 1e-3)),
    **dict.fromkeys(("g", "gram"), ("mass", 1.0)),
    **dict.fromkeys(("kg", "kilogram"), ("mass", 1e3)),
    **dict.fromkeys(("s", "sec", "second"), ("time", 1.0)),
    **dict.fromkeys(("min", "minute"), ("time", 60.0)),
    **dict.fromkeys(("h", "hr", "hour"), ("time", 3600.0)),
    **dict.fromkeys(("ml", "millilitre", "milliliter"), ("volume", 1e-3)),
    **dict.fromkeys(("l", "litre", "liter"), ("volume", 1.0)),
}

_NUMBER_WORD_PATTERN = "|".join(sorted(_NUMBER_WORDS, key=len, reverse=True)).replace("-", r"[-\s]")
# Digits inside a word, such as "B2" or "3f9a", are not a number; a unit may follow directly ("5km").
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![\w)\]])-\s?)?
    (?:[$€£¥]\s?)?
    (?:
      (?:(?P<lwhole>\d+)\s*)?\\[dt]?frac\s*\{{\s*(?P<lsign>-?)(?P<ltop>\d+(?:\.\d+)?)\s*\}}\s*\{{\s*(?P<lbottom>\d+(?:\.\d+)?)\s*\}}
    | (?:(?P<whole>\d+)\s+)?(?P<top>\d+)\s?/\s?(?P<bottom>\d+)(?![\d/])
    | (?:(?<![^\W_])(?P<factor>{_DIGITS})\s?(?:\\times|\\cdot|[x×·*])\s?)?10\s?\^\s?\{{?(?P<ten>-?\d{{1,2}})(?!\d)\}}?
    | (?<![^\W_])(?P<plain>{_DIGITS})(?:e(?P<power>[+-]?\d{{1,2}})(?!\d))?(?![^\W\d_]+\d)
    | (?<!\w)(?P<word>{_NUMBER_WORD_PATTERN})(?!\w)
    )
    (?:\s?(?P<percent>%|percent\b|per\scent\b)|\s(?P<scale>{"|".join(_SCALES)})\b
      |\s?(?P<measure>{"|".join(sorted(_UNITS, key=len, reverse=True))})s?(?![\w²³^/]))?
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a text.

    Attributes:
        text: As written.
        value: Its value.
        decimals: Digits after the point as written.
        is_percent: Whether it is marked as percent.
        unit: The unit after it, if its size is known.
    """

    text: str
    value: float
    decimals: int
    is_percent: bool
    unit: str | None = None


def parse_numbers(text: str) -> list[Number]:
    """Return every number in reading order. A minus is a sign where no value comes before it."""
    text = (
        unicodedata.normalize("NFKC", text).replace("−", "-").replace("⁄", "/").replace("\\%", "%").replace("\\$", "$")
    )
    return [number for match in _NUMBER.finditer(text) if (number := _parse_number(match)) is not None]


def is_same_number(a: Number, b: Number) -> bool:
    """Return whether two numbers are equal, rounded to the fewer decimals of the two (at least two); 12% equals 0.12.

    Two units of one kind are converted: 50 mm equals 5 cm, and 5 cm does not equal 5 m. Other units are not compared:
    "$5" equals "5 dollars".
    """
    if a.unit and b.unit and a.unit != b.unit:
        (kind, size), (other_kind, other_size) = _UNITS[a.unit], _UNITS[b.unit]
        if kind != other_kind:
            return False
        if size != other_size:
            return math.isclose(a.value * size, b.value * other_size, rel_tol=1e-6)
    if a.is_percent != b.is_percent:
        plain, percent = (a, b) if b.is_percent else (b, a)
        if _is_close(plain.value, percent.value / 100, max(plain.decimals, 4), percent.decimals + 2):
            return True
    return _is_close(a.value, b.value, a.decimals, b.decimals)


def _is_close(a: float, b: float, decimals_a: int, decimals_b: int) -> bool:
    if abs(a - b) <= 1e-12 * max(abs(a), abs(b)):
        return True
    fewer = min(decimals_a, decimals_b)
    return decimals_a != decimals_b and fewer >= 2 and abs(a - b) <= 0.5000001 * 10**-fewer


def _parse_number(match: re.Match[str]) -> Number | None:
    decimals = 0
    if match["ltop"] is not None or match["top"] is not None:
        numerator, denominator, whole_part = (
            (match["ltop"], match["lbottom"], match["lwhole"])
            if match["ltop"]
            else (
                match["top"],
                match["bottom"],
                match["whole"],
            )
        )
        if float(denominator) == 0:
            return None
        value = float(whole_part or 0) + float(numerator) / float(denominator)
        # A fraction is exact, so it counts as having more decimals than any written number.
        decimals = 12
        if match["lsign"]:
            value = -value
    elif match["ten"] is not None:
        value = float((match["factor"] or "1").replace(",", "")) * 10.0 ** int(match["ten"])
    elif match["word"] is not None:
        value = float(_NUMBER_WORDS["-".join(re.split(r"[-\s]", match["word"].lower()))])
    else:
        digits = match["plain"].replace(",", "")
        decimals = len(digits.partition(".")[2])
        value = float(digits) * 10.0 ** int(match["power"] or 0)
    if match["scale"]:
        value *= _SCALES[match["scale"].lower()]
    if match["sign"]:
        value = -value
    unit_name = match["measure"].lower() if match["measure"] else None
    return Number(match[0], value, decimals, match["percent"] is not None, unit_name)
