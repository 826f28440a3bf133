"""Rewrites of drawn sources held against what was drawn, before and after the judge."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvl_assets.common.batches import iter_batches
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.demo_data.drawings.drawing import DrawnQAPair
from mvl_assets.demo_data.truth import DrawnTruths, read_truths
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.current_samples import CurrentSamples

_CHOICE = re.compile(r"^([A-D])\. (.*)$", re.MULTILINE)
_BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True)
class CheckedRewrite:
    """A judged rewrite about a drawing.

    Attributes:
        rewrite_id: Its id.
        source: Its source.
        is_true: Whether reasons and result are those of the drawing.
        keep: What the keep rule decided.
        matches_reference: Whether its result is the source's; None where nothing can be compared.
        all_yes: Whether the judge said Yes to every criterion.
    """

    rewrite_id: str
    source: str
    is_true: bool
    keep: bool
    matches_reference: bool | None
    all_yes: bool


def iter_checked_rewrites(lake: Lake, sources: Sequence[SourceSpec], raw_root: Path) -> Iterator[CheckedRewrite]:
    """Yield the judged rewrites about drawings whose question was drawn with the image.

    Args:
        lake: The lake.
        sources: Sources to look at; those without a file of truths are passed over.
        raw_root: Folder of the raw sources.
    """
    for source in sources:
        truths = read_truths(raw_root / source.slug)
        if truths:
            yield from _check_source(lake, source, truths)


def is_true_answer(qa_pairs: Sequence[DrawnQAPair], question: str, answer: str) -> bool | None:
    """Return whether an answer gives the reasons and the result of the drawing, but for case and white space.

    Args:
        qa_pairs: What is true of the drawing.
        question: May have lettered choices; the result is a letter then.
        answer: Reasons and result.

    Returns:
        None where the drawing does not answer the question.
    """
    question_text = question.split("\nA. ")[0].strip()
    choices = {text: letter for letter, text in _CHOICE.findall(question)}
    expected = [
        f"{pair.rationale} Answer: {choices.get(pair.answer, pair.answer)}"
        for pair in qa_pairs
        if pair.question == question_text
    ]
    return _normalize(answer) in map(_normalize, expected) if expected else None


def _normalize(text: str) -> str:
    return " ".join(text.lower().split())


def _check_source(lake: Lake, source: SourceSpec, truths: DrawnTruths) -> Iterator[CheckedRewrite]:
    judged_table, rewritten_table = (lake.get_table(f"{stage}/{source.category}") for stage in ("judged", "rewritten"))
    images_by_sample = {
        row["sample_id"]: row["image_ids"] or []
        for batch in CurrentSamples(lake, source.slug).scan(["sample_id", "image_ids"])
        for row in batch.to_pylist()
    }
    columns = ["rewrite_id", "sample_id", "keep", "matches_reference", "all_yes"]
    judged_rows = judged_table.iter_rows(columns, partition_key=source.slug)
    for rows in iter_batches(judged_rows, _BATCH_ROWS):
        has_ids = sql.is_in("rewrite_id", [row["rewrite_id"] for row in rows])
        rewrites = {
            row["rewrite_id"]: row["conversations"]
            for row in rewritten_table.iter_rows(["rewrite_id", "conversations"], has_ids, partition_key=source.slug)
        }
        for row in rows:
            image_ids = images_by_sample.get(row["sample_id"], [])
            qa_pairs = truths.get(image_ids[0], ()) if len(image_ids) == 1 else ()
            is_true = _check_conversation(qa_pairs, rewrites.get(row["rewrite_id"], []))
            if is_true is not None:
                yield CheckedRewrite(
                    row["rewrite_id"], source.slug, is_true, row["keep"], row["matches_reference"], row["all_yes"]
                )


def _check_conversation(qa_pairs: Sequence[DrawnQAPair], turns: Sequence[Mapping[str, Any]]) -> bool | None:
    """Return whether all answers are true; None if one of the questions was not drawn."""
    questions = [turn["value"].replace("<image>", "").strip() for turn in turns if turn["from"] == "human"]
    answers = [turn["value"] for turn in turns if turn["from"] == "gpt"]
    results = [is_true_answer(qa_pairs, *pair) for pair in zip(questions, answers, strict=True)]
    return None if not results or None in results else all(results)
