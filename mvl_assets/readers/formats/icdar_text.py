r"""Text in images as the ICDAR competitions publish it: one file per image with the place and words of each line.

    377,117,463,117,465,130,378,130,Genaxis Theatre          ICDAR 2015, SROIE, MTWI: four corners, the words
    390,902,1856,902,1856,1225,390,1225,0,"金氏眼镜"           RCTW-17: 1 or 0 for difficult, the words quoted
    {"lines": [{"points": [170, 468, 381, 480, 376, 554, 168, 540], "transcription": "金氏眼镜", "ignore": 0}, ...],
     "chars": [...]}                                         ReCTS

The words are everything after the last comma that the format has, so they may hold commas; a quote in quotes is not
escaped. One sample per file: a fixed request, answered by the words of all legible lines in the order of the file.
Lines that are marked as illegible (`###`, `*`, `***`, difficult, ignore) are left out, and the request says so. Places
are checked and left out: pixels mean nothing without the image's size, which these files do not give. Files are UTF-8
with or without a byte order mark. A file with one line that cannot be read is rejected, because its text would be
incomplete.

`gt_<name>.txt` or `<name>.txt` (also `.csv`) belongs to the image `<name>`, in the same folder or in a sibling with a
matching name: `gt` or `gt_unicode` and `img` (of both, `gt_unicode` is read), `train_gts` and `train_images`,
`ch4_training_localization_transcription_gt` and `ch4_training_images`, `txt_train` and `image_train`; else in any
sibling, as `box` and `img` (zzzDavid/ICDAR-2019-SROIE, whose `key/<name>.json`, of the name of a text file, is left
out). Specifications: rrc.cvc.uab.es (challenges 4, 12, 13), rctw.vlrlab.net; checked against mindspore-lab/mindocr,
tools/dataset_converters/{rects,rctw17,sroie,mtwi2018}.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.conversations.regions import build_image_qa_turns, collapse_whitespace
from mvl_assets.readers.files import format_relative_path, list_data_files, resolve_file
from mvl_assets.readers.format import ARCHIVE_FILES, Format, RowKey
from mvl_assets.readers.parsers.json_stream import BROKEN_FILE, RejectedItem, iter_elements
from mvl_assets.readers.rows import Row, build_sample
from mvl_assets.readers.sample import EncodedImage, RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

QUESTION = "What text can be read in the picture? Give it line by line, without what is illegible."

ILLEGIBLE = frozenset(("###", "*", "***"))
MAX_FILE_BYTES = 16 << 20
"""Bytes one file may have."""

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
_FOLDER_NAME_PAIRS = (
    ("gt_unicode", "img"),
    ("localization_transcription_gt", "images"),
    ("gts", "images"),
    ("gt", "img"),
    ("txt", "image"),
)
_NUMBER_PATTERN = r"\s*[-+]?[0-9]{1,7}(?:\.[0-9]{0,12})?\s*"
_POLYGON_LINE = re.compile(rf"(?:{_NUMBER_PATTERN},){{7}}{_NUMBER_PATTERN},(.*)", re.DOTALL)
_DIFFICULT_LINE = re.compile(r'\s*([01])\s*,\s*"(.*)"\s*', re.DOTALL)


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    for path in _iter_files(source, root):
        yield build_sample(Row(format_relative_path(root, path), 0, None, {}), partial(_to_sample, root, path))


def read_keys(source: SourceSpec, root: Path) -> Iterator[RowKey]:
    """Yield the names of the files without reading them."""
    for path in _iter_files(source, root):
        yield RowKey(format_relative_path(root, path), 0, None)


def _iter_files(source: SourceSpec, root: Path) -> Iterator[Path]:
    paths = list_data_files(source.slug, root, "**/*.txt", "**/*.csv", "**/*.json")
    text_stems = {path.stem for path in paths if path.suffix != ".json"}
    for path in paths:
        is_other_encoding = path.parent.name == "gt" and path.parent.with_name("gt_unicode").is_dir()
        is_key_file = path.suffix == ".json" and path.stem in text_stems
        if not is_other_encoding and not is_key_file:
            yield path


def _to_sample(root: Path, path: Path, row: Row) -> Sample:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise RejectError("too_large", f"the file has {size} bytes, more than {MAX_FILE_BYTES}")
        transcriptions = _iter_json_lines(path) if path.suffix == ".json" else _iter_text_lines(path)
    except OSError as error:
        raise RejectError("unreadable_file", f"cannot be read: {error.strerror}") from error
    legible_lines = [text for text in map(collapse_whitespace, transcriptions) if text and text not in ILLEGIBLE]
    if not legible_lines:
        raise RejectError("no_text", "no line of the image is legible")
    return Sample(
        row.file, 0, build_image_qa_turns(QUESTION, "\n".join(legible_lines)), None, (_resolve_row_image(root, path),)
    )


def _iter_json_lines(path: Path) -> Iterator[str]:
    """Yield the words of the lines that are not to be ignored."""
    for item in iter_elements(path, ("lines",)):
        if isinstance(item, RejectedItem):
            # The file is one row, and its name is known: no other row is lost.
            raise RejectError("bad_json" if item.error == BROKEN_FILE else item.error, item.message)
        line = item.value if isinstance(item.value, dict) else {}
        text = line.get("transcription")
        if not isinstance(text, str) or not _is_polygon(line.get("points")):
            raise RejectError(
                "bad_polygon", f"line {item.position} has no words, or no points of three corners or more"
            )
        if not line.get("ignore"):
            yield text


def _is_polygon(points: Any) -> bool:
    """Return whether it is [x1, y1, x2, y2, ...] or [[x1, y1], ...] of at least three corners."""
    if not isinstance(points, list):
        return False
    flat = [coordinate for point in points for coordinate in (point if isinstance(point, list) else [point])]
    return len(flat) >= 6 and len(flat) % 2 == 0 and all(type(part) in (int, float) for part in flat)


def _iter_text_lines(path: Path) -> Iterator[str]:
    """Yield the words of the lines that are not marked as difficult."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RejectError("bad_utf8", f"byte {error.start} of the file is not UTF-8") from error
    # Not `splitlines`, which also breaks at characters that words may hold.
    for line_number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip():
            continue
        match = _POLYGON_LINE.fullmatch(line)
        if match is None:
            raise RejectError(
                "bad_polygon", f"line {line_number} does not begin with four corners: {json.dumps(line[:60])}"
            )
        quoted = _DIFFICULT_LINE.fullmatch(match.group(1))
        if quoted is None:
            yield match.group(1)
        elif quoted.group(1) == "0":
            yield quoted.group(2)


