r"""COCO captions: `annotations/captions_<split>.json` next to folders of images; of all splits, or of the source's.

    {"images": [{"id": 9, "file_name": "000000000009.jpg", "width": 640, "height": 480}, ...],
     "annotations": [{"id": 661611, "image_id": 9, "caption": "A tray of food."}, ...]}

One sample per image in the order of `images`: a fixed neutral request, answered by all captions of the image, one per
line in the order of annotation ids. Images are in `<split>/`, `images/`, `images/<split>/` or the folder itself.
Captions are joined with their images in memory: about 200 bytes per caption, 120 MB for COCO 2017. Specification:
cocodataset.org/#format-data (5. Captioning).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_assets.common.rejects import RejectError
from mvl_assets.readers.files import format_relative_path, list_data_files, resolve_image
from mvl_assets.readers.format import ARCHIVE_FILES, Format
from mvl_assets.readers.parsers.json_stream import BROKEN_FILE, INCOMPLETE_FILE, RejectedItem, iter_elements
from mvl_assets.readers.rows import Row, add_image_markers, build_qa_turns, build_sample, to_rows
from mvl_assets.readers.sample import RejectedRow, Sample

if TYPE_CHECKING:
    from mvl_assets.config.catalog import SourceSpec

QUESTION = "Describe the picture."
CaptionsByImage = dict[int, list[tuple[int, str]]]


def read(source: SourceSpec, root: Path) -> Iterator[Sample | RejectedRow]:
    """Yield the source's samples and rejected rows."""
    file_pattern = f"captions_{source.split or ''}*.json"
    for path in list_data_files(source.slug, root, f"annotations/{file_pattern}", file_pattern):
        split = path.stem.removeprefix("captions_")
        captions, rejected_items = _load_captions(path)
        is_complete = all(item.error != BROKEN_FILE for item in rejected_items)
        name = format_relative_path(root, path)
        position = 0
        for row in to_rows(name, iter_elements(path, ("images",)), "id"):
            position = row.position + 1
            yield build_sample(row, partial(_to_sample, root, split, captions, is_complete))
        # The rest is about images that the file does not list; these rows are numbered after the images.
        for image_id in captions:
            message = f"there are captions for image {image_id}, which the file does not list"
            yield RejectedRow(name, position, "unknown_image", message)
            position += 1
        for item in rejected_items:
            yield RejectedRow(name, position, item.error, f"annotation {item.position}: {item.message}")
            position += 1


def _load_captions(path: Path) -> tuple[CaptionsByImage, list[RejectedItem]]:
    """Load captions with their ids by image id, and the annotations that cannot be read."""
    captions: CaptionsByImage = {}
    rejected_items: list[RejectedItem] = []
    for item in iter_elements(path, ("annotations",)):
        if isinstance(item, RejectedItem):
            rejected_items.append(item)
            continue
        value = item.value if isinstance(item.value, dict) else {}
        image_id, caption, caption_id = value.get("image_id"), value.get("caption"), value.get("id", item.position)
        if not isinstance(image_id, int) or not isinstance(caption, str) or not isinstance(caption_id, int):
            rejected_items.append(
                RejectedItem(item.position, "bad_annotation", "no image_id, id or caption of the right kind")
            )
        else:
            captions.setdefault(image_id, []).append((caption_id, caption))
    return captions, rejected_items


def _to_sample(root: Path, split: str, captions: CaptionsByImage, is_complete: bool, row: Row) -> Sample:
    image_id = row.value.get("id")
    image_captions = captions.pop(image_id, []) if isinstance(image_id, int) else []
    if not is_complete:
        raise RejectError(INCOMPLETE_FILE, f"the file breaks off, so captions of image {image_id!r} may be missing")
    lines = [" ".join(caption.split()) for _, caption in sorted(image_captions)]
    answer = "\n".join(line for line in lines if line)
    if not answer:
        raise RejectError("no_caption", f"image {image_id!r} has no caption")
    turns = add_image_markers(build_qa_turns(QUESTION, answer), 1)
    image = resolve_image(root, row.value.get("file_name"), (split, "images", f"images/{split}", ""))
    return Sample(row.file, row.position, turns, row.native_id, (image,))


FORMAT = Format(
    row_files=("*.json",),
    media_files=ARCHIVE_FILES,
    description="annotations/captions_*.json and the folders of images",
    read=read,
)
