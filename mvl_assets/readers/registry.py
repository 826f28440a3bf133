"""The native formats by name. The module of a format is imported when the format is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

from mvl_assets.config.catalog import FORMATS, SourceSpec
from mvl_assets.errors import SourceError
from mvl_assets.readers.format import Format, KeyReader, Reader, make_key_reader
from mvl_assets.readers.sample import RejectedRow, Sample


def get_format(name: str | None) -> Format:
    """Return the `FORMAT` that the module `formats/<name>.py` declares.

    Raises:
        SourceError: There is no such module.
    """
    if name not in FORMATS:
        raise SourceError(
            f"format {name}",
            "there is no reader for it yet",
            hint=f"declare the source as `records` with a field map, or convert it to one of {', '.join(FORMATS)}",
        )
    declared = import_module(f"mvl_assets.readers.formats.{name}").FORMAT
    assert isinstance(declared, Format)
    return declared


def get_reader(name: str | None) -> Reader:
    """Return the function that reads the rows of a format.

    It rejects the rows without an image of a source that has images in every row (`SourceSpec.images_optional`).

    Raises:
        SourceError: The format is unknown.
    """
    return partial(_read_rows, get_format(name).read)


def _read_rows(read: Reader, source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    rows = read(source, root)
    has_images = source.modality in ("single_image", "multi_image") and not source.images_optional
    return map(partial(_require_image, source.modality), rows) if has_images else rows


def _require_image(modality: str | None, row: Sample | RejectedRow) -> Sample | RejectedRow:
    if isinstance(row, RejectedRow) or row.images or row.video is not None:
        return row
    problem = f"the row has no image in a source of the modality {modality}; `images_optional: true` takes it as text"
    return RejectedRow(row.file, row.position, "no_image", problem, row.native_id)


def get_key_reader(name: str | None) -> KeyReader:
    """Return the function that yields the keys of those rows (`Format.read_keys`)."""
    declared = get_format(name)
    return declared.read_keys or make_key_reader(declared.read)
