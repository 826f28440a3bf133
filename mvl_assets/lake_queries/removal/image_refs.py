"""Images that samples refer to."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.lake import Lake

BATCH_SIZE = 8192


def iter_referenced_image_ids(lake: Lake, source: str, condition: str | None = None) -> Iterator[list[str]]:
    """Yield batches of the image ids in all revisions of a source's samples that match; ids may repeat."""
    for batch in lake.get_table("samples").scan(["image_ids"], condition, BATCH_SIZE, partition_key=source):
        yield pc.list_flatten(batch.column(0)).to_pylist()


def find_unreferenced_images(lake: Lake, source: str) -> IdSet:
    """Return the stored images of a source that no revision of its samples refers to."""
    stored_batches = lake.images.table.scan(["image_id"], None, BATCH_SIZE, partition_key=source)
    return IdSet(batch.column(0).to_pylist() for batch in stored_batches).difference(
        iter_referenced_image_ids(lake, source)
    )


def iter_image_sizes(lake: Lake, source: str, ids: IdSet) -> Iterator[int]:
    """Yield the size in bytes of each of these images of a source that is stored."""
    for batch in lake.images.table.scan(["image_id", "size"], None, BATCH_SIZE, partition_key=source):
        yield from batch.column(1).filter(pa.array(ids.contains(batch.column(0).to_pylist()))).to_pylist()
