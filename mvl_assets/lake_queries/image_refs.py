"""Which pictures the samples refer to, and what of them is stored."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.lake import Lake

BATCH = 8192


def pictures_of(lake: Lake, condition: str | None = None) -> Iterator[list[str]]:
    """The picture ids of the rows of `samples` that match, all revisions, in batches; ids repeat."""
    for batch in lake.table("samples").scan(["image_ids"], condition, BATCH):
        yield pc.list_flatten(batch.column(0)).to_pylist()


def unused_pictures(lake: Lake) -> IdSet:
    """Stored pictures that no revision of any sample refers to."""
    stored = lake.images.table.scan(["image_id"], None, BATCH)
    return IdSet(batch.column(0).to_pylist() for batch in stored).without(pictures_of(lake))


def stored_sizes(lake: Lake, ids: IdSet) -> Iterator[int]:
    """The bytes of each picture among `ids` that is stored."""
    for batch in lake.images.table.scan(["image_id", "size"], None, BATCH):
        yield from batch.column(1).filter(pa.array(ids.has(batch.column(0).to_pylist()))).to_pylist()
