"""When a training row touches an item of a benchmark, and what follows: the thresholds of `curation/contamination`."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from mvl_assets.config.strict_yaml import StrictModel

HitKind = Literal[
    "same_image_same_question",
    "same_image",
    "same_question",
    "declared",
    "near_duplicate",
    "shared_image",
]
"""The kinds of hits. The last two are copies of the lake's own held-out questions, and rows that show their images."""

HIT_KINDS: tuple[HitKind, ...] = get_args(HitKind)


class ContaminationRules(StrictModel):
    """Thresholds over stored scores: to move one matches nothing again.

    Attributes:
        benchmarks: Which benchmarks' items are matched, by the names of their assets.
        min_correlation: Smallest correlation of the grey values of an item's image and its copy.
        max_block_difference: Largest difference of one block of a copy, in standard deviations of the grey values; a
            watermark makes one of up to 1.
        max_lost_edges: Largest share of the edges of a small window that a copy loses: a digit that differs loses more,
            a watermark less.
        min_question_containment: Smallest share of the shorter question's words that the longer one has, of two
            questions about one image.
        min_question_overlap: Smallest share of all words of the two questions that they have in common.
        min_tokens: Tokens of an item's question and options below which its text alone is no evidence.
        min_ngram_overlap: Smallest share of an item's 5-grams, weighted by how rare they are in its benchmark, that a
            text holds; of `short_tokens` or more. At `min_tokens` all are needed, and between them in proportion.
        short_tokens: See above.
        min_answer_overlap: Smallest share of the words of an item's answer in the row's answers that is evidence.
        min_ngram_overlap_without_answer: Smallest such share of the 5-grams where the answer is no evidence.
        removes: Kinds of hits whose rows no mixture takes. With `paper_parity` none are removed; all are counted.
        taints: Kinds of hits that take an item out of the clean subset of its benchmark.
        allow: Hits that remove nothing and taint nothing, each with the reason: by training source, by benchmark, by
            `source:benchmark`, or by the id of a sample or an item.
        allow_labelled: Whether hits of samples are allowed, too, whose pairs people call good (`mvl view`).
        max_hits: Largest number of rows of a mixture's sources with a hit of `removes` before the check of the profile
            fails; null never fails.
    """

    benchmarks: list[str] | Literal["all"] = "all"
    min_correlation: float = Field(default=0.88, gt=0, le=1)
    max_block_difference: float = Field(default=1.25, ge=0)
    max_lost_edges: float = Field(default=0.15, ge=0)
    min_question_containment: float = Field(default=0.8, ge=0, le=1)
    min_question_overlap: float = Field(default=0.5, ge=0, le=1)
    min_tokens: int = Field(default=20, ge=13)
    min_ngram_overlap: float = Field(default=0.8, gt=0, le=1)
    short_tokens: int = Field(default=50, ge=13)
    min_answer_overlap: float = Field(default=0.5, gt=0, le=1)
    min_ngram_overlap_without_answer: float = Field(default=0.95, gt=0, le=1)
    removes: list[HitKind] = Field(
        default=["same_image_same_question", "same_question", "declared", "near_duplicate", "shared_image"]
    )
    taints: list[HitKind] = Field(default=["same_image_same_question", "same_image", "same_question"])
    allow: dict[str, str] = Field(default_factory=dict)
    allow_labelled: bool = False
    max_hits: int | None = Field(default=None, ge=0)
