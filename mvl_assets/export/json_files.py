"""A JSON export as one file and a folder of images."""

from __future__ import annotations

from mvl_assets.common.digest import RunningDigest, compute_digest
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_row import ImageRef, build_export_row
from mvl_assets.export.formats.json_formats import JsonFormat, build_image_path
from mvl_assets.export.row_reader import MAX_GROUP_BYTES, ImageForm, list_images, list_possible_names, read_image_files
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.mixtures.mixture_filter import MixtureFilter
from mvl_assets.lake_queries.row_addresses import RowAddresses, open_mixture_addresses, read_located_rows

CHUNK_ROWS = 2048


def write_json_files(
    lake: Lake,
    stage: str,
    folder: ExportFolder,
    format_: JsonFormat,
    image_form: ImageForm,
    mixture_filter: MixtureFilter | None = None,
) -> tuple[int, int, str]:
    """Write the file of a stage and the images that are not there yet.

    Returns:
        How many rows there are, how many images they show, each counted once in `CHUNK_ROWS` rows, and the digest of
        the entries.
    """
    name = format_.get_file_name(stage)
    n_rows = n_images = 0
    digest = RunningDigest()
    # A list has a comma between entries; lines end with a break.
    start, separator, end = ("[\n", ",\n", "\n]\n") if format_.is_list else ("", "\n", "\n")
    has_mixture = lake.get_table(f"mixture/{stage}").exists()
    with folder.write_file(name) as path, path.open("w", encoding="utf-8") as file:
        file.write(start)
        if has_mixture:
            with open_mixture_addresses(
                lake, stage, CHUNK_ROWS, with_provenance=True, mixture_filter=mixture_filter
            ) as book:
                book.require_complete()
                n_rows = book.count_rows()
                for chunk in range(-(-n_rows // CHUNK_ROWS)):
                    addresses = book.read(chunk, chunk + 1)
                    image_by_id = list_images(addresses)
                    path_by_id = _write_images(lake, addresses, image_by_id, folder, image_form)
                    n_images += len(path_by_id)
                    for number, row in enumerate(read_located_rows(lake, addresses, with_provenance=True)):
                        line = format_.format_entry(build_export_row(row, image_by_id), path_by_id)
                        file.write((separator if chunk or number else "") + line)
                        digest.add(compute_digest(line))
        file.write(end if n_rows or format_.is_list else "")
    format_.write_index(folder, stage, name)
    return n_rows, n_images, digest.to_hex()


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