def _resolve_row_image(root: Path, path: Path) -> EncodedImage:
    stem = path.stem.removeprefix("gt_")
    folder = path.parent.relative_to(root)
    sibling_folders = [
        folder.parent / folder.name.replace(text_name, image_name)
        for text_name, image_name in _FOLDER_NAME_PAIRS
        if text_name in folder.name
    ]
    folders = [image_folder.as_posix() for image_folder in (folder, *sibling_folders)]
    folders += [sibling for sibling in _list_siblings(root, folder) if sibling not in folders]
    for suffix in _IMAGE_SUFFIXES:
        image_path = resolve_file(root, f"{stem}{suffix}", folders)
        if image_path is not None:
            return EncodedImage(format_relative_path(root, image_path), path=image_path)
    raise RejectError("missing_image", f"{json.dumps(stem)[:200]} is in none of the folders {', '.join(folders)[:400]}")


def _list_siblings(root: Path, folder: Path) -> tuple[str, ...]:
    """List the folders beside a folder of the source, in order."""
    parent = root / folder.parent
    return () if folder == Path() else _scan_folders(root, parent, parent.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _scan_folders(root: Path, parent: Path, mtime_ns: int) -> tuple[str, ...]:
    folders = [path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return tuple(sorted(path.relative_to(root).as_posix() for path in folders))


FORMAT = Format(
    row_files=("*.json", "*.txt", "*.csv", "*.zip"),
    media_files=ARCHIVE_FILES,
    description=(
        "one *.txt, *.csv or *.json of corners and words per image, and the images beside it or in a "
        "sibling folder (img, images)"
    ),
    read=read,
    read_keys=read_keys,
)
