"""Finds the files of a folder that hold records, and the shape of a field map that reads them."""

from __future__ import annotations

import csv
import glob
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mvl_assets.common.path_template import translate_template
from mvl_assets.common.pick_evenly import pick_evenly
from mvl_assets.readers.parsers import (
    arrow_stream,
    delimited,
    json_stream,
    lance_table,
    parquet_stream,
    single_record_files,
    webdataset,
)
from mvl_assets.readers.parsers.json_stream import Item, RejectedItem
from mvl_assets.readers.sniffing.listing import IMAGE_SUFFIXES, SPLIT_NAMES, Listing

SAMPLE_RECORDS = 60
"""Records of a group of files that are looked at."""

MAX_INSPECTED_FILES = 40
"""Files of one folder and ending that are all inspected; of more, a few stand for the rest."""

MAX_NAMED_FILES = 20
"""Files that are named one by one where a glob would match others too."""

SINGLE_RECORD_SHAPES = ("json", "xml", "text", "image")
WHOLE_JSON_BYTES = 64 << 20
PREFIX_BYTES = 4 << 20
"""A JSON file is read whole up to the first; of a larger one, the second of its beginning tells what it is."""

MAX_FIELDS = 20
"""An object with more members whose keys are numbers is a table of records."""

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")


@dataclass(slots=True)
class RecordFiles:
    """Files of one form.

    Attributes:
        shape: Shape of the field map.
        options: Other keys of the map that say how the files are read.
        files: Their names below the folder.
        records: The first records.
        label_names: Names of label numbers, by field, where the files give them.
    """

    shape: str
    options: dict[str, Any]
    files: list[str]
    records: list[dict[str, Any]]
    label_names: dict[str, list[str]] = field(default_factory=dict)

    @property
    def fields(self) -> frozenset[str]:
        """The fields that any of the records has."""
        return frozenset(name for record in self.records for name in record)


def find_record_files(listing: Listing, notes: list[str]) -> list[RecordFiles]:
    """Return the groups of files that hold records; what cannot be understood goes to `notes`."""
    groups: list[RecordFiles] = []
    for files in _group_by_folder(listing.files).values():
        inspected = (
            files if len(files) <= MAX_INSPECTED_FILES else [files[index] for index in pick_evenly(len(files), 8)]
        )
        folder_groups: list[RecordFiles] = []
        for name in inspected:
            try:
                group = _inspect_file(listing.root, name, notes)
            except (OSError, ValueError, csv.Error, RecursionError, pa.ArrowException) as error:
                notes.append(f"{name}: cannot be read: {parquet_stream.format_error(error)[:200]}")
                continue
            if group is not None:
                _merge_group(folder_groups, group)
        if len(inspected) < len(files) and len(folder_groups) == 1:
            folder_groups[0].files = list(files)
        for group in folder_groups:
            _merge_group(groups, group)
    for name in listing.tables:
        records = list(_take_records(lance_table.iter_rows(listing.root / name)))
        _merge_group(groups, RecordFiles("lance", {}, [name], records))
    _add_image_texts(listing, groups)
    return [group for group in groups if group.records or group.shape in ("text", "image")]


def build_image_group(listing: Listing) -> RecordFiles | None:
    """Return the images themselves as records, where folders may be their classes; None where there are none."""
    files = [name for name in listing.files if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and "/" in name]
    return RecordFiles("image", {}, files, [{} for _ in files[:SAMPLE_RECORDS]]) if files else None


def format_files(group: RecordFiles, all_files: Sequence[str]) -> str | list[str]:
    """Return the path template of a group's files, or their names where the template fits others too."""
    template = _build_template(group)
    matcher = re.compile(translate_template(template))
    n_matches = sum(matcher.fullmatch(name) is not None for name in all_files)
    if n_matches > len(group.files) <= MAX_NAMED_FILES:
        return [glob.escape(name) for name in group.files]
    return template


def _build_template(group: RecordFiles) -> str:
    """Return the path template of a group's files: stars and fields where their paths differ."""
    if len(group.files) == 1 and group.shape not in SINGLE_RECORD_SHAPES:
        return glob.escape(group.files[0])
    paths = [name.split("/") for name in group.files]
    suffixes = {PurePosixPath(name).suffix for name in group.files}
    if len({len(parts) for parts in paths}) > 1:
        (suffix,) = suffixes if len(suffixes) == 1 else ("",)
        return f"**/{'{name}' if group.shape in SINGLE_RECORD_SHAPES else '*'}{suffix or '.*'}"
    *folders, names = zip(*paths, strict=True)
    parts = []
    n_fields = 0
    for column in folders:
        if len(set(column)) == 1:
            parts.append(glob.escape(column[0]))
            continue
        n_fields += 1
        is_split = {name.lower() for name in column} <= SPLIT_NAMES
        parts.append("{split}" if is_split else "{folder}" if n_fields == 1 else f"{{folder_{n_fields}}}")
    if group.shape in SINGLE_RECORD_SHAPES:
        return "/".join([*parts, "{name}" + (suffixes.pop() if len(suffixes) == 1 else ".{ending}")])
    return "/".join([*parts, _build_name_glob(names)])


