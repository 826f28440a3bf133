r"""Answers whose result contradicts the original's.

Only what can be decided counts: the question was kept, the answer marks its result ("Answer: 12", `\boxed{12}`), and
the original's is a number, an option, yes or no, or a formula. Prose is a judge's matter.
"""

from __future__ import annotations

import re

from mvl_assets.answer_matching.brevity import strip_brevity_request
from mvl_assets.answer_matching.matching import extract_final_answer, matches_reference
from mvl_assets.answer_matching.math_equality import compare_formulas
from mvl_assets.answer_matching.normalize import normalize_answer
from mvl_assets.answer_matching.numbers import parse_numbers
from mvl_assets.answer_matching.options import match_option, parse_options
from mvl_assets.rewriting.checks.pair import CheckedPair

MAX_RESULT_CHARS = 60
_YES_NO = {"yes": True, "true": True, "no": False, "false": False}
_WORD = re.compile(r"[^\W\d_]{2,}")
_FORMULA_SIGN = re.compile(r"[\d\\^=]")
_LATEX_COMMAND = re.compile(r"\\[a-zA-Z]+")


def find_contradiction(pair: CheckedPair) -> str | None:
    """Return both results."""
    result = extract_final_answer(pair.answer)
    if result is None:
        return None
    question = normalize_answer(strip_brevity_request(pair.question))
    for original in pair.originals:
        if not pair.is_preserved and normalize_answer(strip_brevity_request(original.question)) != question:
            continue
        reference = extract_final_answer(original.answer) or original.answer.strip()
        if 0 < len(reference) <= MAX_RESULT_CHARS and _is_contradicted(result, reference, original.question):
            return f"the result is {result[:60]!r}, and the original's {reference!r}"
    return None


def _is_contradicted(result: str, reference: str, question: str) -> bool:
    options = parse_options(question)
    if options:
        option, reference_option = match_option(result, options), match_option(reference, options)
        return option is not None and reference_option is not None and option != reference_option
    first_words = [re.findall(r"\w+", normalize_answer(text))[:1] for text in (result, reference)]
    truths = [_YES_NO.get(words[0]) if words else None for words in first_words]
    if None not in truths:
        return truths[0] != truths[1]
    is_formula = "\\" in reference or "\\" in result
    if is_formula and not _FORMULA_SIGN.search(result):
        return False
    if not is_formula and not (_is_number(reference) and parse_numbers(result)):
        return False
    if matches_reference(result, reference, question):
        return False
    is_equal = compare_formulas(result, reference)
    return is_equal is False or (is_equal is None and not is_formula)


def _is_number(reference: str) -> bool:
    """Return whether a result is one number, with at most a unit around."""
    numbers = parse_numbers(reference)
    return len(numbers) == 1 and ":" not in reference and len(_WORD.findall(_LATEX_COMMAND.sub("", reference))) <= 2
