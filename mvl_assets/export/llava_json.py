r"""A mixture as LLaVA training JSON: what LLaVA-NeXT and its descendants read, and what MAmmoTH-VL released.

    [{"id": "3f…", "source": "chartqa", "image": "images/9a/9a1f….png",
      "conversations": [{"from": "human", "value": "<image>\n…"}, {"from": "gpt", "value": "…"}]},

One file per training stage, and a folder of images. `image` is a string for one image and a list for several; a video
is exported as its sampled frames. `id` is the mixture's row id, so `mvl trace` finds every exported row.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvl_assets.common.atomic_write import replace_file, write_bytes_atomic
from mvl_assets.common.batches import iter_batches
from mvl_assets.common.digest import compute_digest
from mvl_assets.common.markers import IMAGE_MARKER, VIDEO_MARKER
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.views import iter_mixture_rows

ROW_BATCH_SIZE, IMAGE_BATCH_SIZE = 64, 32


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was exported; `digest` is of the rows' JSON."""

    path: Path
    rows: int
    images: int
    digest: str


def export_stage(lake: Lake, stage: str, export_dir: Path) -> ExportResult:
    """Write `<export_dir>/<stage>.json` and the images it names, streaming; existing images are kept.

    The file appears under its name only when it is complete.
    """
    export_dir.mkdir(parents=True, exist_ok=True)
    target = export_dir / f"{stage}.json"
    n_rows = n_images = 0
    line_digests: list[str] = []
    with replace_file(target, fsync=True, unique=False) as temp_path, temp_path.open("w", encoding="utf-8") as file:
        file.write("[")
        for batch in iter_batches(iter_mixture_rows(lake, stage), ROW_BATCH_SIZE):
            paths = _write_images(lake, sorted({i for r in batch for i in r["image_ids"]}), export_dir)
            n_images += len(paths)
            for row in batch:
                line = json.dumps(_build_entry(row, paths), ensure_ascii=False)
                file.write(("\n" if n_rows == 0 else ",\n") + line)
                line_digests.append(compute_digest(line))
                n_rows += 1
        file.write("\n]\n")
    return ExportResult(target, n_rows, n_images, compute_digest(*line_digests))


def _write_images(lake: Lake, image_ids: list[str], export_dir: Path) -> dict[str, str]:
    """Write the missing images and return the path below `export_dir` of each, by id."""
    properties = lake.images.read_properties(image_ids)
    paths = {i: f"images/{i[:2]}/{i}.{properties[i].format.lower()}" for i in image_ids}
    missing = (i for i in image_ids if not (export_dir / paths[i]).exists())
    for chunk in iter_batches(missing, IMAGE_BATCH_SIZE):
        for image_id, data in lake.images.read_images(chunk).items():
            path = export_dir / paths[image_id]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(path, data, unique=False)
    return paths


def _build_entry(row: dict[str, Any], path_by_image: dict[str, str]) -> dict[str, Any]:
    n_frames = len(row["image_ids"]) if row["video"] else 0
    entry: dict[str, Any] = {"id": row["row_id"], "source": row["source"]}
    images = [path_by_image[i] for i in row["image_ids"]]
    if images:
        entry["image"] = images[0] if len(images) == 1 else images
    entry["conversations"] = [
        {"from": t["from"], "value": _expand_video_marker(t["value"], n_frames) if t["from"] == "human" else t["value"]}
        for t in row["conversations"]
    ]
    return entry


def _expand_video_marker(question: str, n_frames: int) -> str:
    """Replace the video's marker by one per frame. Elsewhere it is a word: an answer may be about the tag."""
    return question.replace(VIDEO_MARKER, IMAGE_MARKER * n_frames, 1) if n_frames else question
