"""Lettered options: those that a question lists, and the letter before an answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mvl_assets.answer_matching.normalize import normalize_answer, unwrap_markup
from mvl_assets.answer_matching.phrases import contains_phrase

# "(A) red", "A. red", "A) red", "A: red", at the start of a line or after white space.
_LISTED_OPTION = re.compile(
    r"(?:^|(?<=\s))\(?(?P<letter>[A-Ha-h])(?:\)|\.|:)\s+(?P<text>.+?)(?=\s*(?:$|[\n;,]?\s*\(?[A-Ha-h](?:\)|\.|:)\s))",
    re.MULTILINE,
)
_LEADING_LETTER = re.compile(r"^\(?(?P<letter>[A-Ha-h])(?:\)|\.|:|$)(?=\s|$)\s*")
_LETTERED_ANSWER = re.compile(
    r"^(?P<opening>\(?)(?P<letter>[a-h])(?P<closing>\)?[.:)])\s*(?P<text>.*)$", re.DOTALL | re.IGNORECASE
)


def parse_options(question: str) -> dict[str, str]:
    """Return the options of a question by upper-case letter; empty unless they include A and B."""
    options = {m["letter"].upper(): m["text"].strip() for m in _LISTED_OPTION.finditer(question)}
    return options if {"A", "B"} <= set(options) else {}


def match_option(statement: str, options: dict[str, str]) -> str | None:
    """Return the letter of the one option that a statement names by letter or by text; None for none or several."""
    cleaned = unwrap_markup(statement).strip(" .*_`'\"")
    texts = {letter: normalize_answer(unwrap_markup(text)) for letter, text in options.items()}
    normalized_statement = normalize_answer(cleaned)
    exact_matches = [letter for letter, text in texts.items() if text == normalized_statement]
    if len(exact_matches) == 1:
        return exact_matches[0]
    leading_letter = _LEADING_LETTER.match(cleaned)
    if leading_letter and leading_letter["letter"].upper() in options:
        return leading_letter["letter"].upper()
    mentioned = [letter for letter, text in texts.items() if contains_phrase(text, normalized_statement)]
    # "dark red" mentions "red" too: of options inside one another the longest counts.
    longest = [a for a in mentioned if not any(a != b and contains_phrase(texts[a], texts[b]) for b in mentioned)]
    return longest[0] if len(longest) == 1 else None


@dataclass(frozen=True, slots=True)
class LetteredAnswer:
    """An answer with the option letter before it, in lower case: `(B) dog` has b, `dog` has None.

    `may_be_name` is true for `E. coli`, where the letter may be part of a name.
    """

    letter: str | None
    text: str
    may_be_name: bool = False

    @classmethod
    def parse(cls, answer: str) -> LetteredAnswer:
        """Split the letter from an answer."""
        match = _LETTERED_ANSWER.match(answer.strip())
        if not match:
            return cls(None, answer)
        may_be_name = not match["opening"] and match["closing"] == "." and bool(match["text"].strip())
        return cls(match["letter"].lower(), match["text"], may_be_name)
