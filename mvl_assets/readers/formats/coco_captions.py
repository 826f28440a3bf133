r"""COCO captions: `annotations/captions_<split>.json` beside folders of pictures.

    {"images": [{"id": 9, "file_name": "000000000009.jpg", "width": 640, "height": 480}, ...],
     "annotations": [{"id": 661611, "image_id": 9, "caption": "A tray of food."}, ...]}

One sample per picture in the order of `images`: a fixed neutral request, answered by all captions of the picture, one a
line in the order of annotation ids. Pictures lie in `<split>/`, `images/`, `images/<split>/` or the folder itself.
Captions are joined with their pictures in memory: about 200 bytes a caption, 120 MB for COCO 2017. Specification:
cocodataset.org/#format-data (5. Captioning).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.readers.files import files_below, picture_at, relative
from mvl_assets.readers.json_stream import BROKEN_FILE, INCOMPLETE, BadItem, elements
from mvl_assets.readers.rows import Row, RowError, built, question_and_answer, rows_of, with_markers
from mvl_assets.readers.sample import Broken, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

REQUEST = "Describe the picture."
Captions = dict[int, list[tuple[int, str]]]


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    for path in files_below(source.slug, root, "annotations/captions_*.json", "captions_*.json"):
        split = path.stem.removeprefix("captions_")
        captions, bad = _captions(path)
        is_whole = all(item.error != BROKEN_FILE for item in bad)
        name = relative(root, path)
        position = 0
        for row in rows_of(name, elements(path, ("images",)), "id"):
            position = row.position + 1
            yield built(row, partial(_sample, root, split, captions, is_whole))
        # What is left belongs to no picture; these rows are numbered behind the pictures.
        for image_id in captions:
            message = f"there are captions for picture {image_id}, which the file does not list"
            yield Broken(name, position, "unknown_picture", message)
            position += 1
        for item in bad:
            yield Broken(name, position, item.error, f"annotation {item.position}: {item.message}")
            position += 1


def _captions(path: Path) -> tuple[Captions, list[BadItem]]:
    """Captions with their ids by picture id, and the annotations that cannot be read."""
    found: Captions = {}
    bad: list[BadItem] = []
    for item in elements(path, ("annotations",)):
        if isinstance(item, BadItem):
            bad.append(item)
            continue
        value = item.value if isinstance(item.value, dict) else {}
        image_id, caption, own = value.get("image_id"), value.get("caption"), value.get("id", item.position)
        if not isinstance(image_id, int) or not isinstance(caption, str) or not isinstance(own, int):
            bad.append(BadItem(item.position, "bad_annotation", "no image_id, id or caption of the right kind"))
        else:
            found.setdefault(image_id, []).append((own, caption))
    return found, bad


def _sample(root: Path, split: str, captions: Captions, is_whole: bool, row: Row) -> Sample:
    image_id = row.value.get("id")
    told = captions.pop(image_id, []) if isinstance(image_id, int) else []
    if not is_whole:
        raise RowError(INCOMPLETE, f"the file breaks off, so captions of picture {image_id!r} may be missing")
    lines = [" ".join(caption.split()) for _, caption in sorted(told)]
    answer = "\n".join(line for line in lines if line)
    if not answer:
        raise RowError("no_caption", f"picture {image_id!r} has no caption")
    turns = with_markers(question_and_answer(REQUEST, answer), 1)
    picture = picture_at(root, row.value.get("file_name"), (split, "images", f"images/{split}", ""))
    return Sample(row.file, row.position, turns, row.native_id, (picture,))
