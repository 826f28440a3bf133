"""COCO: one annotation file beside a folder of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mvl_assets.demo_data.layouts.common import Layout, dump, save
from mvl_assets.demo_data.rows import Row


def coco_captions(split: str, folder: Path, name: str, rows: Sequence[Row]) -> None:
    """`annotations/captions_<split>.json` {info, licenses, images, annotations} and the pictures in `<split>/`.

    The answers of a row are its captions; ids of captions go round the pictures, as in the original.
    """
    images: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        images.append({"license": 1, "file_name": row.pictures[0].name, "id": number + 139})
    most = max(len(row.turns) for row in rows)
    for turn in range(most):
        for number, row in enumerate(rows):
            if turn < len(row.turns):
                captions.append({"image_id": number + 139, "id": len(captions) + 1, "caption": row.turns[turn][1]})
    whole = {
        "info": {"description": f"{name}, drawn in small", "version": "1.0", "year": 2017},
        "licenses": [{"id": 1, "name": "Written for this project", "url": ""}],
        "images": images,
        "annotations": captions,
    }
    dump(folder / "annotations" / f"captions_{split}.json", whole)
    save(folder / split, (picture for row in rows for picture in row.pictures))


LAYOUTS = {
    "coco_captions": Layout("coco_captions", partial(coco_captions, "val2017")),
    "coco_captions_train": Layout("coco_captions", partial(coco_captions, "train2017")),
}
