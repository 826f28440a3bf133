"""A JSON export as one file and a folder of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from mvl_assets.common.digest import RunningDigest, compute_digest
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_row import ExportRow, ImageRef, build_export_row
from mvl_assets.export.formats.json_formats import JsonFormat, build_image_path
from mvl_assets.export.row_reader import MAX_GROUP_BYTES, ImageForm, list_images, list_possible_names, read_image_files
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.mixtures.mixture_filter import MixtureFilter
from mvl_assets.lake_queries.row_addresses import (
    AddressBook,
    RowAddresses,
    open_mixture_addresses,
    read_located_rows,
)

CHUNK_ROWS = 2048


class FileFrame(NamedTuple):
    """What stands before the entries of a file, between them, and after the last one."""

    start: str
    separator: str
    end: str


LIST_FRAME, LINES_FRAME = FileFrame("[\n", ",\n", "\n]\n"), FileFrame("", "\n", "\n")


class FileCounts(NamedTuple):
    """What was written.

    Attributes:
        n_rows: Entries.
        n_images: Images that they show, each counted once in `CHUNK_ROWS` rows.
        digest: Of the entries.
    """

    n_rows: int
    n_images: int
    digest: str


def write_json_files(
    lake: Lake,
    stage: str,
    folder: ExportFolder,
    format_: JsonFormat,
    image_form: ImageForm,
    mixture_filter: MixtureFilter | None = None,
) -> FileCounts:
    """Write the file of a stage and the images that are not there yet."""
    name = format_.get_file_name(stage)
    frame = LIST_FRAME if format_.is_list else LINES_FRAME
    if lake.get_table(f"mixture/{stage}").exists():
        with open_mixture_addresses(
            lake, stage, CHUNK_ROWS, with_provenance=True, mixture_filter=mixture_filter
        ) as book:
            counts = write_entries(lake, book, folder, name, frame, format_.format_entry, image_form)
    else:
        with folder.write_file(name) as path:
            path.write_text(frame.start + (frame.end if format_.is_list else ""), encoding="utf-8")
        counts = FileCounts(0, 0, RunningDigest().to_hex())
    format_.write_index(folder, stage, name)
    return counts


def write_entries(
    lake: Lake,
    book: AddressBook,
    folder: ExportFolder,
    name: str,
    frame: FileFrame,
    format_entry: Callable[[ExportRow, Mapping[str, str]], str | None],
    image_form: ImageForm,
) -> FileCounts:
    """Write rows as the entries of one file, and their images that are not there yet.

    Args:
        lake: The lake.
        book: The rows, in parts of `CHUNK_ROWS`.
        folder: Folder of the export.
        name: Name of the file.
        frame: What stands around the entries.
        format_entry: Returns a row as text, given the paths of its images by id; None leaves it out.
        image_form: Form of the images.
    """
    book.require_complete()
    n_rows = n_images = 0
    digest = RunningDigest()
    with folder.write_file(name) as path, path.open("w", encoding="utf-8") as file:
        file.write(frame.start)
        for chunk in range(len(book.measure_parts())):
            addresses = book.read(chunk, chunk + 1)
            image_by_id = list_images(addresses)
            path_by_id = _write_images(lake, addresses, image_by_id, folder, image_form)
            n_images += len(path_by_id)
            for row in read_located_rows(lake, addresses, with_provenance=True):
                entry = format_entry(build_export_row(row, image_by_id), path_by_id)
                if entry is not None:
                    file.write((frame.separator if n_rows else "") + entry)
                    digest.add(compute_digest(entry))
                    n_rows += 1
        file.write(frame.end if n_rows or frame.start else "")
    return FileCounts(n_rows, n_images, digest.to_hex())


def _write_images(
    lake: Lake,
    addresses: RowAddresses,
    image_by_id: dict[str, ImageRef],
    folder: ExportFolder,
    image_form: ImageForm,
) -> dict[str, str]:
    """Write the missing images and return the path in the folder of each, by id."""
    possible_paths = {
        image_id: [build_image_path(name, image_form) for name in list_possible_names(image, image_form)]
        for image_id, image in image_by_id.items()
    }
    missing_paths = folder.find_missing(path for paths in possible_paths.values() for path in paths)
    path_by_id = {
        image_id: path for image_id, paths in possible_paths.items() for path in paths if path not in missing_paths
    }
    group: dict[str, ImageRef] = {}
    n_bytes = 0
    for image in [image for image_id, image in image_by_id.items() if image_id not in path_by_id]:
        if group and n_bytes + image.size > MAX_GROUP_BYTES:
            path_by_id |= _write_group(lake, addresses, group, folder, image_form)
            group, n_bytes = {}, 0
        group[image.image_id] = image
        n_bytes += image.size
    return path_by_id | _write_group(lake, addresses, group, folder, image_form)


def _write_group(
    lake: Lake, addresses: RowAddresses, group: dict[str, ImageRef], folder: ExportFolder, image_form: ImageForm
) -> dict[str, str]:
    files = read_image_files(lake, addresses, group, image_form)
    path_by_id = {image_id: build_image_path(file.name, image_form) for image_id, file in files.items()}
    folder.write_images((path_by_id[image_id], file.data) for image_id, file in files.items())
    return path_by_id
