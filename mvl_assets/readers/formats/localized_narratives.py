r"""Localized Narratives: JSON Lines of spoken descriptions, for images of four other collections.

    {"dataset_id": "mscoco_val2017", "image_id": "137576", "annotator_id": 93, "caption": "In this image there are ...",
     "timed_caption": [{"utterance": "In this", "start_time": 0.0, "end_time": 0.4}, ...],
     "traces": [[{"x": 0.2086, "y": -0.0533, "t": 0.022}, ...], ...], "voice_recording": "coco_val/..._93.ogg"}

One sample per line: a fixed request, answered by the caption. Times and traces of the pointer are not taken. An image
may have several narratives; the native id is `<dataset_id>/<image_id>/<annotator_id>`. Images are looked for by the
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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.conversations.regions import build_image_qa_turns, collapse_whitespace
from mvl_assets.readers.files import format_relative_path, list_data_files, resolve_image
from mvl_assets.readers.format import ARCHIVE_FILES, Format
from mvl_assets.readers.parsers.json_stream import iter_lines
from mvl_assets.readers.rows import Row, build_sample, parse_native_id, to_rows
from mvl_assets.readers.sample import EncodedImage, RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

QUESTION = "Describe in detail what the picture shows."

_IMAGE_FOLDERS = {
    "coco": ("train2017", "val2017", "coco", "coco/train2017", "coco/val2017"),
    "flic": ("flickr30k-images", "flickr30k", "flickr30k/flickr30k-images"),
    "ade": tuple(
        f"{top}images/{split}"
        for top in ("ADEChallengeData2016/", "ade20k/", "ade20k/ADEChallengeData2016/")
        for split in ("training", "validation")
    ),
    "open_images": tuple(f"{top}{split}" for top in ("", "open_images/") for split in ("train", "validation", "test")),
}
"""Folders of the images by a part of `dataset_id` (`mscoco_val2017`, `Flick30k_train`, `ADE20k_train`, …)."""


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    for path in list_data_files(source.slug, root, "*.jsonl", "annotations/*.jsonl"):
        for row in to_rows(format_relative_path(root, path), iter_lines(path)):
            yield build_sample(_add_native_id(row), partial(_to_sample, root))


def _add_native_id(row: Row | RejectedRow) -> Row | RejectedRow:
    if isinstance(row, RejectedRow):
        return row
    id_parts = [parse_native_id(row.value.get(field)) for field in ("dataset_id", "image_id", "annotator_id")]
    return (
        row
        if None in id_parts
        else row._replace(native_id=parse_native_id("/".join(str(id_part) for id_part in id_parts)))
    )


def _to_sample(root: Path, row: Row) -> Sample:
    caption = collapse_whitespace(row.value.get("caption"))
    if not caption:
        raise RejectError("no_caption", "the line has no caption")
    image = _resolve_row_image(root, row.value.get("dataset_id"), row.value.get("image_id"))
    return Sample(row.file, row.position, build_image_qa_turns(QUESTION, caption), row.native_id, (image,))


def _resolve_row_image(root: Path, dataset_id: object, image_id: object) -> EncodedImage:
    if not isinstance(dataset_id, str) or not isinstance(image_id, str):
        raise RejectError("bad_path", "dataset_id and image_id are not both text")
    collection = next(
        (collection_key for collection_key in _IMAGE_FOLDERS if collection_key in dataset_id.lower()), None
    )
    if collection is None:
        raise RejectError("unknown_dataset", f"no collection of images is known as {dataset_id[:80]!r}")
    name = image_id.zfill(12) if collection == "coco" else image_id
    return resolve_image(root, f"{name}.jpg", (*_IMAGE_FOLDERS[collection], "images"))


FORMAT = Format(
    row_files=("*.jsonl",),
    media_files=ARCHIVE_FILES,
    description="the *.jsonl of narratives and the images, in train2017/, flickr30k-images/ and so on",
    read=read,
)