def _build_name_glob(names: Sequence[str]) -> str:
    """Return a glob of names: what they begin and end with, and a star between."""
    shortest = min(names, key=len)
    if len(set(names)) == 1:
        return glob.escape(shortest)
    start = next((n for n in range(len(shortest)) if len({name[n] for name in names}) > 1), len(shortest))
    while start and shortest[start - 1].isalnum():  # whole words
        start -= 1
    suffix = PurePosixPath(shortest).suffix if len({PurePosixPath(name).suffix for name in names}) == 1 else ""
    return f"{glob.escape(shortest[:start])}*{suffix}"


def _group_by_folder(files: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in files:
        path = PurePosixPath(name)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            groups[path.parent.as_posix(), path.suffix.lower()].append(name)
    return groups


def _merge_group(groups: list[RecordFiles], new: RecordFiles) -> None:
    """Add a group, to another that reads in the same way and has most fields in common if there is one."""
    for group in groups:
        common, union = len(group.fields & new.fields), len(group.fields | new.fields)
        if (group.shape, group.options) == (new.shape, new.options) and 2 * common >= union:
            group.files += new.files
            if len(group.records) < SAMPLE_RECORDS:
                group.records += new.records[: max(5, SAMPLE_RECORDS - len(group.records))]
            return
    groups.append(new)


def _inspect_file(root: Path, name: str, notes: list[str]) -> RecordFiles | None:
    path = root / name
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return RecordFiles("jsonl", {}, [name], list(_take_records(json_stream.iter_lines(path))))
    if suffix == ".json":
        return _inspect_json(path, name, notes)
    if suffix == ".xml":
        records = [item.value for item in single_record_files.read_xml(path) if isinstance(item, Item)]
        return RecordFiles("xml", {}, [name], [record for record in records if isinstance(record, dict)])
    if suffix == ".parquet":
        records = list(_take_records(parquet_stream.iter_rows(path)))
        return RecordFiles("parquet", {}, [name], records, _read_label_names(pq.read_schema(path)))
    if suffix in (".arrow", ".feather"):
        names = _read_label_names(arrow_stream.read_schema(path))
        return RecordFiles("arrow", {}, [name], list(_take_records(arrow_stream.iter_rows(path))), names)
    if name.lower().endswith(_TAR_SUFFIXES):
        return _inspect_tar(root, path, name, notes)
    if suffix in (".csv", ".tsv", ".txt"):
        return _inspect_text_table(path, name, notes)
    return None


def _take_records(items: Iterator[Item | RejectedItem]) -> Iterator[dict[str, Any]]:
    for item in islice(items, SAMPLE_RECORDS):
        if isinstance(item, Item) and isinstance(item.value, dict):
            yield item.value


def _inspect_json(path: Path, name: str, notes: list[str]) -> RecordFiles | None:
    is_whole = path.stat().st_size <= WHOLE_JSON_BYTES
    with path.open("rb") as file:
        data = file.read(WHOLE_JSON_BYTES if is_whole else PREFIX_BYTES)
    text = data.decode("utf-8-sig", "replace")
    try:
        value = json.loads(text) if is_whole else None
    except ValueError:
        value = None
    if value is None:
        items = list(_take_records(json_stream.iter_lines(path)))
        if len(items) > 1:
            return RecordFiles("jsonl", {}, [name], items)
        key_path = _find_key_in_prefix(text)
        if key_path is None:
            notes.append(f"{name}: neither JSON nor JSON Lines")
            return None
        value = {}
        records = list(_take_records(json_stream.iter_elements(path, key_path)))
        return RecordFiles("list", {"key": ".".join(key_path)} if key_path else {}, [name], records)
    if _is_dict_of_texts(value):
        records = [{"id": key, "value": text} for key, text in islice(value.items(), SAMPLE_RECORDS)]
        return RecordFiles("dict_of_id", {}, [name], records)
    location = _find_records(value)
    if location is None:
        if isinstance(value, dict) and value:
            return RecordFiles("json", {}, [name], [value])
        notes.append(f"{name}: a JSON {type(value).__name__} without objects in it")
        return None
    shape, key_path = location
    for key in key_path:
        value = value[key]
    entries = value if shape == "list" else list(value.values())
    records = [entry for entry in entries[:SAMPLE_RECORDS] if isinstance(entry, dict)]
    return RecordFiles(shape, {"key": ".".join(key_path)} if key_path else {}, [name], records)


def _find_records(value: Any, depth: int = 0) -> tuple[str, tuple[str, ...]] | None:
    """Return the shape of the largest list or object of objects in a JSON value, and the keys that lead to it."""
    if isinstance(value, list):
        n_objects = sum(isinstance(entry, dict) for entry in value[:SAMPLE_RECORDS])
        return ("list", ()) if n_objects and 2 * n_objects > len(value[:SAMPLE_RECORDS]) else None
    if not isinstance(value, dict) or depth > 3:
        return None
    if _is_dict_of_records(value):
        return ("dict_of_id", ())
    best: tuple[int, str, tuple[str, ...]] | None = None
    for key, member in value.items():
        location = _find_records(member, depth + 1) if isinstance(member, dict | list) and "." not in key else None
        # A list of a few objects inside a record is a part of the record.
        if location is not None and (best is None or len(member) > best[0]):
            best = (len(member), location[0], (key, *location[1]))
    scalars = {key: member for key, member in value.items() if not isinstance(member, dict | list)}
    n_scalars = len(scalars) + (1 << 30) * any(_has_image_name(key, member) for key, member in scalars.items())
    if best is None or (n_scalars and best[0] <= max(2, n_scalars)):
        return None
    return best[1], best[2]


def _is_dict_of_texts(value: Any) -> bool:
    """Return whether it is an object whose keys are the names of images, such as {"7.jpg": "A cat."}."""
    if not isinstance(value, dict) or len(value) < 2:
        return False
    sample = list(islice(value.items(), SAMPLE_RECORDS))
    return all(
        PurePosixPath(key[:300]).suffix.lower() in IMAGE_SUFFIXES and isinstance(text, str | list)
        for key, text in sample
    )


def _has_image_name(key: str, value: Any) -> bool:
    """Return whether a member of an object says which image the object is about."""
    return "image" in key.lower() or (
        isinstance(value, str) and PurePosixPath(value[:300]).suffix.lower() in IMAGE_SUFFIXES
    )


def _is_dict_of_records(value: Mapping[str, Any]) -> bool:
    """Return whether all members are objects with most of their keys in common."""
    members = list(islice(value.values(), SAMPLE_RECORDS))
    n_objects = sum(isinstance(member, dict) for member in members)
    if len(members) > MAX_FIELDS and all(key.isdecimal() for key in islice(value, SAMPLE_RECORDS)):
        return 2 * n_objects > len(members)  # numbers are ids, also of records that have little in common
    if len(members) < 2 or n_objects < len(members) or not all(members):
        return False
    common = set.intersection(*(set(member) for member in members))
    return 2 * len(common) >= max(len(member) for member in members)


def _find_key_in_prefix(text: str) -> tuple[str, ...] | None:
    """Return the keys that lead to the list that a large file begins with; None where it does not begin like one."""
    decoder = json.JSONDecoder()
    position = len(text) - len(text.lstrip())
    keys: list[str] = []
    while position < len(text) and text[position] == "{":
        position += 1
        while True:
            position += len(text[position:]) - len(text[position:].lstrip(" \t\r\n,"))
            try:
                key, position = decoder.raw_decode(text, position)
            except ValueError:
                return None
            position = text.find(":", position) + 1
            position += len(text[position:]) - len(text[position:].lstrip())
            try:
                _, position = decoder.raw_decode(text, position)
            except ValueError:  # it goes on beyond the prefix: the one that is large
                keys.append(str(key))
                break
    return tuple(keys) if text[position : position + 1] == "[" else None


def _inspect_text_table(path: Path, name: str, notes: list[str]) -> RecordFiles | None:
    """Inspect delimited text. A `.txt` counts only with several columns and lines."""
    with path.open("rb") as file:
        data = file.read(1 << 18)
    encoding = _infer_encoding(data)
    if encoding is None:
        return None
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else encoding, "replace")
    lines = text.splitlines()[:SAMPLE_RECORDS]
    delimiter = _infer_delimiter(lines, (",", ";", "\t", "|"))
    is_text_file = path.suffix.lower() == ".txt"
    if not lines:
        return None
    if _is_polygon_line(lines[0]):
        folder = PurePosixPath(name).parent
        note = f"{folder}/*{path.suffix}: corners and words of text in images, which `format: icdar_text` reads"
        if note not in notes:
            notes.append(note)
        return None
    if delimiter is None or (is_text_file and len(lines) < 3):
        return None
    options: dict[str, Any] = {}
    shape = "tsv" if delimiter == "\t" else "csv"
    if delimiter not in (",", "\t"):
        options["delimiter"] = delimiter
    if encoding not in ("utf-8", "utf-16"):
        options["encoding"] = encoding
    rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter))
    if not _is_header(rows):
        options["columns"] = _label_columns(rows)
    reader_options = {key: value for key, value in options.items() if key != "delimiter"}
    quoted, plain = (
        list(_take_records(delimited.iter_rows(path, delimiter, quoted=is_quoted, **reader_options)))
        for is_quoted in (True, False)
    )
    takes_quotes = len(quoted) >= len(plain) and (shape == "csv" or any('"' in line for line in lines))
    if takes_quotes != (shape == "csv"):
        options["quoted"] = takes_quotes
    return RecordFiles(shape, options, [name], quoted if takes_quotes else plain)


