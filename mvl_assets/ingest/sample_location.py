"""Where a sample is in its source's files now.

The lake has the place where a version was first read. A row with an id of its own may move without being a new version.
"""

from __future__ import annotations

from itertools import islice

from mvl_assets.common.batches import iter_batches
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.ingest.row_numbering import RowNumbering
from mvl_assets.readers.detect_format import detect_format
from mvl_assets.readers.format import RowKey
from mvl_assets.readers.registry import get_key_reader

BATCH_ROWS = 1024
MAX_LOCATED_ROWS = 200_000
"""Rows whose keys are read before giving up: a few seconds for most formats."""


def find_sample_location(source: SourceSpec, sample_id: str, *, max_rows: int = MAX_LOCATED_ROWS) -> RowKey | None:
    """Return where a sample is in the source's files; None if it is not among the first `max_rows` rows.

    Raises:
        SourceError: The files cannot be read.
    """
    numbering = RowNumbering(source.slug)
    read_keys = get_key_reader(detect_format(source, source.root))
    for keys in iter_batches(islice(read_keys(source, source.root), max_rows), BATCH_ROWS):
        for key, key_id in zip(keys, numbering.generate_ids(keys), strict=True):
            if key_id == sample_id:
                return key
    return None
