"""Comparison of an answer with the reference answer.

`is_correct` is for evaluation: the answer, or its marked conclusion, must be the reference as a whole. Anything looser
would let a model that mentions many things score above chance. `matches_reference` is for judging, where an answer
reasons in sentences by design and is compared with the question at hand: after the same comparison it also looks for
the reference inside the conclusion, converts units and numbers, and knows the question's options. Neither says anything
about the steps before the conclusion.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from mvl_assets.answer_matching.normalize import CURRENCY_AND_PERCENT, normalize_answer, unwrap_markup
from mvl_assets.answer_matching.numbers import Number, is_same_number, parse_numbers
from mvl_assets.answer_matching.options import LetteredAnswer, match_option, parse_options
from mvl_assets.answer_matching.phrases import NEGATION, contains_phrase

# A longer reference without a marked conclusion is prose, and prose is not compared.
MAX_REFERENCE_CHARS = 60

_CONCLUSION_MARK = re.compile(r"\banswer\s*(?:is\b|[:：]|=)[\s:：=*_]*", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{")
_OPTION_LETTER = re.compile(r"[a-h]")
# LaTeX that only sets a number or its unit; other commands make a formula of it.
_NON_FORMULA_LATEX = re.compile(
    r"\\(?:text|mathrm|mathbf|[dt]?frac|times|cdot|degree|circ|left|right|quad|[,;! ])|\^\s*\{?\s*\\circ\}?"
)
_FORMULA = re.compile(r"\\[a-zA-Z]|[<>^!√π]|(?<![^\W\d_])[b-fijknopqrtu-zB-FH-Z](?![^\W\d_'’])")
_WORD = re.compile(r"[^\W\d_]+")
_OR_BETWEEN = re.compile(r"^\W*(?:\w+\W+)?or\W+(?:\w+\W+)?$")
_ENUMERATION_SEPARATOR = re.compile(r"\s*(?:,|;|\band\b|&)\s*", re.IGNORECASE)


def is_correct(answer: str, reference: str) -> bool:
    """Return whether the whole answer, or its conclusion, is the reference.

    When both name an option letter (`(B) dog` or `B.`), the letters decide, except for two like `E. coli`, which may be
    names; a bare letter, on either side, is the option it names. Units that both sides give must be the same (`5%` is
    not `$5`). An empty answer is wrong.
    """
    conclusion = extract_final_answer(answer)
    return (conclusion is not None and is_same_statement(conclusion, reference)) or is_same_statement(answer, reference)


def matches_reference(answer: str, reference: str, question: str = "") -> bool | None:
    """Return whether the conclusion of an answer states the conclusion of the reference.

    Args:
        answer: May reason first; without a marked conclusion its last line counts.
        reference: A short answer, or a text with a marked conclusion.
        question: May list lettered options: then "B", "(B) red" and "red" are the same.

    Returns:
        None when the reference has no short conclusion to compare with.
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
    return _states_result(answer_result, reference_result)


def extract_final_answer(text: str) -> str | None:
    r"""Return the conclusion that a text marks: the last `\boxed{...}`, or the line after the last "answer is"."""
    boxed_starts = [match.end() for match in _BOXED.finditer(text)]
    if boxed_starts:
        boxed_content = _read_braced(text, boxed_starts[-1])
        if boxed_content is not None:
            return boxed_content.strip()
    marks = list(_CONCLUSION_MARK.finditer(text))
    return text[marks[-1].end() :].split("\n")[0].strip() or None if marks else None


