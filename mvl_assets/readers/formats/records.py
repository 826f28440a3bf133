r"""Any table of records, read by a field map in the catalog (`catalog.RecordsMapping`) instead of by code.

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
import re
import string
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mvl_assets.common.rejects import RejectError
from mvl_assets.errors import SourceError
from mvl_assets.readers.content_parts import list_part_images
from mvl_assets.readers.conversations.image_markers import convert_markers
from mvl_assets.readers.conversations.majority_answer import select_majority_answer
from mvl_assets.readers.conversations.templates import Record, check_template, format_scalar
from mvl_assets.readers.files import (
    format_relative_path,
    list_data_files,
    resolve_image,
    resolve_video,
    resolve_video_by_id,
)
from mvl_assets.readers.format import ARCHIVE_FILES, JSON_FILES, Format, RowKey
from mvl_assets.readers.formats.llava_parquet import parse_image_cell
from mvl_assets.readers.parsers import delimited, json_stream, parquet_columns, parquet_stream
from mvl_assets.readers.parsers.json_stream import Item, RejectedItem
from mvl_assets.readers.record_files import ITEM_READERS, add_path_fields, list_tables
from mvl_assets.readers.rows import (
    Row,
    add_image_markers,
    add_video_marker,
    build_qa_turns,
    build_sample,
    parse_turns,
    to_rows,
)
from mvl_assets.readers.sample import EncodedImage, RejectedRow, Sample, Turn, Video

if TYPE_CHECKING:
    from mvl_assets.config.catalog import RecordsMapping, SourceSpec

URL_SCHEMES = ("http://", "https://")
BASE64_IMAGE_PREFIXES = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR")
"""How JPEG, PNG, GIF and WebP begin in base64."""

_OPTION_LABEL = re.compile(r"\(?([A-Z])[.):]\s+(?=\S)")


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows.

    Raises:
        SourceError: The source has no `records` field map or no files, or a template of the map is broken.
    """
    fields = source.records
    if fields is None:
        raise SourceError(source.slug, "the format `records` needs a `records` field map in the catalog")
    for template in (fields.question, fields.answer, *fields.images):
        check_template(source.slug, template or "")
    to_sample = partial(_to_sample, root, fields)
    id_fields = (fields.id,) if fields.id is not None else ()
    for path in _list_files(source.slug, root, fields):
        name = format_relative_path(root, path)
        for row in to_rows(name, add_path_fields(fields, name, _iter_items(root, path, fields)), *id_fields):
            yield build_sample(row, to_sample)


def read_keys(source: SourceSpec, root: Path) -> Iterator[RowKey]:
    """Yield ids and positions; no image is looked for.

    Raises:
        SourceError: The source has no `records` field map or no files.
    """
    fields = source.records
    if fields is None:
        raise SourceError(source.slug, "the format `records` needs a `records` field map in the catalog")
    for path in _list_files(source.slug, root, fields):
        name = format_relative_path(root, path)
        if fields.shape != "parquet":
            items = add_path_fields(fields, name, _iter_items(root, path, fields))
        elif fields.id is not None:
            items = add_path_fields(fields, name, _iter_table(path, fields, (fields.id, fields.id.split(".")[0])))
        else:
            yield from (RowKey(name, position, None) for position in range(parquet_stream.count_rows(path)))
            continue
        for row in to_rows(name, items, *((fields.id,) if fields.id is not None else ())):
            yield RowKey(name, row.position, row.native_id)


def _list_files(slug: str, root: Path, fields: RecordsMapping) -> list[Path]:
    if fields.shape == "lance":
        return list_tables(slug, root, fields.file_globs)
    return list_data_files(slug, root, *fields.file_globs)


def _iter_items(root: Path, path: Path, fields: RecordsMapping) -> Iterator[Item | RejectedItem]:
    if (read_items := ITEM_READERS.get(fields.shape)) is not None:
        return read_items(root, path, fields)
    if fields.shape in ("list", "dict_of_id"):
        key_path = tuple(fields.key.split(".")) if fields.key and not _is_bare_list(path, fields) else ()
        return json_stream.iter_elements(path, key_path)
    if fields.shape == "jsonl":
        return json_stream.iter_lines(path)
    if fields.shape == "parquet":
        return _iter_table(path, fields)
    delimiter = fields.delimiter or ("," if fields.shape == "csv" else "\t")
    is_quoted = fields.shape == "csv" if fields.quoted is None else fields.quoted
    return delimited.iter_rows(path, delimiter, quoted=is_quoted, columns=fields.columns, encoding=fields.encoding)


def _iter_table(
    path: Path, fields: RecordsMapping, projection: tuple[str, ...] | None = None
) -> Iterator[Item | RejectedItem]:
    image_fields = (fields.image_field,) if isinstance(fields.image_field, str) else fields.image_field or ()
    required_columns = tuple((name.split(".")[0],) for name in dict.fromkeys(image_fields))
    # Columns that the map does not name may hold what Python cannot, such as nanoseconds.
    field_map_text = repr(fields.model_dump()).replace("\\'", "'")
    return parquet_columns.iter_rows(
        path,
        required_columns,
        [name for name in parquet_stream.read_column_names(path) if name in field_map_text],
        projection,
    )


