"""Bringing a table of an older schema version to the current one, when it is opened.

A version may only add columns, at the end, that are null for older rows; a change of another kind needs another table.
Belongs here: how. Which columns a version added is said beside the columns, in `schema`.
"""

from __future__ import annotations

import lance
import pyarrow as pa
from lance.commit import CommitConflictError

from mvl_assets.lake.schema import TableSpec

VERSION = b"mvl:schema_version"


def version_of(schema: pa.Schema) -> int:
    return int((schema.metadata or {}).get(VERSION, b"0"))


def upgrade(dataset: lance.LanceDataset, spec: TableSpec) -> bool:
    """Adds what the table lacks, and says whether it was of an older version that can be upgraded.

    Existing rows and their files stay as they are. Safe beside another process that does the same, and after one that
    was killed in the middle.
    """
    found = version_of(dataset.schema)
    if not spec.schema_version - len(spec.added) <= found < spec.schema_version:
        return False
    wanted = [name for names in spec.added for name in names]
    while version_of(dataset.schema) < spec.schema_version:
        missing = [spec.schema.field(name) for name in wanted if name not in dataset.schema.names]
        try:
            if missing:
                dataset.add_columns(missing)
            dataset.update_schema_metadata({VERSION.decode(): str(spec.schema_version)})
        except (CommitConflictError, OSError):
            # Another process does the same: see how far it got. An error that nobody's commit explains is one.
            if dataset.latest_version == dataset.version:
                raise
        dataset = dataset.checkout_version(dataset.latest_version)
    return True
