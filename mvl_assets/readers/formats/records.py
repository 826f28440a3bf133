r"""Any table of records, made a source by a field map in its catalog entry (`catalog.RecordsMap`) instead of by code.

    {"33": {"question": "Is it linear?", "choices": ["linear", "nonlinear"], "answer": "nonlinear", "unit": null}, ...}
    question,answer,file                     (or csv, tsv, jsonl, a JSON array, Parquet)
    {"image": "7.jpg", "qa": [{"question": "Where?", "answer": "At sea."}, {"question": "When?", "answer": "At noon."}]}

The question is put together as context, question (with its unit), hint, choices; with choices the answer is the text of
the right one. What the names in a map mean is in `templates`; worked examples are in `docs/add_a_source.md`. TabMWP
(promptpg.github.io), PlotQA (NiteshMethani/PlotQA), Sherlock (allenai/sherlock), ViQuAE (PaulLerner/ViQuAE) and others
come in this way.
"""

from __future__ import annotations

import base64
import binascii
import json
import string
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mvl_assets.errors import SourceError
from mvl_assets.readers import delimited, json_stream, parquet_columns, parquet_stream
from mvl_assets.readers.files import files_below, picture_at, relative
from mvl_assets.readers.formats.llava_parquet import picture_in_row
from mvl_assets.readers.json_stream import BadItem, Item
from mvl_assets.readers.registry import RowKey
from mvl_assets.readers.rows import Row, RowError, built, question_and_answer, rows_of, turns_of, with_markers
from mvl_assets.readers.sample import Broken, Picture, Sample, Turn
from mvl_assets.readers.templates import Record, check_template, plain

if TYPE_CHECKING:
    from mvl_assets.config.catalog import RecordsMap, SourceSpec

WEB = ("http://", "https://")
ENCODED = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR")
"""How JPEG, PNG, GIF and WebP begin in base64."""


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    fields = source.records
    if fields is None:
        raise SourceError(source.slug, "the format `records` needs a `records` field map in the catalog")
    for template in (fields.question, fields.answer, *fields.pictures):
        check_template(source.slug, template or "")
    make = partial(_sample, root, fields)
    id_fields = (fields.id,) if fields.id is not None else ()
    for path in files_below(source.slug, root, fields.files):
        for row in rows_of(relative(root, path), _items(path, fields), *id_fields):
            yield built(row, make)


def keys(source: SourceSpec, root: Path) -> Iterator[RowKey]:
    """Ids and places; no picture is looked at."""
    fields = source.records
    if fields is None:
        raise SourceError(source.slug, "the format `records` needs a `records` field map in the catalog")
    for path in files_below(source.slug, root, fields.files):
        name = relative(root, path)
        if fields.shape != "parquet":
            items = _items(path, fields)
        elif fields.id is not None:
            items = _table(path, fields, (fields.id, fields.id.split(".")[0]))
        else:
            yield from (RowKey(name, position, None) for position in range(parquet_stream.row_count(path)))
            continue
        for row in rows_of(name, items, *((fields.id,) if fields.id is not None else ())):
            yield RowKey(name, row.position, row.native_id)


def _items(path: Path, fields: RecordsMap) -> Iterator[Item | BadItem]:
    if fields.shape in ("list", "dict_of_id"):
        under = tuple(fields.key.split(".")) if fields.key and not _is_bare_list(path, fields) else ()
        return json_stream.elements(path, under)
    if fields.shape == "jsonl":
        return json_stream.lines(path)
    if fields.shape == "parquet":
        return _table(path, fields)
    return delimited.rows(path, "," if fields.shape == "csv" else "\t", quoted=fields.quoted)


def _table(path: Path, fields: RecordsMap, only: tuple[str, ...] | None = None) -> Iterator[Item | BadItem]:
    shown = () if fields.picture_field is None else ((fields.picture_field.split(".")[0],),)
    # Columns that the map does not name may hold what Python cannot, such as nanoseconds.
    named = repr(fields.model_dump()).replace("\\'", "'")
    return parquet_columns.rows(path, shown, [name for name in parquet_stream.names(path) if name in named], only)


def _is_bare_list(path: Path, fields: RecordsMap) -> bool:
    """Some lists are in circulation both bare and inside an object (PlotQA's `qa_pairs`)."""
    return fields.shape == "list" and json_stream.starts_with(path) == "["


def _sample(root: Path, fields: RecordsMap, row: Row) -> Sample:
    record = Record(row)
    if fields.turns is not None:
        turns = turns_of(_decoded(record.value(fields.turns)))
    elif fields.pairs is not None:
        turns = _turns_of_pairs(record, fields, fields.pairs)
    else:
        turns = question_and_answer(*_question_and_answer(record, fields))
    pictures = _pictures(root, record, fields)
    return Sample(row.file, row.position, with_markers(turns, len(pictures)), row.native_id, pictures)


