"""The image store: content-addressed within each source, each image with its original bytes.

Images are appended in large files and never merged or compacted on their own: Lance would rewrite every byte. The same
image in two sources is stored twice; equal ids meet in curation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields

import lance
import pyarrow as pa

from mvl_assets.common.image_properties import ImageProperties
from mvl_assets.lake.errors import translate_store_errors
from mvl_assets.lake.key_index import KeyIndex
from mvl_assets.lake.schemas.data_tables import IMAGES
from mvl_assets.lake.schemas.rows import ImageRow
from mvl_assets.lake.table import Table

_PROPERTY_COLUMNS = tuple(field.name for field in fields(ImageProperties))


class ImageStore:
    """Images by id: those of one source, or of all of them.

    Attributes:
        table: The table `images`.
        source: Slug of the source; None finds an image in whatever source has it.
        index: Addresses of the images.
    """

    def __init__(self, table: Table, source: str | None = None) -> None:
        self.table = table
        self.source = source
        self.index = KeyIndex(table, source)

    def find_missing(self, ids: Iterable[str]) -> set[str]:
        """Return those of the ids that are not stored yet."""
        unique_ids = set(ids)
        return unique_ids - self.index.find_existing(unique_ids)

    def insert(self, rows: Sequence[ImageRow]) -> int:
        """Add the images that are not stored yet, in one commit, and return their number. Callers bound the bytes."""
        assert self.source is not None, "images are stored for a source"
        missing = self.find_missing(row.image_id for row in rows)
        new_rows = list({row.image_id: row for row in rows if row.image_id in missing}.values())
        if new_rows:
            written = self.table.write_fragments([build_image_table(new_rows, self.source)], self.source)
            self.table.append_fragments([written])
        return len(new_rows)

    def read_images(self, ids: Collection[str]) -> dict[str, bytes]:
        """Return the original bytes by id. Raises `KeyError` with the first id that is not stored."""
        data_by_id = self.read_stored_images(ids)
        for image_id in ids:
            if image_id not in data_by_id:
                raise KeyError(image_id)
        return data_by_id

    def read_stored_images(self, ids: Collection[str]) -> dict[str, bytes]:
        """Return the original bytes by id, without ids that are not stored."""
        key_addresses = self.index.load_key_addresses()
        address_by_id = {} if key_addresses is None else key_addresses.lookup(ids)
        if key_addresses is None or not address_by_id:
            return {}
        addresses = list(address_by_id.values())
        with translate_store_errors(self.table.uri):
            blobs = key_addresses.dataset.read_blobs("bytes", addresses=addresses, preserve_order=True)
        return {image_id: data or b"" for image_id, (_, data) in zip(address_by_id, blobs, strict=True)}

    def read_sizes(self, ids: Collection[str]) -> dict[str, int]:
        """Return the sizes in bytes by id, without ids that are not stored."""
        return {i: row["size"] for i, row in self.index.read_rows(ids, ("size",)).items()}

    def read_properties(self, ids: Collection[str]) -> dict[str, ImageProperties]:
        """Return the properties of each stored image by id, without ids that are not stored."""
        return {i: ImageProperties(**row) for i, row in self.index.read_rows(ids, _PROPERTY_COLUMNS).items()}


def build_image_table(rows: Sequence[ImageRow], source: str) -> pa.Table:
    """Return images of a source as rows of the table `images`."""
    columns = {
        "image_id": pa.array([r.image_id for r in rows], pa.string()),
        "source": pa.array([source] * len(rows), pa.string()),
        "bytes": lance.blob_array([r.data for r in rows]),
        "size": pa.array([len(r.data) for r in rows], pa.int64()),
        "format": pa.array([r.format for r in rows], pa.string()),
        "width": pa.array([r.width for r in rows], pa.int32()),
        "height": pa.array([r.height for r in rows], pa.int32()),
        "n_frames": pa.array([r.n_frames for r in rows], pa.int32()),
        "mode": pa.array([r.mode for r in rows], pa.string()),
        "phash": pa.array([r.phash for r in rows], pa.string()),
        "pdq": pa.array([r.pdq for r in rows], pa.string()),
        "pdq_quality": pa.array([r.pdq_quality for r in rows], pa.int32()),
        "trimmed_pdq": pa.array([r.trimmed_pdq for r in rows], pa.string()),
        "sharpness": pa.array([r.sharpness for r in rows], pa.float32()),
    }
    return pa.table(columns, schema=IMAGES.schema)
