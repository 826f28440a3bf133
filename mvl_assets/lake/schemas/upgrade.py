"""Upgrading a table of an older schema version when it is opened.

A version may only add columns, at the end, that are null for older rows; any other change needs another table. Which
columns a version added is declared in `schema`.
"""

from __future__ import annotations

import lance
import pyarrow as pa
from lance.commit import CommitConflictError

from mvl_assets.lake.schemas.table_spec import TableSpec

SCHEMA_VERSION_KEY = b"mvl:schema_version"


def read_schema_version(schema: pa.Schema) -> int:
    """Return the schema version that a table was written with, 0 if it does not say."""
    return int((schema.metadata or {}).get(SCHEMA_VERSION_KEY, b"0"))


def upgrade(dataset: lance.LanceDataset, spec: TableSpec) -> bool:
    """Add the missing columns, and return whether the table had an older version that can be upgraded.

    Existing rows and their files stay as they are. Safe while another process does the same, and after one that was
    killed in between.
    """
    stored_version = read_schema_version(dataset.schema)
    if not spec.schema_version - len(spec.added_columns) <= stored_version < spec.schema_version:
        return False
    added_columns = [name for names in spec.added_columns for name in names]
    while read_schema_version(dataset.schema) < spec.schema_version:
        missing = [spec.schema.field(name) for name in added_columns if name not in dataset.schema.names]
        try:
            if missing:
                dataset.add_columns(missing)
            dataset.update_schema_metadata({SCHEMA_VERSION_KEY.decode(): str(spec.schema_version)})
        except (CommitConflictError, OSError):
            # Another process may be doing the same: check how far it got. Without a commit of its own, the error is
            # real.
            if dataset.latest_version == dataset.version:
                raise
        dataset = dataset.checkout_version(dataset.latest_version)
    return True