def _turns_of_pairs(record: Record, fields: RecordsMap, pairs: str) -> tuple[Turn, ...]:
    entries = _decoded(record.value(pairs))
    if not isinstance(entries, list) or not entries:
        raise RowError("no_turns", f"{pairs} is no list of questions")
    turns: list[Turn] = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise RowError("bad_field", f"{pairs} holds a {type(entry).__name__} where an object was expected")
        turns += question_and_answer(*_question_and_answer(record.narrowed(entry), fields))
    return tuple(turns)


def _question_and_answer(record: Record, fields: RecordsMap) -> tuple[str, str]:
    question, answer = record.fill(fields.question or ""), record.fill(fields.answer or "")
    if unit := record.text(fields.unit):
        question = f"{question} (Unit: {unit})"
    choices = _choices(record.value(fields.choices))
    parts = [
        record.text(fields.context),
        question,
        record.text(fields.hint),
        "\n".join(f"{label}. {text}" for label, text in choices.items()),
    ]
    if choices and fields.answer_is != "text":
        answer = _chosen(choices, answer, fields.answer_is)
    return "\n".join(p for p in parts if p), answer


def _choices(value: Any) -> dict[str, str]:
    """Options by label. A list is lettered; an object brings its labels."""
    found = _decoded(value)
    if found is None or found in ([], {}):
        return {}
    if isinstance(found, list) and len(found) <= len(string.ascii_uppercase):
        found = dict(zip(string.ascii_uppercase, found, strict=False))
    if not isinstance(found, dict):
        raise RowError("bad_choices", f"the choices are a {type(found).__name__} of {len(str(found))} characters")
    return {str(label): plain(text, "choices") for label, text in found.items()}


def _chosen(choices: Mapping[str, str], answer: str, answer_is: str) -> str:
    if answer_is == "letter":
        wanted = answer.strip().strip("().").casefold()
        found = [text for label, text in choices.items() if label.casefold() == wanted]
    else:
        index = int(answer) if answer.strip().isdecimal() and len(answer) < 10 else len(choices)
        found = list(choices.values())[index : index + 1]
    if not found:
        raise RowError("bad_answer", f"the answer {answer[:40]!r} names none of {len(choices)} choices")
    return found[0]


def _pictures(root: Path, record: Record, fields: RecordsMap) -> tuple[Picture, ...]:
    folders = _folders(record.row.file, fields)
    if fields.picture_field is None:
        return tuple(_named(root, record.fill(template), folders) for template in fields.pictures)
    found = record.value(fields.picture_field)
    cells = found if isinstance(found, list) else [] if found in (None, "") else [found]
    place = f"{record.row.file}#{record.row.position}"
    return tuple(_picture(root, cell, f"{place}.{index}", folders) for index, cell in enumerate(cells))


def _folders(file: str, fields: RecordsMap) -> tuple[str, ...]:
    """Where a record's pictures are looked for: beside its file, then in the source's folder."""
    beside = PurePosixPath(file).parent.as_posix()
    bases = ("",) if beside == "." else (f"{beside}/", "")
    return tuple(base + folder for base in bases for folder in ("", "images", *fields.picture_folders))


def _named(root: Path, name: str, folders: tuple[str, ...]) -> Picture:
    """The picture file called `name`; for a web address, the file under the longest end of its path that is there."""
    if not name.startswith(WEB):
        return picture_at(root, name, folders)
    parts = unquote(urlsplit(name).path).strip("/").split("/")
    for start in range(len(parts)):
        try:
            return picture_at(root, "/".join(parts[start:]), folders)
        except RowError as error:
            if error.error not in ("missing_picture", "bad_path"):  # parts of an address may be no file name
                raise
    raise RowError("missing_picture", f"no file here ends the path of {name[:200]!r}")


def _picture(root: Path, cell: Any, name: str, folders: tuple[str, ...]) -> Picture:
    if not isinstance(cell, str):
        return picture_in_row(root, cell, name)
    text = cell.partition(";base64,")[2] if cell.startswith("data:") else cell
    # A name, unless it begins like a picture or is longer than any file name.
    if text is cell and not cell.startswith(ENCODED) and (len(cell) <= 255 or cell.startswith(WEB)):
        return _named(root, cell, folders)
    try:
        return Picture(name, data=base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise RowError("bad_base64", f"the picture's text cannot be decoded: {error}") from error


def _decoded(value: Any) -> Any:
    """A list or object that a csv cell carries as JSON text."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RowError("bad_json", f"a cell begins like JSON but is none: {error}") from error
    return value
