r"""Questions about a table and the text around it, without an image: FinQA and TAT-QA, `*.json` below the folder.

    [{"id": "ETR/2016/page_23.pdf-2", "pre_text": ["..."], "table": [["", "2015"], ["revenue", "5829"]],
      "post_text": ["..."], "qa": {"question": "...", "answer": "94", "exe_ans": 94.0, "program": "..."}}, ...]

    [{"table": {"uid": "3ffd", "table": [["", "2019"], ["Other", "44.1"]]},
      "paragraphs": [{"uid": "f4ac", "order": 1, "text": "..."}],
      "questions": [{"order": 5, "question": "...", "answer": -12.6, "scale": "million", ...}]}, ...]

One sample per element, with all its questions as turns. The table and its paragraphs are drawn as one image
(`media/table_image`) when the image is read. An answer of several spans is joined with commas and followed by its
scale, as TAT-QA's own evaluation compares it; FinQA's executed answer takes the place of an empty one.

Where files are of splits (`train.json`, `tatqa_dataset_train.json`), only the training split is read: the folder may be
a clone of the repository, with dev, test and its gold answers. TAT-QA's clone has its rows twice; `dataset_tagop/`, as
its model reads them, is left out. Checked against README.md of czyssrs/FinQA and dataset_raw/tatqa_dataset_dev.json of
NExTplusplus/TAT-QA.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.common.atomic_write import write_bytes_atomic
from mvl_assets.common.rejects import RejectError
from mvl_assets.config.settings import resolve_unpacked_dir
from mvl_assets.media import table_image
from mvl_assets.readers.conversations.caption_turns import build_caption_turns
from mvl_assets.readers.files import format_relative_path, list_data_files
from mvl_assets.readers.format import Format
from mvl_assets.readers.parsers.json_stream import Item, RejectedItem, iter_elements
from mvl_assets.readers.rows import Row, build_sample, to_rows
from mvl_assets.readers.sample import EncodedImage, RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec


DRAWN_DIR = "drawn"
"""Folder for drawn pages, beside the unpacked archives: drawing is most of the time that such a source takes."""

PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True, slots=True)
class RenderedPage(EncodedImage):
    """An image that is drawn when it is first read, and kept below `drawn_dir` for the next ingest."""

    page: table_image.Page | None = None
    drawn_dir: Path | None = None

    def read(self, max_bytes: int = 256 << 20) -> bytes:
        assert self.page is not None
        path = None if self.drawn_dir is None else self.drawn_dir / f"{table_image.compute_page_key(self.page)}.png"
        data = _read_drawn(path)
        if data is None:
            data = table_image.draw_page(self.page)
            _keep_drawn(path, data)
        if len(data) > max_bytes:
            raise ValueError(f"{self.name} is larger than {max_bytes} bytes")
        return data


def _read_drawn(path: Path | None) -> bytes | None:
    """Return a page that was drawn before; None for one that is not there, or not whole after a power cut."""
    try:
        data = b"" if path is None else path.read_bytes()
    except OSError:
        return None
    return data if data.endswith(PNG_END) else None


def _keep_drawn(path: Path | None, data: bytes) -> None:
    """Keep a drawn page. Where nothing can be written, it is drawn again next time."""
    if path is not None and not path.parent.parent.is_symlink():
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(path, data)


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    to_sample = partial(_to_sample, resolve_unpacked_dir(root) / DRAWN_DIR)
    for path in _list_train_files(list_data_files(source.slug, root, "**/*.json")):
        for row in to_rows(format_relative_path(root, path), map(_add_uid_key, iter_elements(path)), "id"):
            yield build_sample(row, to_sample)


def _list_train_files(paths: Sequence[Path]) -> Sequence[Path]:
    """Leave out other splits and prepared copies; all files count where none is named as the training split."""
    train_paths = [path for path in paths if "train" in path.stem.lower()]
    raw_paths = [path for path in train_paths if path.parent.name != "dataset_tagop"]
    return raw_paths or train_paths or paths


def _add_uid_key(item: Item | RejectedItem) -> Item | RejectedItem:
    """Name TAT-QA's elements by their table."""
    if isinstance(item, Item) and isinstance(item.value, dict) and isinstance(item.value.get("table"), dict):
        return Item(item.position, item.value, item.value["table"].get("uid"))
    return item


def _to_sample(drawn_dir: Path, row: Row) -> Sample:
    table = row.value.get("table")
    if isinstance(table, dict):
        pairs = _build_tatqa_pairs(row.value.get("questions"))
        text_before, text_after = _parse_paragraphs(row.value.get("paragraphs")), []
        table = table.get("table")
    else:
        pairs = [_build_finqa_pair(row.value.get("qa"))]
        text_before, text_after = _parse_texts(row.value.get("pre_text")), _parse_texts(row.value.get("post_text"))
    page = table_image.lay_out_page(_parse_cells(table), text_before, text_after)
    image = RenderedPage(f"{row.file}#{row.position}.png", page=page, drawn_dir=drawn_dir)
    return Sample(row.file, row.position, build_caption_turns(pairs, 1), row.native_id, (image,))


def _build_finqa_pair(qa: Any) -> tuple[str, str]:
    if not isinstance(qa, Mapping):
        raise RejectError("no_turns", "the element has no `qa`")
    return _parse_text(qa.get("question")), _parse_text(qa.get("answer")) or _require_answer(
        _parse_text(qa.get("exe_ans"))
    )


def _build_tatqa_pairs(questions: Any) -> list[tuple[str, str]]:
    if not isinstance(questions, list) or not questions:
        raise RejectError("no_turns", "the element has no `questions`")
    return [_build_tatqa_pair(question if isinstance(question, Mapping) else {}) for question in questions]


def _build_tatqa_pair(question: Mapping[str, Any]) -> tuple[str, str]:
    raw_answer = question.get("answer")
    spans = [_parse_text(span) for span in (raw_answer if isinstance(raw_answer, list) else [raw_answer])]
    answer = _require_answer(", ".join(span for span in spans if span))
    return _parse_text(question.get("question")), f"{answer} {_parse_text(question.get('scale'))}".strip()


def _require_answer(answer: str) -> str:
    if not answer:
        raise RejectError("no_answer", "a question has no answer, as in the held-back test sets")
    return answer


def _parse_cells(table: Any) -> list[list[str]]:
    if not isinstance(table, list) or not all(isinstance(row, list) for row in table):
        raise RejectError("no_table", "the element has no table of rows")
    return [[_parse_text(cell) for cell in row] for row in table]


def _parse_paragraphs(value: Any) -> list[str]:
    entries = [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []
    return _parse_texts([entry.get("text") for entry in sorted(entries, key=_get_order)])


def _get_order(entry: Mapping[str, Any]) -> float:
    order = entry.get("order")
    return order if isinstance(order, int | float) else 0


def _parse_texts(value: Any) -> list[str]:
    return [text for text in map(_parse_text, value) if text] if isinstance(value, list) else []


def _parse_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RejectError("bad_field", f"a {type(value).__name__} where text was expected")
    return str(value).strip()


FORMAT = Format(
    row_files=("*.json",),
    description="FinQA's train.json or TAT-QA's tatqa_dataset_train.json, tables with questions",
    read=read,
)
