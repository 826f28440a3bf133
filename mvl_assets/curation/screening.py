"""Measurements for assigning a source to a group, on up to 1,000 of its rows, and a rule that suggests one.

The paper's authors looked at 1,000 random items of every source and sorted the sources into A (detailed, kept as they
are), B (short or incomplete, rewritten) and C (too brief or vague, dropped): arXiv 2412.05237 §2.1. The numbers here
describe the same properties, and `suggest_group` is a rule over them. It measures lengths, not meaning: a suggestion
that differs from the declared group is only a reason to look at the rows.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvl_assets.config.catalog import Category, Group
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.screening import sample_by_hash
from mvl_assets.media.image import compute_standard_size

MAX_ROWS = 1_000
MIN_ROWS = 200
"""Rows to measure, as many as the paper's authors looked at; and the fewest for which a group is suggested."""

SAMPLE_COLUMNS = ("sample_id", "source", "file", "position", "conversations", "image_ids", "image_properties")
# Enough to detect a row's script; some rows hold whole pages.
MAX_SCRIPT_CHARS = 2_000
MARKER = re.compile(r"<(?:image|video)>")
# Han, kana and hangul: written without spaces (or nearly), so each counts as a word.
CJK = re.compile(
    r"[\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f]"
)
LATIN = re.compile(r"[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff]")
LETTER = re.compile(r"[^\W\d_]")
WORD = re.compile(r"\S*[^\W_]\S*")


@dataclass(frozen=True, slots=True)
class GroupThresholds:
    """Thresholds of `suggest_group`.

    Answers are short if `one_word_share` of them or more are one word, or if their median is below
    `short_answer_words`. Short answers of which `repeated_share` or more are the same leave nothing to rewrite.
    Captions are a class of their own: the paper keeps none as they are (its category Caption has no source of group A)
    and drops those with a median below `brief_caption_words`.
    """

    one_word_share: float = 0.5
    short_answer_words: float = 8
    repeated_share: float = 0.5
    brief_caption_words: float = 15


