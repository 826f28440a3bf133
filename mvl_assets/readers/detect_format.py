"""Which format files have: of those that a source declares (`SourceSpec.alternates`), or of all native ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

from mvl_assets.config.catalog import FORMATS, SourceSpec
from mvl_assets.errors import SourceError
from mvl_assets.readers.files import NON_DATA_FILES
from mvl_assets.readers.registry import get_format, get_reader
from mvl_assets.readers.sample import RejectedRow, Sample

TRIED_ROWS = 20
"""Rows that are read to tell formats apart whose files have the same names."""

MAX_LISTED_FILES = 100_000

NATIVE_FORMATS = (
    "coco_captions",
    "coco_instances",
    "vqa_v2",
    "gqa",
    "ocr_vqa",
    "doc_vqa",
    "science_qa",
    "visual_genome",
    "ref_coco",
    "localized_narratives",
    "wit",
    "screenshot_html",
    "icdar_text",
    "table_text",
    "video_mcq",
    "video_instruct",
    "cauldron_parquet",
    "llava_parquet",
    "llava_json",
    "llava_video",
    "cambrian_jsonl",
    "mammoth_release",
    "url_captions",
)
"""Those that `find_native_format` tries, the most particular first. The others read what one of these reads."""


def detect_format(source: SourceSpec, root: Path) -> str | None:
    """Return the format of the files below `root`: the declared one, or an alternate that reads them where it does not.

    Names of files decide where they can; else the first rows do. Where nothing decides, it is the declared format.
    """
    candidates = [name for name in dict.fromkeys((source.format, *source.alternates)) if name in FORMATS]
    if len(candidates) < 2:
        return source.format
    files = _list_files(root)
    matching = [name for name in candidates if _has_row_files(name, source, files)]
    if len(matching) < 2:
        return matching[0] if matching else source.format
    if matching[0] == source.format and _count_samples(source.format, source, root):
        return source.format
    counts = {name: _count_samples(name, source, root) for name in matching if name != source.format}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else source.format


def find_native_format(source: SourceSpec, root: Path, files: Sequence[str]) -> str | None:
    """Return the native format that reads the first rows below `root`, most of them with images or a video.

    Args:
        source: The source without a format.
        root: Its folder.
        files: The files below it.
    """
    for name in NATIVE_FORMATS:
        candidate = source.model_copy(update={"format": name})
        if _has_row_files(name, candidate, files):
            rows = _read_first_rows(name, candidate, root)
            n_useful = sum(isinstance(row, Sample) and bool(row.images or row.video) for row in rows)
            if 2 * n_useful > len(rows):
                return name
    return None


def _has_row_files(name: str, source: SourceSpec, files: Sequence[str]) -> bool:
    patterns = get_format(name).row_files
    if name == "records" and source.records is not None:
        globs = source.records.file_globs
        patterns = (*globs, *(glob.removeprefix("**/") for glob in globs))
    return any(fnmatchcase(file, pattern) for pattern in patterns for file in files)


def _list_files(root: Path) -> list[str]:
    files: list[str] = []
    for folder, folder_names, names in os.walk(root):
        folder_names[:] = sorted(name for name in folder_names if not name.startswith("."))
        files += [
            (Path(folder) / name).relative_to(root).as_posix()
            for name in names
            if not name.startswith(".") and name not in NON_DATA_FILES
        ]
        if len(files) >= MAX_LISTED_FILES:
            break
    return files


def _count_samples(name: str | None, source: SourceSpec, root: Path) -> int:
    return sum(isinstance(row, Sample) for row in _read_first_rows(name, source, root))


def _read_first_rows(name: str | None, source: SourceSpec, root: Path) -> list[Sample | RejectedRow]:
    try:
        return list(islice(get_reader(name)(source, root), TRIED_ROWS))
    except SourceError:
        return []