def _infer_encoding(data: bytes) -> str | None:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if b"\0" in data:
        return None
    for encoding in ("utf-8", "gb18030", "cp1252"):
        try:
            data[: max(1, len(data) - 4)].decode(encoding)
        except UnicodeDecodeError as error:
            if error.end >= len(data) - 8:
                return encoding
        else:
            return encoding
    return None


def _infer_delimiter(lines: Sequence[str], delimiters: Sequence[str]) -> str | None:
    """Return the delimiter that gives most lines the same number of cells, and most cells."""
    best: tuple[float, int, str] | None = None
    for delimiter in delimiters:
        counts = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        if not counts or max(counts) < 2:
            continue
        usual = max(set(counts), key=counts.count)
        if usual > 1 and (best is None or (counts.count(usual) / len(counts), usual) > best[:2]):
            best = (counts.count(usual) / len(counts), usual, delimiter)
    return None if best is None or best[0] < 0.6 else best[2]


def _is_polygon_line(line: str) -> bool:
    cells = line.split(",")
    return len(cells) >= 9 and all(cell.strip().lstrip("-").replace(".", "", 1).isdecimal() for cell in cells[:8])


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row names columns: no numbers, file names or empty cells, none twice, all short."""
    first = [cell.strip() for cell in rows[0]]
    if len(set(first)) < len(first) or any(len(cell) > 40 or cell.endswith("?") for cell in first):
        return False
    return not any(
        not cell or cell.replace(".", "").isdecimal() or PurePosixPath(cell).suffix.lower() in IMAGE_SUFFIXES
        for cell in first
    )


def _label_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return names for the columns of a table without a header: image, question and answer where they look like it."""
    columns = [[row[index].strip() for row in rows if index < len(row)] for index in range(len(rows[0]))]
    names = [f"column_{index + 1}" for index in range(len(columns))]
    for index, column in enumerate(columns):
        n_questions = sum(cell.endswith("?") for cell in column)
        n_images = sum(PurePosixPath(cell).suffix.lower() in IMAGE_SUFFIXES for cell in column)
        if 2 * n_images > len(column) and "image" not in names:
            names[index] = "image"
        elif 2 * n_questions > len(column) and "question" not in names:
            names[index] = "question"
    if "question" in names and names[-1].startswith("column_"):
        names[-1] = "answer"
    elif "image" in names and len(names) == 2:
        names[1 - names.index("image")] = "caption"
    return names


