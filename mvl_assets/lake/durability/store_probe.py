"""Does an object store keep every commit? Tried with commits at the same moment, on a table of its own.

Lance commits by writing the next version's manifest only if no one has yet. A store that ignores that condition lets
the later of two writers replace the earlier's commit, and what it has stored is gone without an error.
"""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import lance
import pyarrow as pa

from mvl_assets.lake.errors import StoreError, translate_disk_errors
from mvl_assets.lake.storage import build_storage_options, check_store, open_filesystem

N_WRITERS = 4
N_ROUNDS = 3
SCHEMA = pa.schema([("writer", pa.int64())])


def require_conditional_writes(root: str) -> None:
    """Commit from several threads at once below `root` and count what is there; the table is removed again.

    Raises:
        StoreError: The store cannot be used, or loses commits.
    """
    check_store(root)
    uri = f"{root.rstrip('/')}/probe-{uuid.uuid4().hex}.lance"
    try:
        with translate_disk_errors(root):
            n_rows = _append_at_once(uri)
    finally:
        filesystem, path = open_filesystem(uri)
        with suppress(OSError):
            filesystem.delete_dir(path)
    if n_rows != N_WRITERS * N_ROUNDS:
        raise StoreError(
            f"the object store of {root} lost {N_WRITERS * N_ROUNDS - n_rows} of {N_WRITERS * N_ROUNDS} commits that "
            "were made at the same time",
            hint="use a store that supports conditional writes (If-None-Match: S3, Google Cloud Storage, Azure, R2, "
            "MinIO), or put the lake on a disk",
        )


def _append_at_once(uri: str) -> int:
    options = build_storage_options(uri)
    lance.write_dataset(SCHEMA.empty_table(), uri, schema=SCHEMA, storage_options=options)
    barrier = threading.Barrier(N_WRITERS)

    def append(writer: int) -> None:
        for _ in range(N_ROUNDS):
            barrier.wait()
            lance.write_dataset(pa.table({"writer": [writer]}), uri, mode="append", storage_options=options)

    with ThreadPoolExecutor(N_WRITERS) as pool:
        list(pool.map(append, range(N_WRITERS)))
    return lance.dataset(uri, storage_options=options).count_rows()
