"""Images that samples refer to."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.lake import Lake

BATCH_SIZE = 8192


def iter_referenced_image_ids(lake: Lake, condition: str | None = None) -> Iterator[list[str]]:
    """Yield batches of the image ids in all revisions of the samples that match; ids may repeat."""
    for batch in lake.get_table("samples").scan(["image_ids"], condition, BATCH_SIZE):
        yield pc.list_flatten(batch.column(0)).to_pylist()


def find_unreferenced_images(lake: Lake) -> IdSet:
    """Return the stored images that no revision of any sample refers to."""
    stored_batches = lake.images.table.scan(["image_id"], None, BATCH_SIZE)
    return IdSet(batch.column(0).to_pylist() for batch in stored_batches).difference(iter_referenced_image_ids(lake))


def iter_image_sizes(lake: Lake, ids: IdSet) -> Iterator[int]:
    """Yield the size in bytes of each of these images that is stored."""
    for batch in lake.images.table.scan(["image_id", "size"], None, BATCH_SIZE):
        yield from batch.column(1).filter(pa.array(ids.contains(batch.column(0).to_pylist()))).to_pylist()
