"""The files of a field map: fields that are parts of their paths, and the shapes that are not one table a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mvl_assets.common.path_template import parse_path
from mvl_assets.errors import SourceError
from mvl_assets.lake import external_table
from mvl_assets.readers.parsers import arrow_stream, lance_table, single_record_files, webdataset
from mvl_assets.readers.parsers.json_stream import Item, RejectedItem

if TYPE_CHECKING:
    from mvl_assets.config.catalog import RecordsMapping

VALUE_FIELD = "value"
Items = Iterator[Item | RejectedItem]


def add_path_fields(fields: RecordsMapping, name: str, items: Iterable[Item | RejectedItem]) -> Items:
    """Yield the items with the parts of their file's path that `files` names as fields; they go before the record's.

    A member of a `dict_of_id` that is no object becomes one with the field `value`: `{"7.jpg": "A cat."}`.
    """
    path_fields = next(filter(None, (parse_path(template, name) for template in fields.file_templates)), {})
    for item in items:
        if fields.shape == "dict_of_id" and isinstance(item, Item) and isinstance(item.value, str | list | int | float):
            item = replace(item, value={VALUE_FIELD: item.value})
        if path_fields and isinstance(item, Item) and isinstance(item.value, Mapping):
            yield replace(item, value={**item.value, **path_fields})
        else:
            yield item


def list_tables(slug: str, root: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the folders that are Lance tables. Raises `SourceError` when none is."""
    matches = {path for pattern in patterns for path in root.glob(pattern)}
    folders = sorted(path for path in matches if external_table.is_table(path))
    if not folders:
        raise SourceError(
            slug, f"no Lance table {' or '.join(patterns)} in {root}", hint="put the source's table there"
        )
    return folders


def _iter_webdataset(root: Path, path: Path, fields: RecordsMapping) -> Items:
    for item in webdataset.iter_records(root, path):
        yield item if fields.id is None or isinstance(item, RejectedItem) else replace(item, key=None)


def _iter_arrow(root: Path, path: Path, fields: RecordsMapping) -> Items:
    return arrow_stream.iter_rows(path, _select_columns(arrow_stream.read_schema(path).names, fields))


def _iter_lance(root: Path, path: Path, fields: RecordsMapping) -> Items:
    try:
        names = external_table.read_schema(path).names
    except external_table.TableReadError:
        names = []  # the reader says what is wrong
    return lance_table.iter_rows(path, _select_columns(names, fields))


def _select_columns(names: list[str], fields: RecordsMapping) -> list[str]:
    """Return the columns that the map names: others may hold what Python cannot, and cost reading."""
    field_map_text = repr(fields.model_dump()).replace("\\'", "'")
    return [name for name in names if name in field_map_text]


def _read_json(root: Path, path: Path, fields: RecordsMapping) -> Items:
    return single_record_files.read_json(path, tuple(fields.key.split(".")) if fields.key else ())


def _read_xml(root: Path, path: Path, fields: RecordsMapping) -> Items:
    return single_record_files.read_xml(path)


def _read_text(root: Path, path: Path, fields: RecordsMapping) -> Items:
    return single_record_files.read_text(path)


def _build_image_record(root: Path, path: Path, fields: RecordsMapping) -> Items:
    yield Item(0, {})


ITEM_READERS: dict[str, Callable[[Path, Path, RecordsMapping], Items]] = {
    "arrow": _iter_arrow,
    "lance": _iter_lance,
    "webdataset": _iter_webdataset,
    "json": _read_json,
    "xml": _read_xml,
    "text": _read_text,
    "image": _build_image_record,
}
"""How the items of a file are read, `(root, path, fields)`, by shape."""