def is_same_statement(statement: str, reference: str) -> bool:
    """Return whether two short statements differ in form only. See `is_correct` for letters and units."""
    if statement.strip() and statement.strip().casefold() == reference.strip().casefold():
        return True
    lettered, lettered_reference = LetteredAnswer.parse(statement), LetteredAnswer.parse(reference)
    bare_reference = reference.strip().lower()
    reference_letter = bare_reference if _OPTION_LETTER.fullmatch(bare_reference) else lettered_reference.letter
    if reference_letter and lettered.letter and not (lettered.may_be_name and lettered_reference.may_be_name):
        return lettered.letter == reference_letter
    if lettered.letter and lettered_reference.letter and lettered.letter != lettered_reference.letter:
        return False
    normalized, normalized_reference = normalize_answer(lettered.text), normalize_answer(lettered_reference.text)
    if reference_letter and normalized == reference_letter:
        return True
    units, reference_units = (
        {char for char in text if char in CURRENCY_AND_PERCENT} for text in (statement, reference)
    )
    return (
        bool(normalized_reference)
        and normalized == normalized_reference
        and not (units and reference_units and units.isdisjoint(reference_units))
    )


def _states_result(statement: str, reference: str) -> bool:
    """Return whether a statement gives the reference's result, in whatever words, units or notation."""
    statement, reference = unwrap_markup(statement), unwrap_markup(reference)
    if is_same_statement(statement, reference):
        return True
    reference_numbers = parse_numbers(reference)
    if reference_numbers and _is_quantity(reference, reference_numbers):
        return _has_same_numbers(parse_numbers(statement), reference_numbers, statement)
    parts = _split_enumeration(reference)
    if len(parts) > 1 and _split_enumeration(statement) == parts:
        return True
    normalized, normalized_reference = normalize_answer(statement), normalize_answer(reference)
    if normalized_reference in ("yes", "no", "true", "false"):
        # Only the first word: "No, it is not true" does not say true.
        return re.findall(r"\w+", normalized)[:1] == [normalized_reference]
    if "\\" in reference:
        # A formula is looked for as it is written: without its LaTeX, 3\sqrt{2} would contain \sqrt{2}.
        return contains_phrase(_fold_latex(reference), _fold_latex(statement))
    return contains_phrase(normalized_reference, normalized)


def _fold_latex(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().replace("$", " ").split()).strip(" .,;:!?")


def _split_enumeration(text: str) -> list[str]:
    """Return the normalized parts of an enumeration such as "red, blue and green"."""
    return [part for raw_part in _ENUMERATION_SEPARATOR.split(text) if (part := normalize_answer(raw_part))]


def _is_quantity(reference: str, numbers: Sequence[Number]) -> bool:
    """Return whether a reference is its numbers, with at most units around: "10 pounds" is, "8:30 A.M." is not."""
    remainder = _remove_numbers(numbers, reference)
    return ":" not in reference and len(_WORD.findall(remainder)) <= 3 and not _is_formula(remainder)


def _remove_numbers(numbers: Sequence[Number], text: str) -> str:
    for number in numbers:
        text = text.replace(number.text, " ", 1)
    return text


def _is_formula(remainder: str) -> bool:
    r"""Return whether the text around numbers makes them part of something else: \sqrt{3}, 5\pi, 5x, x < 5."""
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
    """Return whether a short result's numbers are parts of a formula or an enumeration, or negated."""
    numbers = parse_numbers(result)
    remainder = _remove_numbers(numbers, result)
    if len(_WORD.findall(remainder)) > 3:
        return False
    is_enumeration = len(numbers) > 1 and "," in remainder and not re.search(r"\w", remainder.replace("and", ""))
    is_negated = bool(numbers) and NEGATION.search(result[: result.find(numbers[0].text)].lower()) is not None
    return is_enumeration or is_negated or _is_formula(remainder)


def _is_either_or(numbers: Sequence[Number], statement: str) -> bool:
    """Return whether a statement leaves open which of two different numbers it means."""
    remaining_text = unicodedata.normalize("NFKC", statement)
    for number, next_number in pairwise(numbers):
        remaining_text = remaining_text.partition(number.text)[2]
        if _OR_BETWEEN.match(remaining_text.partition(next_number.text)[0]) and not is_same_number(number, next_number):
            return True
    return False


def _read_braced(text: str, start: int) -> str | None:
    """Return the text between the open brace before `start` and its closing brace."""
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
    return None


def _extract_last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
