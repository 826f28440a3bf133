"""A mixture as LLaVA training JSON, in one of two layouts.

`files` is what MAmmoTH-VL released and LLaVA-NeXT reads: `<stage>.json`, one list, and a folder `images`. `shards` is
for mixtures whose images are too many for a folder: `<stage>/part-….jsonl` with one entry per line, and beside each a
tar with the images that it names. Unpacking all tars in the export's folder gives the paths that the entries name.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mvl_assets.common.atomic_write import replace_file, write_bytes_atomic
from mvl_assets.common.digest import RunningDigest, compute_digest
from mvl_assets.execution.executor import Executor
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.export import llava_shards
from mvl_assets.export.llava_entry import build_image_path, format_entry
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.row_addresses import (
    RowAddresses,
    iter_located_images,
    open_mixture_addresses,
    read_located_rows,
)

Layout = Literal["auto", "files", "shards"]

CHUNK_ROWS = 2048
SHARDS_MIN_ROWS = 1_000_000
"""Rows of a mixture from which the layout `auto` means shards."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was exported: `path` is the JSON file or the folder of parts; `digest` is of the rows."""

    path: Path
    rows: int
    images: int
    digest: str


def export_stage(
    lake: Lake, stage: str, export_dir: Path, *, layout: Layout = "auto", executor: Executor | None = None
) -> ExportResult:
    """Write a mixture to `export_dir`; what is there already and still right is kept.

    Memory holds the rows of one chunk and a bounded number of images, whatever the size of the mixture.

    Args:
        lake: The lake.
        stage: Training stage of the mixture.
        export_dir: Folder of the export.
        layout: How the files lie; `auto` chooses by the number of rows.
        executor: Writes the shards; default: the processes of this machine. They write to its folders.

    Raises:
        LakeError: A row or an image of the mixture is not in the lake.
    """
    export_dir.mkdir(parents=True, exist_ok=True)
    n_rows = lake.get_table(f"mixture/{stage}").count()
    if n_rows and (layout == "shards" or (layout == "auto" and n_rows >= SHARDS_MIN_ROWS)):
        parts = llava_shards.export_parts(lake, stage, export_dir / stage, executor or ProcessExecutor())
        (export_dir / f"{stage}.json").unlink(missing_ok=True)
        digest = compute_digest([part.name for part in parts])
        return ExportResult(export_dir / stage, n_rows, sum(part.n_images for part in parts), digest)
    result = _export_files(lake, stage, export_dir, n_rows)
    shutil.rmtree(export_dir / stage, ignore_errors=True)
    return result


def _export_files(lake: Lake, stage: str, export_dir: Path, n_rows: int) -> ExportResult:
    """Write `<stage>.json` and its images. The file appears under its name only when it is complete."""
    target = export_dir / f"{stage}.json"
    n_images = 0
    digest = RunningDigest()
    separator = "\n"
    with replace_file(target, fsync=True, unique=False) as temp_path, temp_path.open("w", encoding="utf-8") as file:
        file.write("[")
        if n_rows:
            with open_mixture_addresses(lake, stage, CHUNK_ROWS) as book:
                book.require_complete()
                for chunk in range(-(-n_rows // CHUNK_ROWS)):
                    addresses = book.read(chunk, chunk + 1)
                    paths = _write_images(lake, addresses, export_dir)
                    n_images += len(paths)
                    for row in read_located_rows(lake, addresses):
                        line = format_entry(row, paths)
                        file.write(separator + line)
                        digest.add(compute_digest(line))
                        separator = ",\n"
        file.write("\n]\n")
    return ExportResult(target, n_rows, n_images, digest.to_hex())


def _write_images(lake: Lake, addresses: RowAddresses, export_dir: Path) -> Mapping[str, str]:
    """Write the missing images and return the path below `export_dir` of each, by id."""
    images: list[dict[str, Any]] = addresses.images.to_pylist()
    paths = {image["image_id"]: build_image_path(image) for image in images}
    missing_images = [image for image in images if not (export_dir / paths[image["image_id"]]).exists()]
    for image, data in iter_located_images(lake, addresses, missing_images):
        path = export_dir / paths[image["image_id"]]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(path, data, unique=False)
    return paths
