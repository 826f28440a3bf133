"""Reads the rows of a shard, with their images, a bounded number at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from mvl_assets.export.export_row import ExportRow, ImageRef, build_export_row
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.row_addresses import RowAddresses, read_located_images, read_located_rows
from mvl_assets.media.image import MAX_SIDE
from mvl_assets.media.model_image import prepare_image

ImageForm = Literal["raw", "standard"]
"""`raw`: the bytes of the source's file. `standard`: upright RGB within 224 to 4,096 px and 7:1, as models get it; an
image that is a JPEG or PNG of that form already keeps its bytes, others become JPEG."""

MAX_GROUP_ROWS, MAX_GROUP_BYTES = 1024, 64 << 20
"""Rows, and bytes of their images, that are held at once: a row group of Parquet. One row may be larger."""

READ_PARTS = 4
"""Parts whose texts are read at once. The rows of a mixture lie at random: the more of them are read together, the more
share what Lance reads for each. Rows that go into one group anyway need no more memory for it."""

_STANDARD_SUFFIXES = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png"}
"""Endings of images in standard form, by how their bytes start."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image as it is exported. `name` is its id with the ending of its format."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Consecutive rows, and the images that they show by id."""

    rows: list[ExportRow]
    file_by_id: dict[str, ImageFile]


def iter_row_groups(lake: Lake, addresses: RowAddresses, image_form: ImageForm) -> Iterator[RowGroup]:
    """Yield the rows of a shard in order, with their images."""
    group: list[ExportRow] = []
    image_by_id: dict[str, ImageRef] = {}
    n_bytes = 0
    for row in iter_export_rows(lake, addresses):
        new_images = {image.image_id: image for image in row.images if image.image_id not in image_by_id}
        new_bytes = sum(image.size for image in new_images.values())
        if group and (len(group) == MAX_GROUP_ROWS or n_bytes + new_bytes > MAX_GROUP_BYTES):
            yield RowGroup(group, read_image_files(lake, addresses, image_by_id, image_form))
            group, image_by_id, n_bytes = [], {}, 0
            new_images = {image.image_id: image for image in row.images}
            new_bytes = sum(image.size for image in new_images.values())
        group.append(row)
        image_by_id |= new_images
        n_bytes += new_bytes
    if group:
        yield RowGroup(group, read_image_files(lake, addresses, image_by_id, image_form))


def iter_export_rows(lake: Lake, addresses: RowAddresses) -> Iterator[ExportRow]:
    """Yield the rows of a shard in order, reading the texts of `READ_PARTS` parts at a time."""
    for parts in iter_parts(addresses):
        image_by_id = list_images(parts)
        for row in read_located_rows(lake, parts, with_provenance=True):
            yield build_export_row(row, image_by_id)


def iter_parts(addresses: RowAddresses) -> Iterator[RowAddresses]:
    """Yield the addresses of `READ_PARTS` parts after the other."""
    numbers, image_numbers = (
        table.column("part").combine_chunks().to_numpy() for table in (addresses.rows, addresses.images)
    )
    for start in range(int(numbers[0]), int(numbers[-1]) + 1, READ_PARTS) if len(numbers) else ():
        bounds = (start, start + READ_PARTS)
        yield RowAddresses(
            _select_parts(addresses.rows, numbers, bounds),
            _select_parts(addresses.images, image_numbers, bounds),
            addresses.table_versions,
        )


def list_images(addresses: RowAddresses) -> dict[str, ImageRef]:
    """Return the images of some parts by id."""
    return {
        image["image_id"]: ImageRef(**{name: image[name] for name in ImageRef.__slots__})
        for image in addresses.images.to_pylist()
    }


def read_image_files(
    lake: Lake, addresses: RowAddresses, image_by_id: Mapping[str, ImageRef], image_form: ImageForm
) -> dict[str, ImageFile]:
    """Return images in the given form by id. Callers bound their bytes."""
    data_by_address = read_located_images(lake, addresses, [image.address for image in image_by_id.values()])
    files = {}
    for image_id, image in image_by_id.items():
        data = data_by_address[image.address]
        (name, *_) = list_possible_names(image, "raw")
        if image_form == "standard":
            data = prepare_image(data, MAX_SIDE)
            suffix = next(suffix for start, suffix in _STANDARD_SUFFIXES.items() if data.startswith(start))
            name = f"{image_id}.{suffix}"
        files[image_id] = ImageFile(name, data)
    return files


def list_possible_names(image: ImageRef, image_form: ImageForm) -> list[str]:
    """Return the names that the image's file may have in a form; which one it is, its bytes say."""
    suffix = image.format.lower()
    suffixes = ["jpg" if suffix == "jpeg" else suffix] if image_form == "raw" else list(_STANDARD_SUFFIXES.values())
    return [f"{image.image_id}.{suffix}" for suffix in suffixes]


def _select_parts(table: pa.Table, numbers: np.ndarray, bounds: tuple[int, int]) -> pa.Table:
    """Return the rows of the parts from one number to another (exclusive). The table is sorted by their numbers."""
    start, stop = np.searchsorted(numbers, bounds)
    return table.slice(int(start), int(stop - start))
