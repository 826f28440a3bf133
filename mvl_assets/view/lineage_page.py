"""The lineage of a pair as a page shows it: what `mvl trace` finds, as headed lists of names and texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.lineage import trace_rewrite

MAX_TEXT_CHARS = 20_000
_ANSWER_NOTES = ("model", "prompt", "finish_reason", "completion_tokens", "created_at")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the lineage.

    Attributes:
        heading: What it is.
        lines: Names and short values.
        text: A text as it is stored; empty for none.
    """

    heading: str
    lines: list[tuple[str, str]]
    text: str = ""


def read_lineage_sections(lake: Lake, category: str, rewrite_id: str) -> list[Section]:
    """Return the lineage of a rewrite, from its sample to the mixtures that have it.

    Raises:
        LakeError: The rewrite is gone.
    """
    lineage = trace_rewrite(lake, category, rewrite_id)
    sample = lineage["sample"]
    names = ("source", "file", "position", "native_id", "revision", "version_id", "run_id")
    sections = [Section("sample", _list_lines(sample, names))]
    if lineage["is_superseded"]:
        sections.append(Section("replaced", [("", "another rewrite has replaced this one since")]))
    if answer := lineage.get("answer"):
        sections.append(_build_answer("raw answer of the rewriting model", answer))
    sections += [_build_answer("raw answer of a judge", answer) for answer in lineage.get("verdicts", ())]
    sections += [
        Section(
            "used in a mixture", [("stage", row["stage"]), ("position", str(row["position"])), ("row", row["row_id"])]
        )
        for row in lineage["mixture"]
    ]
    sections += [
        Section("rejected", [("stage", row["stage"]), ("why", row["error"])], _cut(row["message"] or ""))
        for row in lineage["rejects"]
    ]
    return sections


def _build_answer(heading: str, answer: dict[str, Any]) -> Section:
    lines = [*_list_lines(answer, _ANSWER_NOTES), ("request", answer["request_key"])]
    reasoning = f"{answer['reasoning']}\n\n— answer —\n" if answer.get("reasoning") else ""
    return Section(heading, lines, _cut(reasoning + (answer["text"] or "")))


def _list_lines(row: dict[str, Any], names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), str(row[name])) for name in names if row.get(name) is not None]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}… ({len(text) - MAX_TEXT_CHARS:,} more)"
