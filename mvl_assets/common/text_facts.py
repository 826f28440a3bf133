"""Facts about what a conversation says: how long questions and answers are, how repetitive, in which language."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

from mvl_assets.common.words import normalize_texts

MAX_LANGUAGE_CHARS = 400
"""Characters by which the language is known; more would hardly change it."""

MIN_LETTERS, MIN_CONFIDENCE = 10, 0.5
"""Letters that a text in an alphabet needs, and probability that a language needs: numbers and formulas have none."""

MIN_ENGLISH_SHARE = 0.15
"""Share of words below which a text is not taken for English at once: asking the model takes ten times as long."""

# Frequent in English, and hardly words of another language in Latin letters.
_FREQUENT_WORDS = """the of and what are this that these how many which with there from who where does they their you
your it's would should following"""
_ENGLISH_WORDS = frozenset(_FREQUENT_WORDS.split())


class TextFacts(NamedTuple):
    """The columns, one value for each conversation.

    Attributes:
        question_chars: Characters of the human's turns, without markers, case and extra spaces.
        answer_chars: The same of the answers.
        type_token_ratio: Different words of the answers over all of their words; None without any.
        language: ISO 639 code of the language; None where it cannot be told.
    """

    question_chars: list[int]
    answer_chars: list[int]
    type_token_ratio: list[float | None]
    language: list[str | None]


def compute_text_facts(lengths: Sequence[int], roles: Sequence[str], normalized_texts: Sequence[str]) -> TextFacts:
    """Return the facts of conversations, given as the number of turns of each and flat roles and texts.

    Args:
        lengths: Turns of each conversation.
        roles: Who speaks, turn by turn.
        normalized_texts: What is said, as `normalize_texts` returns it.
    """
    facts = TextFacts([], [], [], [])
    for turns in _iter_conversations(lengths, roles, normalized_texts):
        answers = [text for role, text in turns if role == "gpt"]
        words = " ".join(answers).split()
        facts.question_chars.append(sum(len(text) for role, text in turns if role == "human"))
        facts.answer_chars.append(sum(map(len, answers)))
        facts.type_token_ratio.append(len(set(words)) / len(words) if words else None)
        facts.language.append(identify_language(" ".join(text for _, text in turns)))
    return facts


def describe_conversation(conversation: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Return the facts of one conversation by column."""
    facts = compute_text_facts(
        [len(conversation)],
        [turn["from"] for turn in conversation],
        normalize_texts([turn["value"] for turn in conversation]),
    )
    return {name: values[0] for name, values in facts._asdict().items()}


def identify_language(text: str) -> str | None:
    """Return the ISO 639 code of a text's language; None where it cannot be told."""
    text = text[:MAX_LANGUAGE_CHARS]
    if text.isascii():
        if sum(map(str.isalpha, text)) < MIN_LETTERS:
            return None
        words = text.casefold().split()
        if sum(word in _ENGLISH_WORDS for word in words) > MIN_ENGLISH_SHARE * len(words):
            return "en"
    language, confidence = _load_identifier().classify(text)
    return str(language) if confidence >= MIN_CONFIDENCE else None


def _iter_conversations(
    lengths: Sequence[int], roles: Sequence[str], texts: Sequence[str]
) -> Iterator[list[tuple[str, str]]]:
    turns = zip(roles, texts, strict=True)
    for length in lengths:
        yield list(islice(turns, length))


@cache
def _load_identifier() -> Any:
    """Load the model, in about a second and 100 MB."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
