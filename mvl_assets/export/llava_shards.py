"""A mixture as parts: JSON lines, and a tar of the images that they name.

The name of a part holds the digest of its rows, so a part that is there under its name is right: an export that was
killed goes on where it stopped, and one of a changed mixture writes what changed.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from mvl_assets.common.digest import RunningDigest
from mvl_assets.execution.executor import Executor
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.llava_entry import build_image_path, format_entry
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.row_addresses import (
    AddressBook,
    RowAddresses,
    iter_located_images,
    open_mixture_addresses,
    read_located_rows,
)

PART_ROWS = 8192
"""Rows of a part: 2 to 3 GB with the paper's images."""

_LAYOUT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Part:
    """One part.

    Attributes:
        name: Name of its files without suffix.
        n_images: Images in its tar.
    """

    name: str
    n_images: int


@dataclass(frozen=True, slots=True)
class PartTask:
    """The task of writing one part to `folder`."""

    lake_root: str
    folder: ExportFolder
    name: str
    addresses: RowAddresses

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}"


def export_parts(lake: Lake, stage: str, folder: ExportFolder, executor: Executor) -> list[Part]:
    """Write the parts of a mixture that are missing, remove those of another, and return all in order."""
    n_rows = lake.get_table(f"mixture/{stage}").count()
    parts: list[Part] = []
    with open_mixture_addresses(lake, stage, PART_ROWS) as book:
        book.require_complete()
        tasks = _iter_missing(lake, folder, book, -(-n_rows // PART_ROWS), parts)
        with closing(executor.run(write_part, tasks)) as names:
            for _ in names:
                pass
    known_files = {f"{part.name}{suffix}" for part in parts for suffix in (".jsonl", ".tar")}
    for name in list(folder.list_files()):
        if name not in known_files:
            folder.delete_file(name)
    return parts


def _iter_missing(
    lake: Lake, folder: ExportFolder, book: AddressBook, n_parts: int, parts: list[Part]
) -> Iterator[PartTask]:
    """Yield tasks for the parts that are not there; list all parts in `parts`."""
    for number in range(n_parts):
        addresses = book.read(number, number + 1)
        digest = RunningDigest()
        digest.add(_LAYOUT_VERSION)
        for row_id in addresses.rows.column("row_id").to_pylist():
            digest.add(row_id)
        part = Part(f"part-{number:05d}-{digest.to_hex()[:16]}", len(addresses.images))
        parts.append(part)
        if folder.find_missing([f"{part.name}.jsonl"]):
            yield PartTask(lake.root, folder, part.name, addresses)


def write_part(task: PartTask) -> str:
    """Write a part's tar and then its lines, so that the lines are there only if all is."""
    lake = Lake(task.lake_root).snapshot()
    images: list[dict[str, Any]] = task.addresses.images.to_pylist()
    with task.folder.write_file(f"{task.name}.tar") as tar_path, tarfile.open(tar_path, "w") as tar:
        for image, data in iter_located_images(lake, task.addresses, images):
            member = tarfile.TarInfo(build_image_path(image))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    paths = {image["image_id"]: build_image_path(image) for image in images}
    with task.folder.write_file(f"{task.name}.jsonl") as lines_path, lines_path.open("w", encoding="utf-8") as file:
        for row in read_located_rows(lake, task.addresses):
            file.write(format_entry(row, paths) + "\n")
    return task.name
