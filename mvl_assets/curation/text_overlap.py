"""How much two conversations have in common: words that say something, numbers, and who says them.

Words that only ask ("please look at the image and answer with one word") count for nothing, options are a set whatever
their order and letters, and markup is left out. Numbers, operators and the order of shared words must agree: questions
on one template differ in nothing else. Two questions in other words are not recognised as the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from mvl_assets.answer_matching.options import match_option, parse_options

_FUNCTION_WORD_LIST = """
a about all also am an and any are as at be been being both but by can could did do does each for from get give given
had has have having he her here him his how i if in into is it its just let like make many may me might more most much
must my need of on one ones only or other our out over please s see shall she should show shown shows so some such t
take than that the their them then there these they this those to us use using very was we were what when where which
while who whom whose why will with would you your
according answer answers based below best briefly caption choice choices choose concisely context correct correctly
describe description detail detailed details directly display displayed displays explain explanation figure final find
following format full generate hint image images information kindly letter look looking mention now option options
phrase photo photograph picture provide provided question questions respond response seen select sentence short shortly
simple single state step steps tell text think title understand visible word words write
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORD_LIST.split())
"""Function words of English, and words of instructions."""

_TOKEN = re.compile(
    r"""(?P<number>\d+(?:[.,]\d+)*)
      |(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)*(?:\+\+|\#)?)
      |(?P<operator>(?<=[\w)\]}])[ ]*(?:\+|-|−|\*|/|÷|×|=|<|>|\^|≤|≥|≠)(?=[ ]*[\w(\\{\[])|(?<![\w)])[-−](?=\d))""",
    re.VERBOSE,
)
CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]")
"""Characters of scripts without spaces."""
_OPTION_LABEL = re.compile(r"(?:^|(?<=\s))\(?[A-Ha-h](?:\)|\.|:)\s+", re.MULTILINE)
_FINAL_LETTER = re.compile(
    r"(?P<before>(?:answer|option|choice)(?:\s+is)?\s*:?\s*)[*_(\[]*(?P<letter>[A-H])(?![\w'])[*_)\].]*", re.IGNORECASE
)
_LIST_LABEL = re.compile(r"^[ \t]*(?:\d{1,2}[.)]|[-*•+]|#{1,6})[ \t]+(?=\S)", re.MULTILINE)
_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]*)?/?>")
_LATEX_MARKUP = re.compile(r"\\(?:text|mathrm|mathbf|boxed|left|right|[()\[\],;! ])")
_EMPHASIS = re.compile(r"\*\*|__|`+|\$+|(?<!\w)[*_](?=\w)|(?<=\w)[*_](?!\w)")

MAX_CHARS = 20_000
"""Characters of a conversation that are compared; longer ones are cut."""


@dataclass(frozen=True, slots=True)
class RoleWords:
    """What one role says.

    Attributes:
        words: Content words in order, but those of options.
        options: Content words of the options.
        numbers: Numbers and operators in order.
    """

    words: tuple[str, ...]
    options: frozenset[str]
    numbers: tuple[str, ...]

    @property
    def content(self) -> frozenset[str]:
        """All of it, without order."""
        return self.options.union(self.words, self.numbers)


@dataclass(frozen=True, slots=True)
class ComparableText:
    """A conversation, reduced to what is compared."""

    question: RoleWords
    answer: RoleWords
    content: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        words = {f"q:{word}" for word in self.question.content} | {f"a:{word}" for word in self.answer.content}
        object.__setattr__(self, "content", frozenset(words))


@dataclass(frozen=True, slots=True)
class TextScores:
    """How alike two conversations are.

    Attributes:
        overlap: Shared words over all words of both (Jaccard).
        containment: Share of the words of the shorter question that the longer one has, or of the answers if that is
            smaller; 0 if numbers, operators or the order of shared words differ.
    """

    overlap: float
    containment: float


def build_comparable_text(conversation: Sequence[Mapping[str, str]]) -> ComparableText:
    """Return what is compared of a conversation. The human's turns are the question, the model's are the answer."""
    questions: list[str] = []
    answers: list[str] = []
    option_words: set[str] = set()
    options: dict[str, str] = {}
    n_chars = 0
    for turn in conversation:
        text = _strip_markup(turn["value"][: max(0, MAX_CHARS - n_chars)])
        n_chars += len(text)
        if turn["from"] == "human":
            options = parse_options(text) if ")" in text or "." in text or ":" in text else {}
            if options:
                text, words = _split_options(text, options)
                option_words |= words
            questions.append(text)
        else:
            answers.append(_replace_letter(text, options) if options else text)
    return ComparableText(_read_words(questions, option_words), _read_words(answers, set()))


