"""Does a rewritten answer agree with the key the source gives? By numbers, choices and normalised text; no model.

A pair can be compared where the rewrite kept the question. Says nothing about the steps before the answer: the paper's
example of a right result by a wrong step is for the judge.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from mvl_assets.judging.numbers import Number, is_same_number, parse_numbers
from mvl_assets.model_stage.dialogue import QAPair, strip_markers

# A key longer than this without a marked result is prose, and prose is not compared.
MAX_REFERENCE_CHARS = 60

_MARKED_ANSWER = re.compile(
    r"(?:^|[\s*_>#])(?:final\s+answer|correct\s+answer|answer)\s*(?:is|[:：]|=)+[\s:*_]*(?P<value>\S[^\n]*)",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\s*\{")
# "(A) red", "A. red", "A) red", "A: red", at the start of a line or after white space.
_OPTION = re.compile(
    r"(?:^|(?<=\s))\(?(?P<letter>[A-Ha-h])(?:\)|\.|:)\s+(?P<text>.+?)(?=\s*(?:$|[\n;,]?\s*\(?[A-Ha-h](?:\)|\.|:)\s))",
    re.MULTILINE,
)
_OPTION_LETTER = re.compile(r"^\(?(?P<letter>[A-Ha-h])(?:\)|\.|:|$)(?=\s|$)\s*")
_LATEX_WRAP = re.compile(r"\\(?:text|mathrm|mathbf|textbf|operatorname)\s*\{([^{}]*)\}")
# In normal form, so without apostrophes: "not a hat", "isnt wearing any hat"; but "not red but blue" is blue.
_NEGATION = re.compile(
    r"\b(?:not|no|non|never|neither|without|cannot|(?:is|are|was|were|do|does|did|has|have|ca|wo)nt)"
    r"(?:[\s-]+(?!but\b|only\b|rather\b|instead\b)\w+){0,2}[\s-]+$"
)
# LaTeX that only sets a number or its unit; what else makes a formula of it.
_NON_FORMULA_LATEX = re.compile(
    r"\\(?:text|mathrm|mathbf|[dt]?frac|times|cdot|degree|circ|left|right|quad|[,;! ])|\^\s*\{?\s*\\circ\}?"
)
_FORMULA = re.compile(r"\\[a-zA-Z]|[<>^!√π]|(?<![^\W\d_])[b-fijknopqrtu-zB-FH-Z](?![^\W\d_'’])")
_WORD = re.compile(r"[^\W\d_]+")
_OR_BEFORE = re.compile(r"\bor\s+$")
_OR_AFTER = re.compile(r"^\s*,?\s*or\b")
_OR_BETWEEN = re.compile(r"^\W*(?:\w+\W+)?or\W+(?:\w+\W+)?$")


def matches_all_references(rewritten: Sequence[QAPair], references: Sequence[QAPair]) -> bool | None:
    """Whether every comparable answer of a dialogue agrees with its original; None when none is comparable."""
    references_by_question = {normalize(strip_markers(pair.question)): pair for pair in references}
    matches = [
        matches_reference(pair.answer, reference_pair.answer, strip_markers(reference_pair.question))
        for pair in rewritten
        if (reference_pair := references_by_question.get(normalize(strip_markers(pair.question)))) is not None
    ]
    comparable = [is_match for is_match in matches if is_match is not None]
    return all(comparable) if comparable else None


def matches_reference(answer: str, reference: str, question: str = "") -> bool | None:
    """Compares the result of `answer` with the result of `reference`; None when `reference` states no short result.

    `question` may hold lettered options: then "B", "(B) red" and "red" are the same.
    """
    reference_result = extract_final_answer(reference)
    if reference_result is None and len(reference.strip()) <= MAX_REFERENCE_CHARS:
        reference_result = reference.strip()
    if not reference_result:
        return None
    answer_result = extract_final_answer(answer) or _extract_last_line(answer)
    if not answer_result:
        return False
    options = parse_options(question)
    if options and (reference_option := match_option(reference_result, options)) is not None:
        answer_option = match_option(answer_result, options)
        if answer_option is not None:
            return answer_option == reference_option
        reference_result = options[reference_option]
    return _is_same_answer(answer_result, reference_result)


def extract_final_answer(text: str) -> str | None:
    """The result a text marks as such: the last `\\boxed{...}`, or what follows the last "Answer:" / "answer is"."""
    boxed_starts = [m.end() for m in _BOXED.finditer(text)]
    if boxed_starts:
        boxed_content = _read_braced(text, boxed_starts[-1])
        if boxed_content is not None:
            return boxed_content.strip()
    marked_answers = list(_MARKED_ANSWER.finditer(text))
    return marked_answers[-1]["value"].strip() if marked_answers else None


def parse_options(question: str) -> dict[str, str]:
    """Lettered options of a question, by letter; empty unless there are two that begin with A and B."""
    options = {m["letter"].upper(): m["text"].strip() for m in _OPTION.finditer(question)}
    return options if {"A", "B"} <= set(options) else {}


def match_option(statement: str, options: dict[str, str]) -> str | None:
    """The letter of the one option a statement names, by letter or by text; None when it is none or several."""
    cleaned = _unwrap_latex(statement).strip(" .*_`'\"")
    texts = {letter_match: normalize(text) for letter_match, text in options.items()}
    exact_matches = [letter for letter, text in texts.items() if text == normalize(cleaned)]
    if len(exact_matches) == 1:
        return exact_matches[0]
    letter = _OPTION_LETTER.match(cleaned)
    if letter and letter["letter"].upper() in options:
        return letter["letter"].upper()
    normalized_statement = normalize(cleaned)
    mentioned = [letter for letter, text in texts.items() if _contains_phrase(text, normalized_statement)]
    # "dark red" names "red" too: of options inside one another the longest counts.
    longest = [a for a in mentioned if not any(a != b and _contains_phrase(texts[a], texts[b]) for b in mentioned)]
    return longest[0] if len(longest) == 1 else None


def normalize(text: str) -> str:
    """Text for comparison: compatibility forms, lower case, no LaTeX wrappers, no outer punctuation, no articles."""
    text = unicodedata.normalize("NFKC", _unwrap_latex(text)).casefold()
    text = re.sub(r"[\"'`´“”‘’*_$]", "", text)
    text = re.sub(r"\b(?:an?|the)\s+", " ", text)
    return " ".join(text.split()).strip(" .,;:!?")


def _is_same_answer(answer: str, reference: str) -> bool:
    if normalize(answer) == normalize(reference):
        return True
    reference_numbers = parse_numbers(reference)
    if reference_numbers and _is_quantity(reference, reference_numbers):
        return _has_same_numbers(parse_numbers(answer), reference_numbers, answer)
    normalized_reference = normalize(reference)
    if len(_split_enumeration(normalized_reference)) > 1 and _split_enumeration(
        normalize(answer)
    ) == _split_enumeration(normalized_reference):
        return True
    if normalized_reference in ("yes", "no", "true", "false"):
        answer_words = re.findall(r"\w+", normalize(answer))
        return answer_words[:1] == [normalized_reference]
    return _contains_phrase(normalized_reference, normalize(answer))


def _split_enumeration(text: str) -> list[str]:
    """The parts of a listing: "red, blue and green"."""
    return [part for part in re.split(r"\s*(?:,|;|\band\b|&)\s*", text) if part]


def _is_quantity(reference: str, numbers: Sequence[Number]) -> bool:
    """A key that is its numbers, with units around at most: "10 pounds" is, "8:30 A.M." is not."""
    remainder = _remove_numbers(numbers, reference)
    return ":" not in reference and len(_WORD.findall(remainder)) <= 3 and not _is_formula(remainder)


def _remove_numbers(numbers: Sequence[Number], text: str) -> str:
    """What stands around the numbers of a text."""
    for number in numbers:
        text = text.replace(number.text, " ", 1)
    return text


def _is_formula(remainder: str) -> bool:
    """Whether what stands around numbers makes them parts of something else: \\sqrt{3}, 5\\pi, 5x, x < 5."""
    return _FORMULA.search(_NON_FORMULA_LATEX.sub(" ", remainder)) is not None


def _has_same_numbers(answer_numbers: Sequence[Number], reference_numbers: Sequence[Number], statement: str) -> bool:
    if len(reference_numbers) > 1:
        return len(answer_numbers) == len(reference_numbers) and all(
            is_same_number(a, b) for a, b in zip(answer_numbers, reference_numbers, strict=True)
        )
    if not answer_numbers or _is_either_or(answer_numbers, statement):
        return False
    result = statement.rpartition("=")[2]
    if _is_composite_or_negated(result):
        return False
    if "=" in statement:
        return is_same_number(answer_numbers[-1], reference_numbers[0])
    return is_same_number(answer_numbers[0], reference_numbers[0]) or is_same_number(
        answer_numbers[-1], reference_numbers[0]
    )


def _is_composite_or_negated(result: str) -> bool:
    """A short result whose numbers are parts of a formula or a listing, or that is denied."""
    numbers = parse_numbers(result)
    remainder = _remove_numbers(numbers, result)
    if len(_WORD.findall(remainder)) > 3:
        return False
    is_enumeration = len(numbers) > 1 and "," in remainder and not re.search(r"\w", remainder.replace("and", ""))
    is_negated = bool(numbers) and _NEGATION.search(result[: result.find(numbers[0].text)].lower()) is not None
    return is_enumeration or is_negated or _is_formula(remainder)


def _is_either_or(numbers: Sequence[Number], statement: str) -> bool:
    """Whether the statement leaves open which of two different numbers it means."""
    remaining_text = unicodedata.normalize("NFKC", statement)
    for number, next_number in pairwise(numbers):
        remaining_text = remaining_text.partition(number.text)[2]
        if _OR_BETWEEN.match(remaining_text.partition(next_number.text)[0]) and not is_same_number(number, next_number):
            return True
    return False


def _contains_phrase(phrase: str, text: str) -> bool:
    """The phrase as whole words, not denied by what stands before it, and no mere alternative."""
    if not phrase:
        return False
    for match in re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", text):
        before, after = text[: match.start()], text[match.end() :]
        if not (_NEGATION.search(before) or _OR_BEFORE.search(before) or _OR_AFTER.match(after)):
            return True
    return False


def _unwrap_latex(text: str) -> str:
    previous = None
    while previous != text:
        previous, text = text, _LATEX_WRAP.sub(r"\1", text)
    return text.replace("\\(", " ").replace("\\)", " ").replace("\\[", " ").replace("\\]", " ").replace("\\%", "%")


def _read_braced(text: str, start: int) -> str | None:
    """What stands between an open brace that ends at `start` and its partner."""
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
    return None


def _extract_last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
