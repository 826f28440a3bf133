r"""Any table of records, made a source by a field map in its catalog entry (`catalog.RecordsMap`) instead of by code.

    {"33": {"question": "Is it linear?", "choices": ["linear", "nonlinear"], "answer": "nonlinear", "unit": null}, ...}
    question,answer,file                     (or csv, tsv, jsonl, a JSON array, Parquet)

Templates such as `"tables/{id}.png"` are filled from the record. The question is put together as context, question
(with its unit), hint, choices; with choices the answer is the text of the right one. TabMWP
(promptpg.github.io) comes in this way.
"""

from __future__ import annotations

import base64
import binascii
import csv
import json
import math
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.errors import SourceError
from mvl_assets.readers import json_stream, parquet_stream
from mvl_assets.readers.files import files_below, picture_at, relative
from mvl_assets.readers.json_stream import BROKEN_FILE, BadItem, Item
from mvl_assets.readers.llava_parquet import picture_in_row
from mvl_assets.readers.rows import Row, RowError, built, question_and_answer, rows_of, turns_of, with_markers
from mvl_assets.readers.sample import Broken, Picture, Sample

if TYPE_CHECKING:
    from mvl_assets.catalog import RecordsMap, SourceSpec

FIELD_LIMIT = 16 << 20
"""Bytes one field of a csv or tsv file may have."""


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    fields = source.records
    if fields is None:
        raise SourceError(source.slug, "the format `records` needs a `records` field map in the catalog")
    for template in (fields.question, fields.answer, *fields.pictures):
        _check_template(source.slug, template or "")
    make = partial(_sample, root, fields)
    id_fields = (fields.id,) if fields.id is not None else ()
    for path in files_below(source.slug, root, fields.files):
        for row in rows_of(relative(root, path), _items(path, fields), *id_fields):
            yield built(row, make)


def _check_template(slug: str, template: str) -> None:
    try:
        for _, field, form, conversion in string.Formatter().parse(template):
            if form or conversion or field == "":
                raise ValueError("write fields as {field} or {field.inner}")
    except ValueError as error:
        raise SourceError(slug, f"the template {template!r} cannot be used: {error}") from error


def _items(path: Path, fields: RecordsMap) -> Iterator[Item | BadItem]:
    if fields.shape in ("list", "dict_of_id"):
        return json_stream.elements(path, tuple(fields.key.split(".")) if fields.key else ())
    if fields.shape == "jsonl":
        return json_stream.lines(path)
    if fields.shape == "parquet":
        return parquet_stream.rows(path)
    return _delimited(path, "," if fields.shape == "csv" else "\t")


def _delimited(path: Path, delimiter: str) -> Iterator[Item | BadItem]:
    """Rows of a csv or tsv file with a header line (RFC 4180), as objects of strings."""
    csv.field_size_limit(FIELD_LIMIT)
    position = 0
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.reader(stream, delimiter=delimiter)
            header = next(reader, None)
            if not header:
                yield BadItem(0, BROKEN_FILE, "there is no header line")
                return
            while True:
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield BadItem(position, "bad_csv", f"line {reader.line_num}: {error}")
                    position += 1
                    continue
                if not cells:
                    continue
                if len(cells) != len(header):
                    yield BadItem(position, "bad_csv", f"{len(cells)} cells for {len(header)} columns")
                elif any("\udc80" <= c <= "\udcff" for cell in cells if not cell.isascii() for c in cell):
                    yield BadItem(position, "bad_utf8", f"line {reader.line_num} is not UTF-8")
                else:
                    yield Item(position, dict(zip(header, cells, strict=True)))
                position += 1
    except OSError as error:
        yield BadItem(position, BROKEN_FILE, f"cannot be read: {error.strerror}")


def _sample(root: Path, fields: RecordsMap, row: Row) -> Sample:
    record = _Record(row)
    if fields.turns is not None:
        turns = turns_of(_decoded(record.value(fields.turns)))
    else:
        turns = question_and_answer(*_question_and_answer(record, fields))
    pictures = _pictures(root, record, fields)
    return Sample(row.file, row.position, with_markers(turns, len(pictures)), row.native_id, pictures)


def _question_and_answer(record: _Record, fields: RecordsMap) -> tuple[str, str]:
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
    return {str(label): _plain(text, "choices") for label, text in found.items()}


def _chosen(choices: Mapping[str, str], answer: str, answer_is: str) -> str:
    if answer_is == "letter":
        wanted = answer.strip().strip("().").casefold()
        found = [text for label, text in choices.items() if label.casefold() == wanted]
    else:
        index = int(answer) if answer.strip().isdecimal() else len(choices)
        found = list(choices.values())[index : index + 1]
    if not found:
        raise RowError("bad_answer", f"the answer {answer[:40]!r} names none of {len(choices)} choices")
    return found[0]


def _pictures(root: Path, record: _Record, fields: RecordsMap) -> tuple[Picture, ...]:
    if fields.picture_field is None:
        return tuple(picture_at(root, record.fill(template)) for template in fields.pictures)
    found = record.value(fields.picture_field)
    cells = found if isinstance(found, list) else [] if found in (None, "") else [found]
    place = f"{record.row.file}#{record.row.position}"
    return tuple(_picture(root, cell, f"{place}.{index}") for index, cell in enumerate(cells))


def _picture(root: Path, cell: Any, name: str) -> Picture:
    if not isinstance(cell, str):
        return picture_in_row(root, cell, name)
    text = cell.partition(";base64,")[2] if cell.startswith("data:") else cell
    if text is cell and len(cell) <= 255:  # longer than any file name: the picture itself
        return picture_at(root, cell)
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


def _plain(value: Any, field: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError("bad_field", f"{field} holds a {type(value).__name__} where text was expected")
    return str(value)


@dataclass(frozen=True, slots=True)
class _Record:
    """A record, with templates and dotted field names filled from it."""

    row: Row

    def value(self, field: str | None) -> Any:
        """The value of a field (`a.b` looks inside), None when it or the field's name is absent."""
        if field is None:
            return None
        if field == "id" and "id" not in self.row.value:
            return self.row.native_id
        found: Any = self.row.value
        for part in [field] if field in self.row.value else field.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        # Tables written by pandas say NaN where a cell is empty.
        return None if isinstance(found, float) and math.isnan(found) else found

    def text(self, field: str | None) -> str:
        """The field's text, "" when there is none."""
        found = self.value(field)
        return "" if field is None or found is None else _plain(found, field).strip()

    def fill(self, template: str) -> str:
        """The template with its fields filled. Raises `RowError("missing_field")` for one that has no value."""
        parts = []
        for literal, field, _, _ in string.Formatter().parse(template):
            parts.append(literal)
            if field is not None:
                found = self.row.native_id if field == "id" else self.value(field)
                if found is None or found == "":
                    raise RowError("missing_field", f"the record has no {field!r}")
                parts.append(_plain(found, field))
        return "".join(parts)