def _is_bare_list(path: Path, fields: RecordsMapping) -> bool:
    """Return whether the file is a bare list: some are published both bare and in an object (PlotQA's `qa_pairs`)."""
    return fields.shape == "list" and json_stream.peek_first_char(path) == "["


def _to_sample(root: Path, fields: RecordsMapping, row: Row) -> Sample:
    record = Record(row, fields.names, fields.empty_values)
    part_images: list[Any] = []
    if fields.turns is not None:
        conversation = _parse_json_cell(record.get_value(fields.turns))
        turns = parse_turns(conversation)
        part_images = list_part_images(conversation)
    elif fields.pairs is not None:
        turns = _build_pair_turns(record, fields, fields.pairs)
    else:
        turns = build_qa_turns(*_build_qa(record, fields))
    if fields.video is not None:
        video = _resolve_named_video(root, record.render(fields.video), _list_folders(row.file, fields, "videos"))
        return Sample(row.file, row.position, add_video_marker(turns), row.native_id, video=video)
    images = _resolve_images(root, record, fields, part_images)
    if fields.marker is not None:
        turns, images = convert_markers(turns, images, fields.marker)
    return Sample(row.file, row.position, add_image_markers(turns, len(images)), row.native_id, images)


def _build_pair_turns(record: Record, fields: RecordsMapping, pairs_field: str | tuple[str, ...]) -> tuple[Turn, ...]:
    entries = _list_pairs(record, pairs_field)
    if not isinstance(entries, list) or not entries:
        raise RejectError("no_turns", f"{pairs_field} is not a list of questions")
    turns: list[Turn] = []
    for entry in entries:
        if isinstance(entry, list):
            entry = {str(index): value for index, value in enumerate(entry)}
        if not isinstance(entry, dict):
            raise RejectError("bad_field", f"{pairs_field} holds a {type(entry).__name__} where an object was expected")
        turns += build_qa_turns(*_build_qa(record.overlay(entry), fields))
    return tuple(turns)


def _list_pairs(record: Record, pairs_field: str | tuple[str, ...]) -> Any:
    """Return the entries of a list of objects; lists that go together are taken apart into objects."""
    if isinstance(pairs_field, str):
        entries = _parse_json_cell(record.get_value(pairs_field))
    else:
        entries = {field: _parse_json_cell(record.get_value(field)) for field in pairs_field}
    if not isinstance(entries, dict) or not all(isinstance(column, list) for column in entries.values()):
        return entries
    lengths = {name: len(column) for name, column in entries.items()}
    if len(set(lengths.values())) > 1:
        raise RejectError("bad_field", f"lists that go together have different lengths: {lengths}"[:300])
    return [dict(zip(entries, entry, strict=True)) for entry in zip(*entries.values(), strict=True)]


def _build_qa(record: Record, fields: RecordsMapping) -> tuple[str, str]:
    question, answer = record.render(fields.question or ""), _render_answer(record, fields)
    if unit := record.get_text(fields.unit):
        question = f"{question} (Unit: {unit})"
    choices = _parse_choices(_get_choices(record, fields.choices))
    parts = [
        record.get_text(fields.context),
        question,
        record.get_text(fields.hint),
        "\n".join(f"{label}. {text}" for label, text in choices.items()),
    ]
    if choices and fields.answer_is in ("index", "letter"):
        answer = _select_choice(choices, answer, fields.answer_is)
    return "\n".join(p for p in parts if p), answer


def _render_answer(record: Record, fields: RecordsMapping) -> str:
    template = fields.answer or ""
    if fields.answer_is == "votes" and template[:1] == "{" and template[-1:] == "}":
        return select_majority_answer(_parse_json_cell(record.get_value(template[1:-1])))
    return record.render(template)


def _get_choices(record: Record, field: str | tuple[str, ...] | None) -> Any:
    if not isinstance(field, tuple):
        return record.get_value(field)
    values = {name: record.get_value(name) for name in field}
    present = {name: value for name, value in values.items() if value not in (None, "")}
    # One letter each: the answer names them. Others are lettered like a list.
    return present if all(len(name) == 1 for name in field) else list(present.values())


def _parse_choices(value: Any) -> dict[str, str]:
    """Return options by label. A list is lettered, unless its options are; an object brings its labels."""
    choices = _parse_json_cell(value)
    if choices is None or choices in ([], {}):
        return {}
    if isinstance(choices, list) and len(choices) <= len(string.ascii_uppercase):
        choices = dict(zip(string.ascii_uppercase, _strip_labels(choices), strict=False))
    if not isinstance(choices, dict):
        raise RejectError(
            "bad_choices", f"the choices are a {type(choices).__name__} of {len(str(choices))} characters"
        )
    return {str(label): format_scalar(text, "choices") for label, text in choices.items()}


