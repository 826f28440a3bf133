r"""COCO objects: `annotations/instances_<split>.json` next to folders of images; of all splits, or of the source's.

    {"images": [{"id": 9, "file_name": "000000000009.jpg", "width": 640, "height": 480}, ...],
     "annotations": [{"id": 1038967, "image_id": 9, "category_id": 51, "bbox": [1.08, 187.69, 611.59, 285.84],
                      "area": 120057.1, "iscrowd": 0, "segmentation": [[500.49, 473.53, ...]]}, ...],
     "categories": [{"id": 51, "name": "bowl", "supercategory": "kitchen"}, ...]}

One sample per image in the order of `images`: a fixed request, answered by one line per category with the boxes of
its objects (`regions` says in which form and why), in the order of annotation ids. Regions that COCO marks as a crowd
(`iscrowd`) cover many objects and have a line of their own, `person (group)`. Outlines are not taken: the answer
does not use them, and they are nine tenths of the file. An image of which an object cannot be read is rejected,
because its list would be incomplete. Images are in `<split>/`, `images/`, `images/<split>/` or the folder itself.

Objects are joined with their images in memory, packed: 49 bytes per object and about 400 per image, 100 MB for
instances_train2017 (860,001 objects in 448 MB of JSON). Specification: cocodataset.org/#format-data (1. Object
Detection).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.conversations.regions import (
    BOX_FORMAT,
    Box,
    build_image_qa_turns,
    collapse_whitespace,
    format_box,
    format_boxes_by_name,
    parse_box,
    parse_size,
)
from mvl_assets.readers.files import format_relative_path, list_data_files, resolve_image
from mvl_assets.readers.format import ARCHIVE_FILES, Format
from mvl_assets.readers.parsers.json_stream import BROKEN_FILE, INCOMPLETE_FILE, Item, RejectedItem, iter_elements
from mvl_assets.readers.rows import Row, build_sample, to_rows
from mvl_assets.readers.sample import RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

QUESTION = (
    f"Which objects are in the picture, and where? Name each kind once and give the box of each object {BOX_FORMAT}."
)

_OBJECT_STRUCT = struct.Struct("<qq?4d")
"""Annotation id, category id, crowd, box."""

ObjectsByImage = dict[int, bytearray | RejectError]
"""The packed objects of each image, or why they cannot be used."""


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    file_pattern = f"instances_{source.split or ''}*.json"
    for path in list_data_files(source.slug, root, f"annotations/{file_pattern}", file_pattern):
        name, split = format_relative_path(root, path), path.stem.removeprefix("instances_")
        objects, has_orphans, is_complete = _load_objects(path)
        category_names, categories_reject = _load_category_names(path)
        position = 0
        for row in to_rows(name, iter_elements(path, ("images",)), "id"):
            position = row.position + 1
            yield build_sample(row, partial(_to_sample, root, split, category_names, objects, is_complete))
        # The rest is about images that the file does not list; these rows are numbered after the images.
        for image_id in objects:
            message = f"there are objects of image {image_id}, which the file does not list"
            yield RejectedRow(name, position, "unknown_image", message)
            position += 1
        for rejected_item in _iter_orphan_annotations(path) if has_orphans else ():
            yield RejectedRow(
                name, position, rejected_item.error, f"annotation {rejected_item.position}: {rejected_item.message}"
            )
            position += 1
        if categories_reject is not None:
            yield RejectedRow(name, position, categories_reject.error, f"categories: {categories_reject.message}")


def _load_objects(path: Path) -> tuple[ObjectsByImage, bool, bool]:
    """Load the objects by image id; whether an annotation names no image; whether all could be read."""
    objects: ObjectsByImage = {}
    has_orphans, is_complete = False, True
    for item in iter_elements(path, ("annotations",)):
        image_id = _get_image_id(item)
        if isinstance(item, RejectedItem) or image_id is None:
            has_orphans = True
            is_complete &= not isinstance(item, RejectedItem) or item.error != BROKEN_FILE
            continue
        packed_objects = objects.setdefault(image_id, bytearray())
        if isinstance(packed_objects, bytearray):
            try:
                packed_objects += _pack_object(item.value)
            except RejectError as error:
                objects[image_id] = RejectError(error.code, f"annotation {item.position}: {error.message}")
    return objects, has_orphans, is_complete


def _iter_orphan_annotations(path: Path) -> Iterator[RejectedItem]:
    """Yield the annotations that name no image, read again so that a file full of them needs no memory."""
    for item in iter_elements(path, ("annotations",)):
        if isinstance(item, RejectedItem):
            yield item
        elif _get_image_id(item) is None:
            yield RejectedItem(item.position, "bad_annotation", "there is no image_id of the right kind")


def _get_image_id(item: Item | RejectedItem) -> int | None:
    value = item.value.get("image_id") if isinstance(item, Item) and isinstance(item.value, dict) else None
    return value if isinstance(value, int) and 0 <= value < 1 << 63 else None


def _pack_object(value: Mapping[str, Any]) -> bytes:
    annotation_id, category_id = value.get("id"), value.get("category_id")
    if (
        not isinstance(annotation_id, int)
        or not isinstance(category_id, int)
        or not max(abs(annotation_id), abs(category_id)) < 1 << 63
    ):
        raise RejectError("bad_annotation", "there is no id or category_id of the right kind")
    return _OBJECT_STRUCT.pack(annotation_id, category_id, bool(value.get("iscrowd")), *parse_box(value.get("bbox")))


def _load_category_names(path: Path) -> tuple[dict[int, str], RejectedItem | None]:
    """Load the categories' names by id, and the end of the file where it cannot be read up to them."""
    names: dict[int, str] = {}
    for item in iter_elements(path, ("categories",)):
        if isinstance(item, RejectedItem):
            if item.error == BROKEN_FILE:
                return names, item
        elif isinstance(item.value, dict) and isinstance(item.value.get("id"), int):
            names[item.value["id"]] = collapse_whitespace(item.value.get("name"))
    return names, None


def _to_sample(
    root: Path, split: str, category_names: Mapping[int, str], objects: ObjectsByImage, is_complete: bool, row: Row
) -> Sample:
    image_id = row.value.get("id")
    packed_objects = objects.pop(image_id, None) if isinstance(image_id, int) else None
    if not is_complete:
        raise RejectError(INCOMPLETE_FILE, f"the file breaks off, so objects of image {image_id!r} may be missing")
    if isinstance(packed_objects, RejectError):
        raise packed_objects
    if packed_objects is None:
        raise RejectError("no_objects", "no object is marked in the image")
    size = parse_size(row.value)
    boxes = []
    for _, category_id, is_crowd, *box in sorted(_OBJECT_STRUCT.iter_unpack(packed_objects)):
        if not category_names.get(category_id):
            raise RejectError("unknown_category", f"the file has no category {category_id}")
        boxes.append(
            (
                f"{category_names[category_id]} (group)" if is_crowd else category_names[category_id],
                format_box(Box(*box), size),
            )
        )
    turns = build_image_qa_turns(QUESTION, format_boxes_by_name(boxes))
    image = resolve_image(root, row.value.get("file_name"), (split, "images", f"images/{split}", ""))
    return Sample(row.file, row.position, turns, row.native_id, (image,))


FORMAT = Format(
    row_files=("*.json",),
    media_files=ARCHIVE_FILES,
    description="annotations/instances_*.json and the folders of images",
    read=read,
)
