r"""Questions about a table and the text around it, with no picture: FinQA and TAT-QA. Every `*.json` below the folder.

    [{"id": "ETR/2016/page_23.pdf-2", "pre_text": ["..."], "table": [["", "2015"], ["revenue", "5829"]],
      "post_text": ["..."], "qa": {"question": "...", "answer": "94", "exe_ans": 94.0, "program": "..."}}, ...]

    [{"table": {"uid": "3ffd", "table": [["", "2019"], ["Other", "44.1"]]},
      "paragraphs": [{"uid": "f4ac", "order": 1, "text": "..."}],
      "questions": [{"order": 5, "question": "...", "answer": -12.6, "scale": "million", ...}]}, ...]

One sample per element, with all its questions as turns. The table and its paragraphs are drawn as one picture
(`media/table_picture`) when the picture is read. An answer of several spans is joined with commas and followed by its
scale, as TAT-QA's own evaluation compares it; FinQA's executed answer stands in for an empty one. Checked against
README.md of czyssrs/FinQA and dataset_raw/tatqa_dataset_dev.json of NExTplusplus/TAT-QA.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.media import table_image
from mvl_assets.readers.caption_turns import asked
from mvl_assets.readers.files import files_below, relative
from mvl_assets.readers.json_stream import BadItem, Item, elements
from mvl_assets.readers.rows import Row, RowError, built, rows_of
from mvl_assets.readers.sample import Broken, Picture, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec


@dataclass(frozen=True, slots=True)
class DrawnPage(Picture):
    """A picture that is drawn when it is wanted."""

    page: table_image.Page | None = None

    def read(self, limit: int = 256 << 20) -> bytes:
        assert self.page is not None
        data = table_image.draw(self.page)
        if len(data) > limit:
            raise ValueError(f"{self.name} is larger than {limit} bytes")
        return data


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    for path in files_below(source.slug, root, "**/*.json"):
        for row in rows_of(relative(root, path), map(_with_uid, elements(path)), "id"):
            yield built(row, _sample)


def _with_uid(item: Item | BadItem) -> Item | BadItem:
    """TAT-QA's elements are named by their table."""
    if isinstance(item, Item) and isinstance(item.value, dict) and isinstance(item.value.get("table"), dict):
        return Item(item.position, item.value, item.value["table"].get("uid"))
    return item


def _sample(row: Row) -> Sample:
    table = row.value.get("table")
    if isinstance(table, dict):
        pairs = _tat_pairs(row.value.get("questions"))
        before, after = _paragraphs(row.value.get("paragraphs")), []
        table = table.get("table")
    else:
        pairs = [_fin_pair(row.value.get("qa"))]
        before, after = _texts(row.value.get("pre_text")), _texts(row.value.get("post_text"))
    try:
        page = table_image.lay_out(_cells(table), before, after)
    except table_image.TablePictureError as error:
        raise RowError(error.error, error.message) from error
    picture = DrawnPage(f"{row.file}#{row.position}.png", page=page)
    return Sample(row.file, row.position, asked(pairs, 1), row.native_id, (picture,))


def _fin_pair(qa: Any) -> tuple[str, str]:
    if not isinstance(qa, Mapping):
        raise RowError("no_turns", "the element has no `qa`")
    return _text(qa.get("question")), _text(qa.get("answer")) or _answered(_text(qa.get("exe_ans")))


def _tat_pairs(questions: Any) -> list[tuple[str, str]]:
    if not isinstance(questions, list) or not questions:
        raise RowError("no_turns", "the element has no `questions`")
    return [_tat_pair(question if isinstance(question, Mapping) else {}) for question in questions]


def _tat_pair(question: Mapping[str, Any]) -> tuple[str, str]:
    found = question.get("answer")
    spans = [_text(span) for span in (found if isinstance(found, list) else [found])]
    answer = _answered(", ".join(span for span in spans if span))
    return _text(question.get("question")), f"{answer} {_text(question.get('scale'))}".strip()


def _answered(answer: str) -> str:
    if not answer:
        raise RowError("no_answer", "a question has no answer, as in the held-back test sets")
    return answer


def _cells(table: Any) -> list[list[str]]:
    if not isinstance(table, list) or not all(isinstance(row, list) for row in table):
        raise RowError("no_table", "the element has no table of rows")
    return [[_text(cell) for cell in row] for row in table]


def _paragraphs(found: Any) -> list[str]:
    entries = [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []
    return _texts([entry.get("text") for entry in sorted(entries, key=_order)])


def _order(entry: Mapping[str, Any]) -> float:
    order = entry.get("order")
    return order if isinstance(order, int | float) else 0


def _texts(found: Any) -> list[str]:
    return [text for text in map(_text, found) if text] if isinstance(found, list) else []


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError("bad_field", f"a {type(value).__name__} where text was expected")
    return str(value).strip()