DEFAULT_THRESHOLDS = GroupThresholds()


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Median and 90th percentile."""

    median: float
    p90: float


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """Sizes of a source's images, in pixels.

    `out_of_range_share` is the share that standardising changes: a side outside 224 to 4,096 px, or an aspect ratio
    above 7:1 (arXiv 2412.05237 §2).
    """

    n_images: int
    median_width: float
    median_height: float
    min_side: int
    max_side: int
    out_of_range_share: float


@dataclass(frozen=True, slots=True)
class ScreeningReport:
    """Measurements of a source. Shares are between 0 and 1.

    Attributes:
        n_rows: Rows that were measured.
        n_total: Rows of the source.
        n_copies: Rows of the whole source whose content equals another's.
        n_answers: Answers in the measured rows.
        answer_chars: Characters per answer.
        answer_words: Words per answer.
        one_word_share: Answers of one word or none.
        most_frequent_share: Answers that equal the most frequent one.
        answers_per_sample: Answers per row.
        script_shares: Rows by the script of most of their letters.
        image_sizes: None without images.
        examples: A few of the rows.
    """

    n_rows: int
    n_total: int
    n_copies: int
    n_answers: int
    answer_chars: Quantiles
    answer_words: Quantiles
    one_word_share: float
    most_frequent_share: float
    answers_per_sample: Quantiles
    script_shares: dict[str, float]
    image_sizes: ImageSizes | None
    examples: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class GroupSuggestion:
    """A group, and the reason in words."""

    group: Group
    reason: str


def screen_source(lake: Lake, source: str, n_examples: int = 6) -> ScreeningReport:
    """Measure the newest rows of a source. Reads no image: their sizes are stored in columns."""
    hash_sample = sample_by_hash(lake, source, MAX_ROWS, SAMPLE_COLUMNS)
    rows = hash_sample.rows
    conversations = [row["conversations"] or [] for row in rows]
    answers = [turn["value"] for conversation in conversations for turn in conversation if turn["from"] == "gpt"]
    word_counts = [count_words(answer) for answer in answers]
    image_by_id = {
        image_id: image
        for row in rows
        for image_id, image in zip(row["image_ids"] or [], row["image_properties"] or [], strict=True)
    }
    return ScreeningReport(
        n_rows=len(rows),
        n_total=hash_sample.n_samples,
        n_copies=hash_sample.n_copies,
        n_answers=len(answers),
        answer_chars=_compute_quantiles([len(answer) for answer in answers]),
        answer_words=_compute_quantiles(word_counts),
        one_word_share=_compute_share(count <= 1 for count in word_counts),
        most_frequent_share=_compute_most_frequent_share(answers),
        answers_per_sample=_compute_quantiles(
            [sum(turn["from"] == "gpt" for turn in conversation) for conversation in conversations]
        ),
        script_shares=_compute_script_shares(conversations),
        image_sizes=_summarize_image_sizes([(image["width"], image["height"]) for image in image_by_id.values()]),
        examples=rows[:n_examples],
    )


def suggest_group(
    report: ScreeningReport, category: Category, thresholds: GroupThresholds = DEFAULT_THRESHOLDS
) -> GroupSuggestion:
    """Return the group that the lengths of the answers suggest, with the reason in words."""
    median_words, one_word_share = report.answer_words.median, report.one_word_share
    length_text = f"half of the answers have {median_words:.0f} words or fewer"
    if category == "caption":
        if median_words < thresholds.brief_caption_words:
            return GroupSuggestion("C", f"brief captions: {length_text}")
        return GroupSuggestion("B", f"captions that are long enough to write questions from: {length_text}")
    if one_word_share < thresholds.one_word_share and median_words >= thresholds.short_answer_words:
        return GroupSuggestion("A", f"answers are full: {length_text}, {one_word_share:.0%} are one word")
    if report.most_frequent_share >= thresholds.repeated_share:
        return GroupSuggestion("C", f"{report.most_frequent_share:.0%} of the answers are the same short one")
    return GroupSuggestion("B", f"answers are short: {length_text}, {one_word_share:.0%} are one word")


def count_words(text: str) -> int:
    """Return the number of words: runs without spaces with a letter or digit, and each CJK character."""
    n_cjk = len(CJK.findall(text))
    return n_cjk + len(WORD.findall(CJK.sub(" ", text) if n_cjk else text))


def detect_script(text: str) -> str:
    """Return `Latin`, `CJK` or `other`, whichever most letters of the text belong to; `none` without letters."""
    text = MARKER.sub("", text)[:MAX_SCRIPT_CHARS]
    n_letters = len(LETTER.findall(text))
    letter_counts = {"Latin": len(LATIN.findall(text)), "CJK": len(CJK.findall(text))}
    letter_counts["other"] = n_letters - sum(letter_counts.values())
    return max(letter_counts, key=lambda name: letter_counts[name]) if n_letters else "none"


def _compute_script_shares(conversations: Sequence[Sequence[Mapping[str, str]]]) -> dict[str, float]:
    script_counts = Counter(
        detect_script("\n".join(turn["value"] for turn in conversation)) for conversation in conversations
    )
    return {name: count / len(conversations) for name, count in script_counts.most_common()}


def _compute_most_frequent_share(answers: Sequence[str]) -> float:
    answer_counts = Counter(" ".join(answer.casefold().split()).rstrip(".") for answer in answers)
    return answer_counts.most_common(1)[0][1] / len(answers) if answers else 0.0


def _summarize_image_sizes(sizes: Sequence[tuple[int, int]]) -> ImageSizes | None:
    if not sizes:
        return None
    return ImageSizes(
        n_images=len(sizes),
        median_width=statistics.median(width for width, _ in sizes),
        median_height=statistics.median(height for _, height in sizes),
        min_side=min(map(min, sizes)),
        max_side=max(map(max, sizes)),
        out_of_range_share=_compute_share(compute_standard_size(*size).action != "as_is" for size in sizes),
    )


def _compute_quantiles(values: Sequence[int]) -> Quantiles:
    ordered = sorted(values)
    return (
        Quantiles(statistics.median(ordered), ordered[(9 * (len(ordered) - 1)) // 10]) if ordered else Quantiles(0, 0)
    )


def _compute_share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0
