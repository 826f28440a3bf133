"""Pairs in another language than the sample's.

By script first; between languages of Latin script by their commonest words. What an image holds may be quoted in any
language, so most of a pair must be in the other one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mvl_assets.rewriting.checks.pair import CheckedPair, split_words

MIN_LETTERS, MIN_ORIGINAL_LETTERS, MIN_SCRIPT_SHARE = 24, 8, 0.6
MIN_WORDS, MIN_STOP_WORD_SHARE = 30, 0.2
# Greek is left out: formulas are full of it. Chinese and Japanese share characters and count as one.
_SCRIPTS = {
    "Latin": re.compile(r"[A-Za-zÀ-ɏ]"),
    "Cyrillic": re.compile(r"[Ѐ-ӿ]"),
    "Chinese or Japanese": re.compile(r"[぀-ヿ㐀-䶿一-鿿]"),
    "Korean": re.compile(r"[가-힣]"),
    "Arabic": re.compile(r"[؀-ۿ]"),
    "Hebrew": re.compile(r"[֐-׿]"),
    "Devanagari": re.compile(r"[ऀ-ॿ]"),
    "Thai": re.compile(r"[฀-๿]"),
}
# A few of the commonest words; some are common in two of the languages.
_STOP_WORDS = {
    name: frozenset(words.split())
    for name, words in {
        "English": "the of and to is that for with this are from which it as by on be has not",
        "German": "der die und das ist nicht mit ein eine den von zu auf für sich dem im auch werden",
        "French": "le et les des est une dans pour qui sur pas du au avec cette sont plus par",
        "Spanish": "el los las y que una por con para del se su como más está son lo",
        "Italian": "il di che è per una non sono con della del nel dei gli questo alla più",
        "Portuguese": "o os do da em um uma não com para que dos das mais ao foi são",
    }.items()
}


def find_other_language(pair: CheckedPair) -> str | None:
    """Return which language it is."""
    script = _find_script([pair.question, pair.answer])
    original_script = _find_script(
        (text for original in pair.originals for text in (original.question, original.answer)), MIN_ORIGINAL_LETTERS
    )
    if script is None or original_script is None:
        return None
    if script != original_script:
        return f"{script} letters, where the original has {original_script} ones"
    if script != "Latin":
        return None
    language = _find_latin_language(pair.answer)
    if language in (None, "English"):
        return None
    if _find_latin_language(" ".join(f"{o.question} {o.answer}" for o in pair.originals), min_words=6) == language:
        return None
    return f"{language}"


def _find_script(texts: Iterable[str], min_letters: int = MIN_LETTERS) -> str | None:
    """Return the script of most letters; None for a short text, or one of several scripts."""
    text = " ".join(texts)
    if text.isascii():  # nearly always
        return "Latin" if len(text) >= min_letters else None
    counts = {name: sum(1 for _ in pattern.finditer(text)) for name, pattern in _SCRIPTS.items()}
    name = max(counts, key=lambda script: counts[script])
    n_letters = sum(counts.values())
    return name if n_letters >= min_letters and counts[name] >= MIN_SCRIPT_SHARE * n_letters else None


def _find_latin_language(text: str, min_words: int = MIN_WORDS) -> str | None:
    """Return the language whose commonest words make up much of the text, and English ones hardly any."""
    words = split_words(text)
    if len(words) < min_words:
        return None
    shares = {name: sum(word in stop_words for word in words) / len(words) for name, stop_words in _STOP_WORDS.items()}
    language = max(shares, key=lambda name: shares[name])
    is_clear = shares[language] >= MIN_STOP_WORD_SHARE and shares[language] > 3 * shares["English"]
    return language if language == "English" or is_clear else None
