"""Selects the files of a repository that a source needs, and words the instructions for supplying them by hand.

The files are those that the source's format declares (`readers.format.Format`). A catalog entry that needs other files
says so itself, with `files:` in its `hub` entry.

A config that is a folder of the repository becomes the source's folder (`<config>/train-00000.parquet` in
lmms-lab/LLaVA-OneVision-Data and HuggingFaceM4/the_cauldron). All other files keep the place they have there. Where all
sub-datasets share one file of rows, the reader picks rows by the config, and the entry names its files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.readers.files import NON_DATA_FILES
from mvl_assets.readers.format import Format
from mvl_assets.readers.registry import get_format


def get_source_format(source: SourceSpec) -> Format:
    """Return the source's format; where it is unknown, `records`: any table of rows and any archive.

    The rows of a `records` source are in the files that its map names.
    """
    declared = get_format(source.format or "records")
    if source.records is None:
        return declared
    ending = "/*" if source.records.shape == "lance" else ""
    patterns = [f"{pattern}{ending}" for pattern in source.records.file_globs]
    return replace(declared, row_files=(*patterns, *(p.removeprefix("**/") for p in patterns if p.startswith("**/"))))


def select_files(source: SourceSpec, names: Iterable[str]) -> dict[str, str]:
    """Return the files that a source needs of those in a repository: path below its folder -> name in the repository.

    Empty when none of them holds rows. Hidden files (`.gitattributes`, and the 4 GB `.git.tar.gz` that one repository
    contains) are never chosen.
    """
    assert source.hub is not None
    source_format, config = get_source_format(source), source.hub.config
    visible = sorted(n for n in names if not any(part.startswith(".") for part in PurePosixPath(n).parts))
    if source.hub.files:
        return {n: n for n in visible if _matches_any(n, source.hub.files)}
    data_files = [n for n in visible if PurePosixPath(n).name not in NON_DATA_FILES]
    if config is None:
        candidates = {n: n for n in data_files}
    else:
        prefix = f"{config}/"
        candidates = {n.removeprefix(prefix): n for n in data_files if n.startswith(prefix)}
    patterns = source_format.row_files + source_format.media_files
    selected = {path: n for path, n in candidates.items() if _matches_any(path, patterns)}
    return selected if any(_matches_any(path, source_format.row_files) for path in selected) else {}


def find_unmatched_patterns(source: SourceSpec, names: Iterable[str]) -> list[str]:
    """Return the patterns of the catalog entry that match no file of the repository."""
    file_names = list(names)
    patterns = source.hub.files if source.hub is not None else ()
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in file_names)]


def format_manual_instructions(source: SourceSpec) -> str:
    """Return one line that says which files the user has to put where, in which of the declared formats."""
    note = source.evidence["hub"].note if "hub" in source.evidence else None
    origin_note = f"; {note.removeprefix('listed: ')}" if note and source.hub is None else ""
    source_format = get_source_format(source)
    description = source_format.description
    if source.records is not None:
        media = "" if source.modality == "text" else f", and the {'videos' if source.modality == 'video' else 'images'}"
        description = " or ".join(source.records.file_globs) + media
    descriptions = {source.format or "records": description}
    descriptions |= {name: get_format(name).description for name in source.alternates}
    names = {name: "" if name == "records" else f" ({name})" for name in descriptions}
    layouts = "; or ".join(f"{description}{names[name]}" for name, description in descriptions.items())
    title = "" if source.title == source.slug and not origin_note else f" ({source.title}{origin_note})"
    return (
        f"put the source's files into {source.root}: {layouts}{title}; "
        f"or name their folder with `path:` in its catalog entry; `mvl sources sniff` says what other files hold"
    )


def _matches_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