def _strip_labels(options: list[Any]) -> list[Any]:
    """Return options without the letters that all of them begin with, in order (`A. Apples.`, as Video-MME's do)."""
    matches = [_OPTION_LABEL.match(option) if isinstance(option, str) else None for option in options]
    labels = string.ascii_uppercase[: len(options)]
    is_lettered = [match is not None and match[1] == label for match, label in zip(matches, labels, strict=True)]
    return [match.string[match.end() :] for match in matches if match] if all(is_lettered) else options


def _select_choice(choices: Mapping[str, str], answer: str, answer_is: str) -> str:
    if answer_is == "letter":
        answer_label = answer.strip().strip("().").casefold()
        matches = [text for label, text in choices.items() if label.casefold() == answer_label]
    else:
        index = int(answer) if answer.strip().isdecimal() and len(answer) < 10 else len(choices)
        matches = list(choices.values())[index : index + 1]
    if not matches:
        raise RejectError("bad_answer", f"the answer {answer[:40]!r} names none of {len(choices)} choices")
    return matches[0]


def _resolve_images(
    root: Path, record: Record, fields: RecordsMapping, part_images: list[Any]
) -> tuple[EncodedImage, ...]:
    folders = _list_folders(record.row.file, fields, "images")
    if fields.images:
        return tuple(_resolve_named_image(root, record.render(template), folders) for template in fields.images)
    if fields.image_field is None:
        cells = part_images
    else:
        field_names = (fields.image_field,) if isinstance(fields.image_field, str) else fields.image_field
        cells = [cell for name in field_names for cell in _list_cells(record.get_value(name))]
    row_name = f"{record.row.file}#{record.row.position}"
    return tuple(_resolve_image_cell(root, cell, f"{row_name}.{index}", folders) for index, cell in enumerate(cells))


def _list_cells(value: Any) -> list[Any]:
    """Return the images of a field; null, an empty text and a {bytes, path} without either are none."""
    value = _parse_json_cell(value) if isinstance(value, str) and value[:1] == "[" else value
    cells = value if isinstance(value, list) else [value]
    return [cell for cell in cells if cell not in (None, "", {"bytes": None, "path": None})]


def _list_folders(file: str, fields: RecordsMapping, media_folder: str) -> tuple[str, ...]:
    """List where a record's images or video are looked for: in its file's folder, then in the source's."""
    file_folder = PurePosixPath(file).parent.as_posix()
    bases = ("",) if file_folder == "." else (f"{file_folder}/", "")
    return tuple(base + folder for base in bases for folder in ("", media_folder, *fields.image_folders))


def _resolve_named_image(root: Path, name: str, folders: tuple[str, ...]) -> EncodedImage:
    """Resolve an image file; for a URL, the file under the longest end of its path that exists."""
    if not name.startswith(URL_SCHEMES):
        return resolve_image(root, name, folders)
    path_parts = [part for part in unquote(urlsplit(name).path).split("/") if part]
    for start in range(len(path_parts)):
        try:
            return resolve_image(root, "/".join(path_parts[start:]), folders)
        except RejectError as error:
            if error.code not in ("missing_image", "bad_path"):  # parts of a URL may not be file names
                raise
    raise RejectError("missing_image", f"no file here ends the path of {name[:200]!r}")


def _resolve_named_video(root: Path, name: str, folders: tuple[str, ...]) -> Video:
    """Resolve a video by its file name, with or without an ending, or as a folder of frames."""
    try:
        return resolve_video_by_id(root, name, folders)
    except RejectError as error:
        if error.code != "missing_video":
            raise
        return resolve_video(root, name, folders)


def _resolve_image_cell(root: Path, cell: Any, name: str, folders: tuple[str, ...]) -> EncodedImage:
    if isinstance(cell, EncodedImage):
        return cell
    if not isinstance(cell, str):
        return parse_image_cell(root, cell, name)
    text = cell.partition(";base64,")[2] if cell.startswith("data:") else cell
    # A name, unless it begins like an image or is longer than any file name.
    if (
        text is cell
        and not cell.startswith(BASE64_IMAGE_PREFIXES)
        and (len(cell) <= 255 or cell.startswith(URL_SCHEMES))
    ):
        return _resolve_named_image(root, cell, folders)
    try:
        return EncodedImage(name, data=base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise RejectError("bad_base64", f"the image's text cannot be decoded: {error}") from error


def _parse_json_cell(value: Any) -> Any:
    """Return a list or object that a csv cell holds as JSON text."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RejectError("bad_json", f"a cell begins like JSON but is not: {error}") from error
    return value


FORMAT = Format(
    row_files=(*JSON_FILES, "*.csv", "*.tsv", "*.parquet", "*.arrow"),
    media_files=ARCHIVE_FILES,
    description="the files its `records` map names, and the images or videos",
    read=read,
    read_keys=read_keys,
)
