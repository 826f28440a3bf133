"""The native formats by name. The module of a format is imported when the format is asked for."""

from __future__ import annotations

from importlib import import_module

from mvl_assets.config.catalog import FORMATS
from mvl_assets.errors import SourceError
from mvl_assets.readers.format import Format, KeyReader, Reader, make_key_reader


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
    """Return the function that reads the rows of a format. Raises `SourceError` for an unknown format."""
    return get_format(name).read


def get_key_reader(name: str | None) -> KeyReader:
    """Return the function that yields the keys of those rows (`Format.read_keys`)."""
    declared = get_format(name)
    return declared.read_keys or make_key_reader(declared.read)
