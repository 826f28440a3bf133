"""What a person would look at before putting a source into a group, measured on up to 1,000 rows.

The paper's authors looked at 1,000 random items of every source and sorted the sources into A (detailed, kept as they
are), B (short or incomplete, rewritten) and C (too brief or vague, dropped): arXiv 2412.05237 §2.1. The numbers here
are what such a look is about, and `suggest` is a rule over them. It sees lengths and not sense: a suggestion that
differs from the declared group is a reason to look, no more.

Belongs here: the numbers and the rule. Does not: which rows (`lake/screening`), how they are shown (`components`).
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvl_assets.config.catalog import Category, Group
from mvl_assets.lake.images import ImageInfo
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.screening import rows_by_hash
from mvl_assets.media.image import standard_size

ROWS = 1_000
ENOUGH = 200
"""Rows looked at, as many as the paper's authors did; and rows below which nothing is suggested."""

COLUMNS = ("sample_id", "file", "position", "conversations", "image_ids")
# Enough to tell a row's script; some rows hold whole pages.
READ = 2_000
MARKER = re.compile(r"<(?:image|video)>")
# Han, kana and hangul: written without spaces (or nearly), so each counts as a word.
CJK = re.compile(
    r"[\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f]"
)
LATIN = re.compile(r"[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff]")
LETTER = re.compile(r"[^\W\d_]")
WORD = re.compile(r"\S*[^\W_]\S*")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The rule's numbers.

    Answers are short when half of them or more are one word, or their median is below `short_words`. Short answers
    that are mostly one and the same (`repeated` of them) leave nothing to write from. Captions are a class of their
    own: the paper keeps none as it is (its category Caption has no source of group A), and drops the brief ones.
    """

    one_word: float = 0.5
    short_words: float = 8
    repeated: float = 0.5
    brief_caption: float = 15


RULE = Thresholds()


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and 90th percentile."""

    median: float
    p90: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """Pictures in pixels. `outside` is the share that standardising changes: a side outside 224 to 4,096 px, or longer
    than 7:1 (arXiv 2412.05237 §2)."""

    pictures: int
    width: float
    height: float
    shortest: int
    longest: int
    outside: float


@dataclass(frozen=True, slots=True)
class Screening:
    """`rows` looked at of `total`; shares are between 0 and 1. `scripts` is by the script of most letters of a row.
    `copies` are rows of the whole source that say exactly what another says. `shown` are a few of the rows."""

    rows: int
    total: int
    copies: int
    answers: int
    chars: Spread
    words: Spread
    one_word: float
    most_frequent: float
    turns: Spread
    scripts: dict[str, float]
    sizes: Sizes | None
    shown: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Suggestion:
    group: Group
    reason: str


def screen(lake: Lake, source: str, shown: int = 6) -> Screening:
    """Looks at the newest rows of a source. Reads no picture: their sizes are stored beside them."""
    chosen = rows_by_hash(lake, source, ROWS, COLUMNS)
    rows = chosen.rows
    talks = [row["conversations"] or [] for row in rows]
    answers = [turn["value"] for talk in talks for turn in talk if turn["from"] == "gpt"]
    counts = [count_words(answer) for answer in answers]
    named = {name for row in rows for name in row["image_ids"] or ()}
    return Screening(
        rows=len(rows),
        total=chosen.total,
        copies=chosen.copies,
        answers=len(answers),
        chars=_spread([len(answer) for answer in answers]),
        words=_spread(counts),
        one_word=_share(count <= 1 for count in counts),
        most_frequent=_most_frequent(answers),
        turns=_spread([sum(turn["from"] == "gpt" for turn in talk) for talk in talks]),
        scripts=_scripts(talks),
        sizes=_sizes(lake.images.describe(named).values()),
        shown=rows[:shown],
    )


def suggest(found: Screening, category: Category, rule: Thresholds = RULE) -> Suggestion:
    """The group by lengths alone, with the reason in words."""
    words, one_word = found.words.median, found.one_word
    long_as = f"half of the answers have {words:.0f} words or fewer"
    if category == "caption":
        if words < rule.brief_caption:
            return Suggestion("C", f"captions, and brief ones: {long_as}")
        return Suggestion("B", f"captions, long enough to write questions from: {long_as}")
    if one_word < rule.one_word and words >= rule.short_words:
        return Suggestion("A", f"answers are full: {long_as}, {one_word:.0%} are one word")
    if found.most_frequent >= rule.repeated:
        return Suggestion("C", f"{found.most_frequent:.0%} of the answers are one and the same short one")
    return Suggestion("B", f"answers are short: {long_as}, {one_word:.0%} are one word")


def count_words(text: str) -> int:
    """Words between spaces that hold a letter or digit, and each Han, kana or hangul character."""
    characters = len(CJK.findall(text))
    return characters + len(WORD.findall(CJK.sub(" ", text) if characters else text))


def script_of(text: str) -> str:
    """`Latin`, `CJK` or `other`, whichever most letters of the text belong to; `none` without letters."""
    text = MARKER.sub("", text)[:READ]
    letters = len(LETTER.findall(text))
    found = {"Latin": len(LATIN.findall(text)), "CJK": len(CJK.findall(text))}
    found["other"] = letters - sum(found.values())
    return max(found, key=lambda name: found[name]) if letters else "none"


def _scripts(talks: Sequence[Sequence[Mapping[str, str]]]) -> dict[str, float]:
    found = Counter(script_of("\n".join(turn["value"] for turn in talk)) for talk in talks)
    return {name: count / len(talks) for name, count in found.most_common()}


def _most_frequent(answers: Sequence[str]) -> float:
    found = Counter(" ".join(answer.casefold().split()).rstrip(".") for answer in answers)
    return found.most_common(1)[0][1] / len(answers) if answers else 0.0


def _sizes(pictures: Collection[ImageInfo]) -> Sizes | None:
    if not pictures:
        return None
    return Sizes(
        pictures=len(pictures),
        width=statistics.median(p.width for p in pictures),
        height=statistics.median(p.height for p in pictures),
        shortest=min(min(p.width, p.height) for p in pictures),
        longest=max(max(p.width, p.height) for p in pictures),
        outside=_share(standard_size(p.width, p.height).verdict != "as_is" for p in pictures),
    )


def _spread(values: Sequence[int]) -> Spread:
    ordered = sorted(values)
    return Spread(statistics.median(ordered), ordered[(9 * (len(ordered) - 1)) // 10]) if ordered else Spread(0, 0)


def _share(flags: Iterable[bool]) -> float:
    listed = list(flags)
    return sum(listed) / len(listed) if listed else 0.0