def compare_texts(text: ComparableText, other: ComparableText) -> TextScores:
    """Return the scores of two conversations. Without any word on either side they have nothing in common."""
    union = text.content | other.content
    overlap = len(text.content & other.content) / len(union) if union else 0.0
    containment = min(
        _compute_containment(text.question, other.question), _compute_containment(text.answer, other.answer)
    )
    return TextScores(overlap, containment)


@dataclass(frozen=True, slots=True)
class QuestionScores:
    """How alike two questions are, whatever is answered.

    Attributes:
        containment: Share of the words of the shorter question that the longer one has; 0 if numbers, operators or the
            order of shared words differ.
        overlap: Shared words over all words of both questions (Jaccard).
    """

    containment: float
    overlap: float


def compare_questions(question: RoleWords, other: RoleWords) -> QuestionScores:
    """Return the scores of two questions; two without any word that says something are the same."""
    union = question.content | other.content
    overlap = len(question.content & other.content) / len(union) if union else 1.0
    return QuestionScores(_compute_containment(question, other), overlap)


def compute_answer_overlap(answers: frozenset[str], reference: frozenset[str]) -> float | None:
    """Return the share of the words of a reference that the answers have; None if it has none that say something."""
    return len(answers & reference) / len(reference) if reference else None


def _compute_containment(words: RoleWords, other: RoleWords) -> float:
    if sorted(words.numbers) != sorted(other.numbers) or not _has_same_order(words.words, other.words):
        return 0.0
    content, other_content = words.content, other.content
    n_shorter = min(len(content), len(other_content))
    if not n_shorter:
        return float(content == other_content)
    return len(content & other_content) / n_shorter


def _has_same_order(words: Sequence[str], other_words: Sequence[str]) -> bool:
    """Return whether shared words follow each other in both: the dog bites the man, and the man the dog, do not."""
    shared = set(words).intersection(other_words)
    sequence, other_sequence = ([word for word in side if word in shared] for side in (words, other_words))
    if sequence == other_sequence or len(shared) < 2:
        return True
    steps, other_steps = (set(pairwise(side)) for side in (sequence, other_sequence))
    return len(steps & other_steps) >= 0.8 * min(len(steps), len(other_steps))


def _split_options(text: str, options: Mapping[str, str]) -> tuple[str, set[str]]:
    """Return the text without the options, and the options' words."""
    words: set[str] = set()
    for option in sorted(options.values(), key=len, reverse=True):
        words |= _read_words([option], set()).content
        text = " ".join(text.rsplit(option, 1))
    return _OPTION_LABEL.sub(" ", text), words


def _replace_letter(answer: str, options: Mapping[str, str]) -> str:
    """Return the answer with the text of the option in place of its letter."""
    if len(answer) <= 40 and (letter := match_option(answer, dict(options))) is not None:
        return options[letter]
    return _FINAL_LETTER.sub(
        lambda match: f"{match['before']}{options.get(match['letter'].upper(), match['letter'])}", answer
    )


def _read_words(texts: Sequence[str], option_words: set[str]) -> RoleWords:
    words: list[str] = []
    numbers: list[str] = []
    for match in _TOKEN.finditer("\n".join(texts)):
        if match.lastgroup == "word":
            words.extend(_split_word(match[0]))
        else:
            numbers.append(match[0].strip().replace("−", "-").rstrip(".,"))
    return RoleWords(tuple(words), frozenset(option_words), tuple(numbers))


def _strip_markup(text: str) -> str:
    """Return the text without markup; markers of images and videos look like tags."""
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "\\" in text:
        text = _LATEX_MARKUP.sub(" ", text)
    return _EMPHASIS.sub("", _LIST_LABEL.sub("", text))


@lru_cache(maxsize=1 << 16)
def _split_word(word: str) -> tuple[str, ...]:
    """Return the content words of a word: none of a function word, each character of a script without spaces."""
    folded = word.casefold()
    if CJK.search(folded):
        return tuple(CJK.findall(folded))
    return () if folded in FUNCTION_WORDS else (folded,)
