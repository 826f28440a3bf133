r"""COCO objects: `annotations/instances_<split>.json` beside folders of pictures.

    {"images": [{"id": 9, "file_name": "000000000009.jpg", "width": 640, "height": 480}, ...],
     "annotations": [{"id": 1038967, "image_id": 9, "category_id": 51, "bbox": [1.08, 187.69, 611.59, 285.84],
                      "area": 120057.1, "iscrowd": 0, "segmentation": [[500.49, 473.53, ...]]}, ...],
     "categories": [{"id": 51, "name": "bowl", "supercategory": "kitchen"}, ...]}

One sample per picture in the order of `images`: a fixed request, answered by one line per category with the boxes of
its objects (`regions` says in which form and why), in the order of annotation ids. Regions that COCO marks as a crowd
(`iscrowd`) cover many objects and stand on a line of their own, `person (group)`. Outlines are not taken: the answer
does not use them, and they are nine tenths of the file. A picture of which an object cannot be read is rejected,
because its list would be incomplete. Pictures lie in `<split>/`, `images/`, `images/<split>/` or the folder itself.

Objects are joined with their pictures in memory, packed: 49 bytes an object and about 400 a picture, 100 MB for
instances_train2017 (860,001 objects in 448 MB of JSON). Specification: cocodataset.org/#format-data (1. Object
Detection).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.readers.files import files_below, picture_at, relative
from mvl_assets.readers.json_stream import BROKEN_FILE, INCOMPLETE, BadItem, Item, elements
from mvl_assets.readers.regions import BOX_FORM, Box, about_picture, box_of, box_text, by_name, one_line, size_of
from mvl_assets.readers.rows import Row, RowError, built, rows_of
from mvl_assets.readers.sample import Broken, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

REQUEST = (
    f"Which objects are in the picture, and where? Name each kind once and give the box of each object {BOX_FORM}."
)

_OBJECT = struct.Struct("<qq?4d")
"""Annotation id, category id, crowd, box."""

Objects = dict[int, bytearray | RowError]
"""The packed objects of each picture, or why its objects cannot be told."""


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    for path in files_below(source.slug, root, "annotations/instances_*.json", "instances_*.json"):
        name, split = relative(root, path), path.stem.removeprefix("instances_")
        objects, strays, is_whole = _objects(path)
        names, lost = _names(path)
        position = 0
        for row in rows_of(name, elements(path, ("images",)), "id"):
            position = row.position + 1
            yield built(row, partial(_sample, root, split, names, objects, is_whole))
        # What is left belongs to no picture; these rows are numbered behind the pictures.
        for image_id in objects:
            message = f"there are objects of picture {image_id}, which the file does not list"
            yield Broken(name, position, "unknown_picture", message)
            position += 1
        for bad in _strays(path) if strays else ():
            yield Broken(name, position, bad.error, f"annotation {bad.position}: {bad.message}")
            position += 1
        if lost is not None:
            yield Broken(name, position, lost.error, f"categories: {lost.message}")


def _objects(path: Path) -> tuple[Objects, bool, bool]:
    """The objects by picture id, whether some annotation names no picture, and whether all could be read."""
    found: Objects = {}
    strays, is_whole = False, True
    for item in elements(path, ("annotations",)):
        image_id = _image_id(item)
        if isinstance(item, BadItem) or image_id is None:
            strays = True
            is_whole &= not isinstance(item, BadItem) or item.error != BROKEN_FILE
            continue
        told = found.setdefault(image_id, bytearray())
        if isinstance(told, bytearray):
            try:
                told += _packed(item.value)
            except RowError as error:
                found[image_id] = RowError(error.error, f"annotation {item.position}: {error.message}")
    return found, strays, is_whole


def _strays(path: Path) -> Iterator[BadItem]:
    """The annotations that name no picture, read once more so that a file full of them needs no memory."""
    for item in elements(path, ("annotations",)):
        if isinstance(item, BadItem):
            yield item
        elif _image_id(item) is None:
            yield BadItem(item.position, "bad_annotation", "there is no image_id of the right kind")


def _image_id(item: Item | BadItem) -> int | None:
    value = item.value.get("image_id") if isinstance(item, Item) and isinstance(item.value, dict) else None
    return value if isinstance(value, int) and 0 <= value < 1 << 63 else None


def _packed(value: Mapping[str, Any]) -> bytes:
    own, category = value.get("id"), value.get("category_id")
    if not isinstance(own, int) or not isinstance(category, int) or not max(abs(own), abs(category)) < 1 << 63:
        raise RowError("bad_annotation", "there is no id or category_id of the right kind")
    return _OBJECT.pack(own, category, bool(value.get("iscrowd")), *box_of(value.get("bbox")))


def _names(path: Path) -> tuple[dict[int, str], BadItem | None]:
    """The categories' names by id, and the end of the file where it cannot be read up to them."""
    names: dict[int, str] = {}
    for item in elements(path, ("categories",)):
        if isinstance(item, BadItem):
            if item.error == BROKEN_FILE:
                return names, item
        elif isinstance(item.value, dict) and isinstance(item.value.get("id"), int):
            names[item.value["id"]] = one_line(item.value.get("name"))
    return names, None


def _sample(root: Path, split: str, names: Mapping[int, str], objects: Objects, is_whole: bool, row: Row) -> Sample:
    image_id = row.value.get("id")
    told = objects.pop(image_id, None) if isinstance(image_id, int) else None
    if not is_whole:
        raise RowError(INCOMPLETE, f"the file breaks off, so objects of picture {image_id!r} may be missing")
    if isinstance(told, RowError):
        raise told
    if told is None:
        raise RowError("no_objects", "no object is marked in the picture")
    size = size_of(row.value)
    boxes = []
    for _, category, crowd, *box in sorted(_OBJECT.iter_unpack(told)):
        if not names.get(category):
            raise RowError("unknown_category", f"the file has no category {category}")
        boxes.append((f"{names[category]} (group)" if crowd else names[category], box_text(Box(*box), size)))
    turns = about_picture(REQUEST, by_name(boxes))
    picture = picture_at(root, row.value.get("file_name"), (split, "images", f"images/{split}", ""))
    return Sample(row.file, row.position, turns, row.native_id, (picture,))
