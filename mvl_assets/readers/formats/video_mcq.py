r"""Questions about videos with options to choose from: EgoSchema and Video-MME.

EgoSchema as its authors publish it, `questions.json` and `subset_answers.json` beside `videos/<q_uid>.mp4`:

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

from mvl_assets.readers import parquet_stream
from mvl_assets.readers.files import files_below, relative, video_by_id
from mvl_assets.readers.formats.llava_json import items
from mvl_assets.readers.json_stream import BadItem, Item, elements
from mvl_assets.readers.rows import Row, RowError, built, question_and_answer, rows_of, with_video_marker
from mvl_assets.readers.sample import Broken, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

ANSWERS = "subset_answers.json"
FOLDERS = ("videos", "data", "video", "")

_IDS = ("question_id", "q_uid", "question_idx", "id")
_VIDEOS = ("videoID", "video_idx", "q_uid", "video_id", "video")
_LABEL = re.compile(r"\(?([A-Z])[.):]\s*")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    published = _published(root / ANSWERS)
    for path in _tables(source, root):
        for row in rows_of(relative(root, path), _items(path), *_IDS):
            yield built(row, partial(_sample, root, published))


def _tables(source: SourceSpec, root: Path) -> list[Path]:
    found = files_below(source.slug, root, "*.json", "*.jsonl", "*.parquet", "*/*.parquet")
    tables = [path for path in found if path.name != ANSWERS and not path.name.startswith("uid_to_")]
    return [path for path in tables if path.parent.name == "Subset"] or tables


def _items(path: Path) -> Iterator[Item | BadItem]:
    return parquet_stream.rows(path) if path.suffix == ".parquet" else items(path)


def _published(path: Path) -> dict[str, Any]:
    """EgoSchema's published answers by `q_uid`, some hundred; {} when there is no such file or none can be read."""
    return {item.key: item.value for item in elements(path) if isinstance(item, Item) and item.key is not None}


def _sample(root: Path, published: Mapping[str, Any], row: Row) -> Sample:
    question = row.value.get("question")
    if not isinstance(question, str) or not question.strip():
        raise RowError("no_question", "the row has no `question`")
    options = _options(row.value)
    answer = row.value.get("answer")
    if answer is None:
        answer = published.get(str(row.value.get("q_uid")))
    if answer in (None, ""):
        raise RowError("no_answer", "the answer is not published")
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip(string.ascii_uppercase, options, strict=False))
    turns = question_and_answer(f"{question.strip()}\n{listed}", _chosen(options, answer))
    own_id = next((row.value[name] for name in _VIDEOS if row.value.get(name)), None)
    video = video_by_id(root, own_id, FOLDERS)
    return Sample(row.file, row.position, with_video_marker(turns), row.native_id, video=video)


def _options(value: Mapping[str, Any]) -> list[str]:
    """The options without the letters that some tables write before them. Raises `RowError`."""
    found = value.get("options", value.get("option"))
    if found is None:
        found = [value[f"option {n}"] for n in range(10) if f"option {n}" in value]
    if not isinstance(found, list) or len(found) < 2 or not all(isinstance(o, str) and o.strip() for o in found):
        raise RowError("bad_choices", "the row has no list of options")
    if len(found) > len(string.ascii_uppercase):
        raise RowError("bad_choices", f"the row has {len(found)} options")
    options = [option.strip() for option in found]
    labels = [_LABEL.match(option) for option in options]
    if all(m is not None and m[1] == letter for m, letter in zip(labels, string.ascii_uppercase, strict=False)):
        options = [option[m.end() :] for option, m in zip(options, labels, strict=True) if m is not None]
    return options


def _chosen(options: list[str], answer: object) -> str:
    """The option that an index from 0 or a letter means."""
    text = "" if isinstance(answer, bool) else str(answer).strip().strip("().")
    if text.isascii() and text.isdecimal() and len(text) < 3:
        index = int(text)
    elif len(text) == 1 and text.upper() in string.ascii_uppercase:
        index = string.ascii_uppercase.index(text.upper())
    else:
        index = len(options)
    if index >= len(options):
        raise RowError("bad_answer", f"the answer {str(answer)[:40]!r} names none of {len(options)} options")
    return options[index]
