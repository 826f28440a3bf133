"""Raw answers: what becomes a dialogue and what becomes which error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvl_assets.config.prompts import PROMPTS_DIR, load_prompts
from mvl_assets.rewriting.parse import PARSE_ERRORS, ParseError, parse_answer

PROMPTS = load_prompts(PROMPTS_DIR / "small")
MATH, DOMAIN, OCR = (PROMPTS[f"rewrite_{family}"] for family in ("math", "domain", "ocr"))

printable = st.text(st.characters(blacklist_categories=("Cc", "Cs")), min_size=8, max_size=200).map(str.strip)
sound = printable.filter(lambda t: len(t) >= 8 and "<image>" not in t and "<video>" not in t)


def error_of(prompt, text: str, finish: str = "stop") -> str:
    with pytest.raises(ParseError) as caught:
        parse_answer(prompt, text, finish, "What is it?")
    return caught.value.code


@given(st.text())
def test_any_text_gives_dialogues_or_one_of_the_named_errors(text: str):
    for prompt in (MATH, DOMAIN, OCR):
        try:
            assert parse_answer(prompt, text, "stop", "What is it?")
        except ParseError as error:
            assert error.code in PARSE_ERRORS


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_any_json_gives_dialogues_or_one_of_the_named_errors(document: object):
    for wrapped in (document, {"pairs": document}, {"pairs": [document]}, {"scenario": "s" * 20, "turns": [document]}):
        for prompt in (DOMAIN, OCR):
            try:
                assert parse_answer(prompt, json.dumps(wrapped), "stop", None)
            except ParseError as error:
                assert error.code in PARSE_ERRORS


@given(st.lists(st.tuples(sound, sound), min_size=1, max_size=2, unique=True))
def test_pairs_survive_json_and_come_back_in_order(pairs: list[tuple[str, str]]):
    document = {"pairs": [{"question": q, "answer": a} for q, a in pairs]}
    for text in (json.dumps(document), json.dumps(document, ensure_ascii=False, indent=1)):
        dialogues = parse_answer(DOMAIN, text, "stop", None)
        assert [(d[0].question, d[0].answer) for d in dialogues] == pairs


@given(sound, st.sampled_from([r"\frac{1}{2}", r"\theta", r"\neq", r"\beta", r"\rho", r"\times"]))
def test_latex_survives_as_text_and_in_properly_escaped_json(text: str, latex: str):
    answer = f"{text} {latex}"
    assert latex in parse_answer(MATH, answer, "stop", "What is it?")[0][0].answer
    document = json.dumps({"pairs": [{"question": "What is the value?", "answer": answer}]})
    assert latex in parse_answer(DOMAIN, document, "stop", None)[0][0].answer


@pytest.mark.parametrize("latex", [r"\frac{1}{2}", r"\theta", r"\beta", r"\rho", r"\times", r"\neq 3", r"\nabla"])
def test_latex_eaten_by_a_json_escape_is_an_error(latex: str):
    text = '{"pairs": [{"question": "What is the value?", "answer": "It is %s."}]}' % latex  # noqa: UP031
    assert error_of(DOMAIN, text) == "control_character"


def test_tabs_and_newlines_of_ordinary_text_pass():
    text = json.dumps({"pairs": [{"question": "What is listed?", "answer": "a\tb\nno\tthe\r\nend"}]})
    assert parse_answer(DOMAIN, text, "stop", None)[0][0].answer == "a\tb\nno\tthe\nend"


@pytest.mark.parametrize(
    ("prompt", "text", "finish", "error"),
    [
        (MATH, "Answer: 1", "length", "length"),
        (MATH, "Answer: 1", "content_filter", "not_finished"),
        (MATH, " \n", "stop", "empty"),
        (MATH, "A form feed \f here", "stop", "control_character"),
        (MATH, "Look at <image> again", "stop", "image_marker"),
        (DOMAIN, '{"pairs": [', "stop", "bad_json"),
        (DOMAIN, '{"pairs": []}', "stop", "schema"),
        (DOMAIN, '{"pairs": [{"question": "What is it, say?", "answer": "   "}]}', "stop", "empty"),
        (DOMAIN, '{"pairs": NaN}', "stop", "bad_json"),
        (DOMAIN, "[" * 100_000, "stop", "bad_json"),
        (DOMAIN, '{"pairs": [{"question": "What is it, say?", "answer": "\\ud800"}]}', "stop", "control_character"),
        (DOMAIN, "<html>busy</html>", "stop", "bad_json"),
    ],
)
def test_each_fault_has_its_class(prompt, text: str, finish: str, error: str):
    assert error_of(prompt, text, finish) == error


CUT = "The human is a, a"
DONE = "The human is at the left of the meadow."
LIMIT = DOMAIN.schema["properties"]["pairs"]["items"]["properties"]["answer"]["maxLength"]


@pytest.mark.parametrize(
    ("answer", "is_cut"),
    [
        (CUT.ljust(LIMIT, "x"), True),
        (DONE.rjust(LIMIT, "x"), True),
        ("x " * (LIMIT // 2 - 10) + CUT, True),
        (CUT.rjust(LIMIT - 4, "x"), True),
        (DONE.rjust(LIMIT - 4, "x"), False),
        ('"' + (DONE + '"').rjust(LIMIT - 6, "x"), False),
        (CUT.rjust(LIMIT - 40, "x"), False),
    ],
)
def test_a_string_at_its_limit_was_cut(answer: str, is_cut: bool):
    text = json.dumps({"pairs": [{"question": "What is it, say?", "answer": answer}]})
    if is_cut:
        assert error_of(DOMAIN, text) == "at_length_limit"
    else:
        assert parse_answer(DOMAIN, text, "stop", None)[0][0].answer == answer


def test_an_answer_is_judged_by_the_schema_that_was_sent():
    text = json.dumps({"pairs": [{"question": "What is it, say?", "answer": DONE.rjust(LIMIT + 9, "x")}]})
    assert error_of(DOMAIN, text) == "schema"
    assert parse_answer(DOMAIN, text, "stop", None, is_lengthened=True)
    assert error_of(DOMAIN, text.replace("xx", "x" * (2 * LIMIT), 1)) == "schema"
    at_limit = json.dumps({"pairs": [{"question": "What is it, say?", "answer": "x" * 2 * LIMIT}]})
    with pytest.raises(ParseError, match="pairs/0/answer"):
        parse_answer(DOMAIN, at_limit, "stop", None, is_lengthened=True)


def test_a_repeated_pair_counts_once():
    pair = {"question": "What is it, say?", "answer": "A cat."}
    assert len(parse_answer(DOMAIN, json.dumps({"pairs": [pair, pair]}), "stop", None)) == 1
