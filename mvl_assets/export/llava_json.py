"""A mixture as LLaVA training JSON: what LLaVA-NeXT and its descendants read, and what MAmmoTH-VL released.

    [{"id": "3f…", "source": "chartqa", "image": "images/9a/9a1f….png",
      "conversations": [{"from": "human", "value": "<image>\\n…"}, {"from": "gpt", "value": "…"}]},

One file per stage beside a folder of pictures. `image` is a string for one picture and a list for several; a video
comes as its sampled frames. `id` is the mixture's row id, so `mvl trace` finds every exported row.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvl_assets.common.digest import digest_hex
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.views import in_batches, mixture_rows

VIDEO, IMAGE = "<video>", "<image>"
BATCH = 64


@dataclass(frozen=True, slots=True)
class Exported:
    """`digest` is of the JSON file's bytes."""

    file: Path
    rows: int
    pictures: int
    digest: str


def export_stage(lake: Lake, stage: str, folder: Path) -> Exported:
    """Writes `<folder>/<stage>.json` and the pictures it names, streaming; pictures that are there already are kept.

    The file appears under its name only when it is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{stage}.json"
    partial = target.with_suffix(".json.partial")
    rows = pictures = 0
    parts: list[str] = []
    with partial.open("w", encoding="utf-8") as out:
        out.write("[")
        for batch in in_batches(mixture_rows(lake, stage), BATCH):
            paths = _write_pictures(lake, sorted({i for r in batch for i in r["image_ids"]}), folder)
            pictures += len(paths)
            for row in batch:
                line = json.dumps(_entry(row, paths), ensure_ascii=False)
                out.write(("\n" if rows == 0 else ",\n") + line)
                parts.append(digest_hex(line))
                rows += 1
        out.write("\n]\n")
        out.flush()
        os.fsync(out.fileno())
    partial.replace(target)
    return Exported(target, rows, pictures, digest_hex(*parts))


def _write_pictures(lake: Lake, ids: list[str], folder: Path) -> dict[str, str]:
    """Path below `folder` by picture id."""
    known = lake.images.describe(ids)
    paths = {i: f"images/{i[:2]}/{i}.{known[i].format.lower()}" for i in ids}
    for some in _chunks([i for i in ids if not (folder / paths[i]).exists()]):
        for image_id, data in lake.images.fetch(some).items():
            path = folder / paths[image_id]
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_bytes(data)
            partial.replace(path)
    return paths


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    """A few pictures at a time, so that memory holds a few pictures."""
    for start in range(0, len(ids), 32):
        yield ids[start : start + 32]


def _entry(row: dict[str, Any], paths: dict[str, str]) -> dict[str, Any]:
    frames = len(row["image_ids"]) if row["video"] else 0
    entry: dict[str, Any] = {"id": row["row_id"], "source": row["source"]}
    images = [paths[i] for i in row["image_ids"]]
    if images:
        entry["image"] = images[0] if len(images) == 1 else images
    entry["conversations"] = [
        {"from": t["from"], "value": _with_frames(t["value"], frames) if t["from"] == "human" else t["value"]}
        for t in row["conversations"]
    ]
    return entry


def _with_frames(question: str, frames: int) -> str:
    """A marker per frame for that of the video. Anywhere else it is a word: an answer may be about the tag."""
    return question.replace(VIDEO, IMAGE * frames, 1) if frames else question
