"""Does a rewritten answer agree with the key the source gives? By numbers, choices and normalised text; no model.

A pair can be compared where the rewrite kept the question. Says nothing about the steps before the answer: the paper's
example of a right result by a wrong step is for the judge.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from mvl_assets.judging.numbers import Number, numbers_in, same_number
from mvl_assets.model_stage.dialogue import Pair, readable

# A key longer than this without a marked result is prose, and prose is not compared.
SHORT_KEY = 60

_MARKED = re.compile(
    r"(?:^|[\s*_>#])(?:final\s+answer|correct\s+answer|answer)\s*(?:is|[:：]|=)+[\s:*_]*(?P<value>\S[^\n]*)",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\s*\{")
# "(A) red", "A. red", "A) red", "A: red", at the start of a line or after white space.
_OPTION = re.compile(
    r"(?:^|(?<=\s))\(?(?P<letter>[A-Ha-h])(?:\)|\.|:)\s+(?P<text>.+?)(?=\s*(?:$|[\n;,]?\s*\(?[A-Ha-h](?:\)|\.|:)\s))",
    re.MULTILINE,
)
_LETTER = re.compile(r"^\(?(?P<letter>[A-Ha-h])(?:\)|\.|:|$)(?=\s|$)\s*")
_LATEX_WRAP = re.compile(r"\\(?:text|mathrm|mathbf|textbf|operatorname)\s*\{([^{}]*)\}")
# In normal form, so without apostrophes: "not a hat", "isnt wearing any hat"; but "not red but blue" is blue.
_NEGATION = re.compile(
    r"\b(?:not|no|non|never|neither|without|cannot|(?:is|are|was|were|do|does|did|has|have|ca|wo)nt)"
    r"(?:[\s-]+(?!but\b|only\b|rather\b|instead\b)\w+){0,2}[\s-]+$"
)
# LaTeX that only sets a number or its unit; what else makes a formula of it.
_HARMLESS = re.compile(
    r"\\(?:text|mathrm|mathbf|[dt]?frac|times|cdot|degree|circ|left|right|quad|[,;! ])|\^\s*\{?\s*\\circ\}?"
)
_FORMULA = re.compile(r"\\[a-zA-Z]|[<>^!√π]|(?<![^\W\d_])[b-fijknopqrtu-zB-FH-Z](?![^\W\d_'’])")
_WORD = re.compile(r"[^\W\d_]+")
_OR_BEFORE = re.compile(r"\bor\s+$")
_OR_BEHIND = re.compile(r"^\s*,?\s*or\b")
_OR_BETWEEN = re.compile(r"^\W*(?:\w+\W+)?or\W+(?:\w+\W+)?$")


def answers_agree(rewritten: Sequence[Pair], originals: Sequence[Pair]) -> bool | None:
    """Whether every comparable answer of a dialogue agrees with its original; None when none is comparable."""
    keys = {normal(readable(pair.question)): pair for pair in originals}
    found = [
        agrees(pair.answer, key.answer, readable(key.question))
        for pair in rewritten
        if (key := keys.get(normal(readable(pair.question)))) is not None
    ]
    known = [one for one in found if one is not None]
    return all(known) if known else None


def agrees(answer: str, key: str, question: str = "") -> bool | None:
    """Compares the result of `answer` with the result of `key`; None when `key` states no short result.

    `question` may hold lettered options: then "B", "(B) red" and "red" are the same.
    """
    wanted = result_of(key)
    if wanted is None and len(key.strip()) <= SHORT_KEY:
        wanted = key.strip()
    if not wanted:
        return None
    given = result_of(answer) or _last_line(answer)
    if not given:
        return False
    options = options_in(question)
    if options and (right := option_of(wanted, options)) is not None:
        chosen = option_of(given, options)
        if chosen is not None:
            return chosen == right
        wanted = options[right]
    return _same(given, wanted)


def result_of(text: str) -> str | None:
    """The result a text marks as such: the last `\\boxed{...}`, or what follows the last "Answer:" / "answer is"."""
    boxed = [m.end() for m in _BOXED.finditer(text)]
    if boxed:
        inside = _braced(text, boxed[-1])
        if inside is not None:
            return inside.strip()
    marked = list(_MARKED.finditer(text))
    return marked[-1]["value"].strip() if marked else None


def options_in(question: str) -> dict[str, str]:
    """Lettered options of a question, by letter; empty unless there are two that begin with A and B."""
    options = {m["letter"].upper(): m["text"].strip() for m in _OPTION.finditer(question)}
    return options if {"A", "B"} <= set(options) else {}


def option_of(statement: str, options: dict[str, str]) -> str | None:
    """The letter of the one option a statement names, by letter or by text; None when it is none or several."""
    tidy = _unwrapped(statement).strip(" .*_`'\"")
    texts = {letter: normal(text) for letter, text in options.items()}
    same = [letter for letter, text in texts.items() if text == normal(tidy)]
    if len(same) == 1:
        return same[0]
    letter = _LETTER.match(tidy)
    if letter and letter["letter"].upper() in options:
        return letter["letter"].upper()
    said = normal(tidy)
    named = [letter for letter, text in texts.items() if _phrase_in(text, said)]
    # "dark red" names "red" too: of options inside one another the longest counts.
    longest = [a for a in named if not any(a != b and _phrase_in(texts[a], texts[b]) for b in named)]
    return longest[0] if len(longest) == 1 else None


def normal(text: str) -> str:
    """Text for comparison: compatibility forms, lower case, no LaTeX wrappers, no outer punctuation, no articles."""
    text = unicodedata.normalize("NFKC", _unwrapped(text)).casefold()
    text = re.sub(r"[\"'`´“”‘’*_$]", "", text)
    text = re.sub(r"\b(?:an?|the)\s+", " ", text)
    return " ".join(text.split()).strip(" .,;:!?")


def _same(given: str, wanted: str) -> bool:
    if normal(given) == normal(wanted):
        return True
    right = numbers_in(wanted)
    if right and _is_quantity(wanted, right):
        return _same_numbers(numbers_in(given), right, given)
    key = normal(wanted)
    if len(_items(key)) > 1 and _items(normal(given)) == _items(key):
        return True
    if key in ("yes", "no", "true", "false"):
        words = re.findall(r"\w+", normal(given))
        return words[:1] == [key]
    return _phrase_in(key, normal(given))


def _items(text: str) -> list[str]:
    """The parts of a listing: "red, blue and green"."""
    return [part for part in re.split(r"\s*(?:,|;|\band\b|&)\s*", text) if part]


def _is_quantity(key: str, numbers: Sequence[Number]) -> bool:
    """A key that is its numbers, with units around at most: "10 pounds" is, "8:30 A.M." is not."""
    rest = _around(numbers, key)
    return ":" not in key and len(_WORD.findall(rest)) <= 3 and not _is_formula(rest)


def _around(numbers: Sequence[Number], text: str) -> str:
    """What stands around the numbers of a text."""
    for number in numbers:
        text = text.replace(number.text, " ", 1)
    return text


def _is_formula(rest: str) -> bool:
    """Whether what stands around numbers makes them parts of something else: \\sqrt{3}, 5\\pi, 5x, x < 5."""
    return _FORMULA.search(_HARMLESS.sub(" ", rest)) is not None


def _same_numbers(given: Sequence[Number], right: Sequence[Number], statement: str) -> bool:
    if len(right) > 1:
        return len(given) == len(right) and all(same_number(a, b) for a, b in zip(given, right, strict=True))
    if not given or _is_either_or(given, statement):
        return False
    result = statement.rpartition("=")[2]
    if _is_quantity_of_another_kind(result):
        return False
    if "=" in statement:
        return same_number(given[-1], right[0])
    return same_number(given[0], right[0]) or same_number(given[-1], right[0])


def _is_quantity_of_another_kind(result: str) -> bool:
    """A short result whose numbers are parts of a formula or a listing, or that is denied."""
    numbers = numbers_in(result)
    rest = _around(numbers, result)
    if len(_WORD.findall(rest)) > 3:
        return False
    is_listing = len(numbers) > 1 and "," in rest and not re.search(r"\w", rest.replace("and", ""))
    is_denied = bool(numbers) and _NEGATION.search(result[: result.find(numbers[0].text)].lower()) is not None
    return is_listing or is_denied or _is_formula(rest)


def _is_either_or(numbers: Sequence[Number], statement: str) -> bool:
    """Whether the statement leaves open which of two different numbers it means."""
    behind = unicodedata.normalize("NFKC", statement)
    for number, following in pairwise(numbers):
        behind = behind.partition(number.text)[2]
        if _OR_BETWEEN.match(behind.partition(following.text)[0]) and not same_number(number, following):
            return True
    return False


def _phrase_in(phrase: str, text: str) -> bool:
    """The phrase as whole words, not denied by what stands before it, and no mere alternative."""
    if not phrase:
        return False
    for match in re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", text):
        before, behind = text[: match.start()], text[match.end() :]
        if not (_NEGATION.search(before) or _OR_BEFORE.search(before) or _OR_BEHIND.match(behind)):
            return True
    return False


def _unwrapped(text: str) -> str:
    before = None
    while before != text:
        before, text = text, _LATEX_WRAP.sub(r"\1", text)
    return text.replace("\\(", " ").replace("\\)", " ").replace("\\[", " ").replace("\\]", " ").replace("\\%", "%")


def _braced(text: str, start: int) -> str | None:
    """What stands between an open brace that ends at `start` and its partner."""
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
