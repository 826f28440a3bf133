"""COCO: one annotation file and a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mvl_assets.demo_data.layouts.common import SourceLayout, write_files, write_json
from mvl_assets.demo_data.rows import RawRow


def write_coco_captions(split: str, source_dir: Path, slug: str, rows: Sequence[RawRow]) -> None:
    """Write `annotations/captions_<split>.json` {info, licenses, images, annotations} and the images in `<split>/`.

    The answers of a row are its captions; ids of captions go round the images, as in the original.

    Args:
        split: Name of the split, such as `train2017`.
        source_dir: Folder of the source.
        slug: The source.
        rows: Rows with one image each.
    """
    images: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        images.append({"license": 1, "file_name": row.images[0].name, "id": number + 139})
    max_turns = max(len(row.turns) for row in rows)
    for turn in range(max_turns):
        for number, row in enumerate(rows):
            if turn < len(row.turns):
                captions.append({"image_id": number + 139, "id": len(captions) + 1, "caption": row.turns[turn][1]})
    document = {
        "info": {"description": f"{slug}, drawn in small", "version": "1.0", "year": 2017},
        "licenses": [{"id": 1, "name": "Written for this project", "url": ""}],
        "images": images,
        "annotations": captions,
    }
    write_json(source_dir / "annotations" / f"captions_{split}.json", document)
    write_files(source_dir / split, (image for row in rows for image in row.images))


LAYOUTS = {
    "coco_captions": SourceLayout("coco_captions", partial(write_coco_captions, "val2017")),
    "coco_captions_train": SourceLayout("coco_captions", partial(write_coco_captions, "train2017")),
}