def _inspect_tar(root: Path, path: Path, name: str, notes: list[str]) -> RecordFiles | None:
    """Inspect a tar; it holds records if most members share their name with one of another ending."""
    records = list(_take_records(webdataset.iter_records(root, path)))
    n_composite = sum(len(record) > 1 for record in records)
    if records and 2 * n_composite >= len(records):
        return RecordFiles("webdataset", {}, [name], records)
    notes.append(f"{name}: an archive; what it holds is read where records name it")
    return None


def _add_image_texts(listing: Listing, groups: list[RecordFiles]) -> None:
    """Add the texts that lie beside images of the same name, one an image."""
    texts = [name for name in listing.files if name.endswith((".txt", ".caption"))]
    paired = [name for name in texts if PurePosixPath(name).stem in listing.image_paths_by_stem]
    if len(paired) > 1 and 2 * len(paired) >= len(texts):
        records = []
        for name in paired[:SAMPLE_RECORDS]:
            item = next(iter(single_record_files.read_text(listing.root / name)))
            records += [item.value] if isinstance(item, Item) else []
        if not any("," in str(r) and _is_polygon_line(str(r["text"]).splitlines()[0]) for r in records if r["text"]):
            groups.append(RecordFiles("text", {}, paired, records))


def _read_label_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names of `ClassLabel` columns, which the hub's tables carry in their metadata."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    return {
        name: [str(label) for label in feature["names"]]
        for name, feature in features.items()
        if isinstance(feature, dict) and isinstance(feature.get("names"), list)
    }
