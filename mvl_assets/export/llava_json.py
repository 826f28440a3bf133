"""A mixture as LLaVA training JSON, in one of two layouts.

`files` is what MAmmoTH-VL released and LLaVA-NeXT reads: `<stage>.json`, one list, and a folder `images`. `shards` is
for mixtures whose images are too many for a folder: `<stage>/part-….jsonl` with one entry per line, and beside each a
tar with the images that it names. Unpacking all tars in the export's folder gives the paths that the entries name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mvl_assets.common.digest import RunningDigest, compute_digest
from mvl_assets.execution.executor import Executor
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.export import llava_shards
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.llava_entry import build_image_path, format_entry
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.storage import check_store
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
    """What was exported: `name` is that of the JSON file or of the folder of parts; `digest` is of the rows."""

    name: str
    rows: int
    images: int
    digest: str


def export_stage(
    lake: Lake, stage: str, folder: ExportFolder, *, layout: Layout = "auto", executor: Executor | None = None
) -> ExportResult:
    """Write a mixture to a folder; what is there already and still right is kept.

    Memory holds the rows of one chunk and a bounded number of images, whatever the size of the mixture.

    Args:
        lake: The lake.
        stage: Training stage of the mixture.
        folder: Folder of the export.
        layout: How the files lie; `auto` chooses by the number of rows.
        executor: Writes the shards; default: the processes of this machine, which have its folders.

    Raises:
        LakeError: A row or an image of the mixture is not in the lake.
        StoreError: The object store of the folder cannot be used.
    """
    check_store(folder.uri)
    n_rows = lake.get_table(f"mixture/{stage}").count()
    if n_rows and (layout == "shards" or (layout == "auto" and n_rows >= SHARDS_MIN_ROWS)):
        parts = llava_shards.export_parts(lake, stage, folder.join(stage), executor or ProcessExecutor())
        folder.delete_file(f"{stage}.json")
        digest = compute_digest([part.name for part in parts])
        return ExportResult(stage, n_rows, sum(part.n_images for part in parts), digest)
    result = _export_files(lake, stage, folder, n_rows)
    folder.delete_folder(stage)
    return result


def _export_files(lake: Lake, stage: str, folder: ExportFolder, n_rows: int) -> ExportResult:
    """Write `<stage>.json` and its images. The file appears under its name only when it is complete."""
    name = f"{stage}.json"
    n_images = 0
    digest = RunningDigest()
    separator = "\n"
    with folder.write_file(name) as path, path.open("w", encoding="utf-8") as file:
        file.write("[")
        if n_rows:
            with open_mixture_addresses(lake, stage, CHUNK_ROWS) as book:
                book.require_complete()
                for chunk in range(-(-n_rows // CHUNK_ROWS)):
                    addresses = book.read(chunk, chunk + 1)
                    paths = _write_images(lake, addresses, folder)
                    n_images += len(paths)
                    for row in read_located_rows(lake, addresses):
                        line = format_entry(row, paths)
                        file.write(separator + line)
                        digest.add(compute_digest(line))
                        separator = ",\n"
        file.write("\n]\n")
    return ExportResult(name, n_rows, n_images, digest.to_hex())


def _write_images(lake: Lake, addresses: RowAddresses, folder: ExportFolder) -> Mapping[str, str]:
    """Write the missing images and return the path in the folder of each, by id."""
    images: list[dict[str, Any]] = addresses.images.to_pylist()
    paths = {image["image_id"]: build_image_path(image) for image in images}
    missing_paths = folder.find_missing(paths.values())
    missing_images = [image for image in images if paths[image["image_id"]] in missing_paths]
    folder.write_images(
        (paths[image["image_id"]], data) for image, data in iter_located_images(lake, addresses, missing_images)
    )
    return paths
