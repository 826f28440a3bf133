r"""Questions about videos with options to choose from: EgoSchema and Video-MME.

EgoSchema as its authors publish it, `questions.json` and `subset_answers.json` next to `videos/<q_uid>.mp4`:

    [{"q_uid": "001934bb-...", "question": "...", "option 0": "C stops scrolling ...", ..., "option 4": "..."}, ...]
    {"001934bb-...": 3, ...}                        only 500 answers are published; the other rows become `no_answer`

Both as tables on the hub (`*.parquet`; `*.json` and `*.jsonl` are read, too), with videos in `videos_chunked_01.zip`:

    question_idx: "0"      video_idx: "0074f737-..."  option: ["A. C is ...", ...]   answer: "3"     question: "..."
    question_id: "001-1"   videoID: "fFjv93ACGo8"     options: ["A. Apples.", ...]   answer: "C"     question: "..."

The options follow the question, lettered; the answer is the text of the right one. Of EgoSchema's tables only `Subset`
is read where it is there: the others hold the same questions without answers. Checked against questions.json and
README.md of egoschema/EgoSchema, the task `egoschema` of EvolvingLMMs-Lab/lmms-eval, and the card of
lmms-lab/Video-MME.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.files import format_relative_path, list_data_files, resolve_video_by_id
from mvl_assets.readers.format import ARCHIVE_FILES, JSON_FILES, VIDEO_FILES, Format
from mvl_assets.readers.formats.llava_json import iter_items
from mvl_assets.readers.parsers import parquet_stream
from mvl_assets.readers.parsers.json_stream import Item, RejectedItem, iter_elements
from mvl_assets.readers.rows import Row, add_video_marker, build_qa_turns, build_sample, to_rows
from mvl_assets.readers.sample import RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

ANSWERS_FILE = "subset_answers.json"
VIDEO_FOLDERS = ("videos", "data", "video", "")

_ID_FIELDS = ("question_id", "q_uid", "question_idx", "id")
_VIDEO_FIELDS = ("videoID", "video_idx", "q_uid", "video_id", "video")
_LABEL_PREFIX = re.compile(r"\(?([A-Z])[.):]\s*")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    published_answers = _load_published_answers(root / ANSWERS_FILE)
    for path in _list_tables(source, root):
        for row in to_rows(format_relative_path(root, path), _iter_items(path), *_ID_FIELDS):
            yield build_sample(row, partial(_to_sample, root, published_answers))


def _list_tables(source: SourceSpec, root: Path) -> list[Path]:
    paths = list_data_files(source.slug, root, "*.json", "*.jsonl", "*.parquet", "*/*.parquet")
    tables = [path for path in paths if path.name != ANSWERS_FILE and not path.name.startswith("uid_to_")]
    return [path for path in tables if path.parent.name == "Subset"] or tables


def _iter_items(path: Path) -> Iterator[Item | RejectedItem]:
    return parquet_stream.iter_rows(path) if path.suffix == ".parquet" else iter_items(path)


def _load_published_answers(path: Path) -> dict[str, Any]:
    """Load EgoSchema's published answers by `q_uid`, some hundred; {} without a file that can be read."""
    return {item.key: item.value for item in iter_elements(path) if isinstance(item, Item) and item.key is not None}


def _to_sample(root: Path, published_answers: Mapping[str, Any], row: Row) -> Sample:
    question = row.value.get("question")
    if not isinstance(question, str) or not question.strip():
        raise RejectError("no_question", "the row has no `question`")
    options = _parse_options(row.value)
    answer = row.value.get("answer")
    if answer is None:
        answer = published_answers.get(str(row.value.get("q_uid")))
    if answer in (None, ""):
        raise RejectError("no_answer", "the answer is not published")
    option_lines = "\n".join(f"{letter}. {text}" for letter, text in zip(string.ascii_uppercase, options, strict=False))
    turns = build_qa_turns(f"{question.strip()}\n{option_lines}", _select_option(options, answer))
    video_id = next((row.value[name] for name in _VIDEO_FIELDS if row.value.get(name)), None)
    video = resolve_video_by_id(root, video_id, VIDEO_FOLDERS)
    return Sample(row.file, row.position, add_video_marker(turns), row.native_id, video=video)


def _parse_options(value: Mapping[str, Any]) -> list[str]:
    """Return the options without the letters that some tables write before them. Raises `RejectError`."""
    raw_options = value.get("options", value.get("option"))
    if raw_options is None:
        raw_options = [value[f"option {n}"] for n in range(10) if f"option {n}" in value]
    if (
        not isinstance(raw_options, list)
        or len(raw_options) < 2
        or not all(isinstance(o, str) and o.strip() for o in raw_options)
    ):
        raise RejectError("bad_choices", "the row has no list of options")
    if len(raw_options) > len(string.ascii_uppercase):
        raise RejectError("bad_choices", f"the row has {len(raw_options)} options")
    options = [option.strip() for option in raw_options]
    labels = [_LABEL_PREFIX.match(option) for option in options]
    if all(m is not None and m[1] == letter for m, letter in zip(labels, string.ascii_uppercase, strict=False)):
        options = [option[m.end() :] for option, m in zip(options, labels, strict=True) if m is not None]
    return options


def _select_option(options: list[str], answer: object) -> str:
    """Return the option that an index from 0 or a letter means."""
    text = "" if isinstance(answer, bool) else str(answer).strip().strip("().")
    if text.isascii() and text.isdecimal() and len(text) < 3:
        index = int(text)
    elif len(text) == 1 and text.upper() in string.ascii_uppercase:
        index = string.ascii_uppercase.index(text.upper())
    else:
        index = len(options)
    if index >= len(options):
        raise RejectError("bad_answer", f"the answer {str(answer)[:40]!r} names none of {len(options)} options")
    return options[index]


FORMAT = Format(
    row_files=("*.parquet", *JSON_FILES),
    media_files=(*ARCHIVE_FILES, *VIDEO_FILES),
    description="the table of questions and the videos",
    read=read,
)
