r"""Localized Narratives: JSON Lines of spoken descriptions, for pictures of four other collections.

    {"dataset_id": "mscoco_val2017", "image_id": "137576", "annotator_id": 93, "caption": "In this image there are ...",
     "timed_caption": [{"utterance": "In this", "start_time": 0.0, "end_time": 0.4}, ...],
     "traces": [[{"x": 0.2086, "y": -0.0533, "t": 0.022}, ...], ...], "voice_recording": "coco_val/..._93.ogg"}

One sample per line: a fixed request, answered by the caption. Times and traces of the pointer are not taken. A picture
may have several narratives; the native id is `<dataset_id>/<image_id>/<annotator_id>`. Pictures are looked for by the
names that their own collections give them, in these folders or below one named as the collection:

    COCO         `train2017/`, `val2017/`                    <id in twelve digits>.jpg
    Flickr30k    `flickr30k-images/`                         <id>.jpg
    ADE20K       `ADEChallengeData2016/images/training/` …   <id>.jpg, such as ADE_train_00000001.jpg
    Open Images  `train/`, `validation/`, `test/`            <id>.jpg

Specification: google.github.io/localized-narratives, "File formats", and google/localized-narratives,
localized_narratives.py (also for the names of the files).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.readers.files import files_below, picture_at, relative
from mvl_assets.readers.json_stream import lines
from mvl_assets.readers.regions import about_picture, one_line
from mvl_assets.readers.rows import Row, RowError, built, native_id, rows_of
from mvl_assets.readers.sample import Broken, Picture, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

REQUEST = "Describe in detail what the picture shows."

_FOLDERS = {
    "coco": ("train2017", "val2017", "coco", "coco/train2017", "coco/val2017"),
    "flic": ("flickr30k-images", "flickr30k", "flickr30k/flickr30k-images"),
    "ade": tuple(
        f"{top}images/{split}"
        for top in ("ADEChallengeData2016/", "ade20k/", "ade20k/ADEChallengeData2016/")
        for split in ("training", "validation")
    ),
    "open_images": tuple(f"{top}{split}" for top in ("", "open_images/") for split in ("train", "validation", "test")),
}
"""Folders of the pictures by a part of `dataset_id` (`mscoco_val2017`, `Flick30k_train`, `ADE20k_train`, …)."""


def read(source: SourceSpec, root: Path) -> Iterator[Sample | Broken]:
    for path in files_below(source.slug, root, "*.jsonl", "annotations/*.jsonl"):
        for row in rows_of(relative(root, path), lines(path)):
            yield built(_named(row), partial(_sample, root))


def _named(row: Row | Broken) -> Row | Broken:
    if isinstance(row, Broken):
        return row
    parts = [native_id(row.value.get(field)) for field in ("dataset_id", "image_id", "annotator_id")]
    return row if None in parts else replace(row, native_id=native_id("/".join(str(part) for part in parts)))


def _sample(root: Path, row: Row) -> Sample:
    caption = one_line(row.value.get("caption"))
    if not caption:
        raise RowError("no_caption", "the line has no caption")
    picture = _picture(root, row.value.get("dataset_id"), row.value.get("image_id"))
    return Sample(row.file, row.position, about_picture(REQUEST, caption), row.native_id, (picture,))


def _picture(root: Path, dataset: object, image: object) -> Picture:
    if not isinstance(dataset, str) or not isinstance(image, str):
        raise RowError("bad_path", "dataset_id and image_id are not both text")
    collection = next((part for part in _FOLDERS if part in dataset.lower()), None)
    if collection is None:
        raise RowError("unknown_dataset", f"no collection of pictures is known as {dataset[:80]!r}")
    name = image.zfill(12) if collection == "coco" else image
    return picture_at(root, f"{name}.jpg", (*_FOLDERS[collection], "images"))
