"""Comparing a table on disk with its spec, before anything is read or written."""

from __future__ import annotations

import lance
import pyarrow as pa

from mvl_assets.lake.errors import SchemaMismatch, UnsafeTable
from mvl_assets.lake.schemas.table_spec import KEY_METADATA, TableSpec
from mvl_assets.lake.schemas.upgrade import read_schema_version


def check_schema(dataset: lance.LanceDataset, spec: TableSpec) -> None:
    """Refuse a table whose key two writers could duplicate, or whose columns are not this version's.

    Raises:
        UnsafeTable: The key is not a variable-length string, lacks Lance's key metadata, or has an index.
        SchemaMismatch: The columns are not those of `spec`, or the schema version is another.
    """
    schema = dataset.schema
    if spec.key_column not in schema.names:
        raise SchemaMismatch(f"{dataset.uri}: no key column {spec.key_column!r}", hint="is MVL_LAKE a lake of `mvl`?")
    key = schema.field(spec.key_column)
    if key.type != pa.string():
        raise UnsafeTable(f"{dataset.uri}: the key {spec.key_column} is {key.type}, which Lance does not protect")
    if not KEY_METADATA.items() <= (key.metadata or {}).items():
        raise UnsafeTable(f"{dataset.uri}: the key {spec.key_column} is not declared as primary key")
    for index in dataset.describe_indices():
        if spec.key_column in index.field_names:
            raise UnsafeTable(
                f"{dataset.uri}: the key {spec.key_column} has an index ({index.name}), which undoes its protection",
                hint=f"drop it: lance.dataset({dataset.uri!r}).drop_index({index.name!r})",
            )
    stored_version = read_schema_version(schema)
    if stored_version > spec.schema_version:
        raise SchemaMismatch(
            f"{dataset.uri}: made by a newer version of this program (schema {stored_version}, this one has "
            f"{spec.schema_version})",
            hint="update the program, or set MVL_LAKE to another folder",
        )
    # In any order: upgraded tables have the added columns last.
    if stored_version != spec.schema_version or sorted(schema.names) != sorted(spec.schema.names):
        raise SchemaMismatch(
            f"{dataset.uri}: schema version {stored_version} with columns {schema.names}, "
            f"this program expects version {spec.schema_version} with {spec.schema.names}",
            hint="move the table away and materialise it again; keep answers of an older schema, they were paid for",
        )
