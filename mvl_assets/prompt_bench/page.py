"""One standalone HTML page of a trial: images, originals and what each round made of them, side by side.

Text from data is never HTML: Jinja escapes every value, Markdown and LaTeX of rewrites become the elements that
`view.rendered_text` allows, and the page's policy allows no script and no other address.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mvl_assets.common.markdown import encode_data_uri
from mvl_assets.config.profile import Price
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.views import read_few_rows
from mvl_assets.media.image import ImageError, build_thumbnail
from mvl_assets.model_stage.dialogue import strip_markers
from mvl_assets.prompt_bench.trial import Refusal, Rewrite, SampleResult, Trial
from mvl_assets.view.rendered_text import render_text

# A page opens in a browser and travels by mail: at most so many images a row, of this size, and bytes of them in all.
MAX_ROW_IMAGES, IMAGE_SIDE, MAX_PAGE_IMAGE_BYTES = 4, 640, 24 << 20
MAX_TEXT_CHARS = 20_000
_SAMPLE_COLUMNS = ["sample_id", "file", "position", "conversations", "image_ids"]
_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the page.

    Attributes:
        title: Its heading.
        trial: What it shows.
        price: Of the model that gave the answers.
        shows_text: Whether the text of the rewrites is shown, or their verdicts alone.
        empty_note: What stands where there is nothing.
    """

    title: str
    trial: Trial
    price: Price
    shows_text: bool = True
    empty_note: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing of any sample."""
        return not any(result.rewrites or result.refusals for result in self.trial.results.values())


@dataclass(slots=True)
class Page:
    """What the template shows.

    Attributes:
        summary: A table, its headings first.
        row_notes: What there is to say about single samples, by sample id.
        rows: Filled by `write_page`.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    summary: Sequence[Sequence[str]]
    prompt_text: str
    prompt_changes: str
    row_notes: Mapping[str, str] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


def write_page(path: Path, lake: Lake, source: str, page: Page, columns: Sequence[Column]) -> None:
    """Write the page of the samples that the columns have results of.

    Args:
        path: The file.
        lake: The lake, for samples and images.
        source: Slug of the source.
        page: What stands above the rows.
        columns: The columns, all of the same samples; one with nothing in it takes no room, but the last one does.

    Raises:
        OSError: The file cannot be written.
    """
    version_ids = list(columns[0].trial.results)
    samples = read_few_rows(lake, "samples", version_ids, _SAMPLE_COLUMNS, source)
    columns_with_results = [column for column in columns if column is columns[-1] or not column.is_empty]
    n_image_bytes = 0
    for version_id in version_ids:
        sample = samples[version_id]
        image_ids = list(sample["image_ids"] or ())
        images = _build_images(lake, source, image_ids) if n_image_bytes < MAX_PAGE_IMAGE_BYTES else []
        n_image_bytes += sum(map(len, images))
        position = "" if sample["position"] is None else f", row {sample['position']}"
        page.rows.append(
            {
                "sample_id": sample["sample_id"],
                "origin": f"{sample['file'] or ''}{position}",
                "row_note": page.row_notes.get(sample["sample_id"], ""),
                "images": images,
                "image_note": _describe_missing(len(image_ids) - len(images)),
                "original": _list_turns(sample["conversations"]),
                "cells": [_build_cell(column, column.trial.results[version_id]) for column in columns_with_results],
            }
        )
    path.write_bytes(_render(page).encode("utf-8", "backslashreplace"))


def _render(page: Page) -> str:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, loader=FileSystemLoader(_FOLDER), trim_blocks=True
    )
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template("page.html").render(page=page, style=style, style_hash=f"sha256-{digest}")


def _build_images(lake: Lake, source: str, image_ids: Sequence[str]) -> list[str]:
    uris = []
    for image_id in image_ids[:MAX_ROW_IMAGES]:
        data = lake.get_images(source).read_stored_images([image_id]).get(image_id)
        if data is not None:
            try:
                uris.append(encode_data_uri(build_thumbnail(data, IMAGE_SIDE), "image/jpeg"))
            except ImageError:
                continue
    return uris


def _describe_missing(n_missing: int) -> str:
    return f"{n_missing} more images of the row are not shown" if n_missing else ""


def _build_cell(column: Column, result: SampleResult) -> dict[str, Any]:
    is_empty = not (result.rewrites or result.refusals)
    return {
        "title": column.title,
        "rewrites": [_describe_rewrite(rewrite, shows_text=column.shows_text) for rewrite in result.rewrites],
        "refusals": _cut_refusals(result.refusals) if column.shows_text else [],
        "answers": [_describe_answer(answer, column.price) for answer in result.answers] if column.shows_text else [],
        "note": column.empty_note if is_empty else "",
    }


def _describe_rewrite(rewrite: Rewrite, *, shows_text: bool) -> dict[str, Any]:
    judged = rewrite.judged
    return {
        "number": f"rewrite {rewrite.row['ordinal'] + 1}",
        "task_type": rewrite.row["task_type"] or "",
        "state": "" if judged is None else "kept" if judged["keep"] else "dropped",
        "turns": [(role, render_text(text)) for role, text in _list_turns(rewrite.row["conversations"])]
        if shows_text
        else [],
        "verdicts": [] if judged is None else _list_verdicts(judged),
        "refusals": _cut_refusals(rewrite.refusals),
        "outcome": _describe_outcome(rewrite),
    }


def _list_verdicts(judged: Mapping[str, Any]) -> list[dict[str, Any]]:
    verdicts = [("", verdict) for verdict in judged["verdicts"] or ()]
    verdicts += [
        (f"{member['model']}, ", verdict) for member in judged["panel"] or () for verdict in member["verdicts"] or ()
    ]
    return [
        {
            "is_yes": verdict["verdict"],
            "text": f"{judge}{verdict['criterion']}: {'Yes' if verdict['verdict'] else 'No'}"
            + ("" if verdict["p_yes"] is None else f", P(yes) {verdict['p_yes']:.2f}"),
        }
        for judge, verdict in verdicts
    ]


def _describe_outcome(rewrite: Rewrite) -> str:
    judged = rewrite.judged
    if judged is None:
        return "" if rewrite.refusals else "not judged"
    outcome = "kept" if judged["keep"] else f"dropped: {judged['drop_reason']}"
    reference = {True: "; as the reference answer", False: "; not as the reference answer"}
    return outcome + reference.get(judged["matches_reference"], "")


def _describe_answer(answer: Mapping[str, Any], price: Price) -> dict[str, str]:
    n_read, n_written = answer["prompt_tokens"] or 0, answer["completion_tokens"] or 0
    cost = price.compute_cost(n_read, n_written)
    money = f", {price.currency} {cost:.6f}" if cost else ""
    return {
        "text": cut_text(answer["text"]),
        "reasoning": cut_text(answer["reasoning"] or ""),
        "tokens": f"{n_read:,} tokens read and {n_written:,} written{money}",
    }


def _list_turns(conversation: Sequence[Mapping[str, str]] | None) -> list[tuple[str, str]]:
    return [(turn["from"], cut_text(strip_markers(turn["value"] or ""))) for turn in conversation or ()]


def _cut_refusals(refusals: Sequence[Refusal]) -> list[Refusal]:
    return [Refusal(refusal.error, cut_text(refusal.message)) for refusal in refusals]


def cut_text(text: str) -> str:
    """Return a text as the page shows it: whole, or its first characters and a word about the others."""
    if len(text) <= MAX_TEXT_CHARS:
        return text
    return f"{text[:MAX_TEXT_CHARS]}… ({len(text) - MAX_TEXT_CHARS:,} more characters)"
