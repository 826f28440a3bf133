"""What the lake knows of a table: its columns, its key and its schema version.

Keys are 32-hex strings. Lance protects a declared key only for variable-length strings and binary: a fixed-size key
lets two writers insert the same row twice without an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

KEY_METADATA = {b"lance-schema:unenforced-primary-key": b"true"}
KEY_SCHEME_COLUMN, ROW_HASH_COLUMN = "key_scheme", "row_hash"

# Types of columns that several tables have.
CONVERSATIONS = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
STRING_LIST = pa.list_(pa.string())
VIDEO = pa.struct([("name", pa.string()), ("seconds", pa.list_(pa.float64()))])
TIMESTAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class TableSpec:
    """Columns of one table, or of a family of tables such as `rewritten/{category}`.

    Attributes:
        name: Name of the table or family.
        columns: What callers write: all columns but `key_scheme` and `row_hash`, which `Table` adds.
        key_column: The primary key, a 32-hex string.
        partition_column: The column whose value one publish replaces; None if a publish replaces the whole table.
        volatile_columns: Columns that say when and by which run a row was made. They are left out of `row_hash`, so
            that doing the same work again does not change the data version.
        derived_columns: Columns that follow from other columns of the row, or from what its ids identify. They are left
            out of `row_hash` too: they cannot change alone, and would cost more to digest than all others.
        digested_columns: Columns that another column is the digest of, by the name of that one. They enter `row_hash`
            through it, so that the text of a row is digested once.
        has_row_hash: Whether rows carry the digest of their content.
        has_key_scheme: Whether rows carry the `KEY_SCHEME` of their identities. A column and not table metadata,
            because rows are inserted and partitions replaced one by one: after a change of scheme one table holds both.
        added_columns: The columns that schema versions 2, 3, ... added. Older tables get them, with nulls, when they
            are opened (`upgrade`).
        schema: All columns as stored.
    """

    name: str
    columns: pa.Schema
    key_column: str
    partition_column: str | None = None
    volatile_columns: frozenset[str] = frozenset({"run_id", "created_at"})
    derived_columns: frozenset[str] = frozenset()
    digested_columns: Mapping[str, frozenset[str]] = field(default_factory=dict)
    has_row_hash: bool = True
    has_key_scheme: bool = False
    added_columns: tuple[tuple[str, ...], ...] = ()
    schema: pa.Schema = field(init=False)

    def __post_init__(self) -> None:
        fields = [
            f.with_nullable(False).with_metadata(KEY_METADATA) if f.name == self.key_column else f for f in self.columns
        ]
        if self.has_key_scheme:
            fields.append(pa.field(KEY_SCHEME_COLUMN, pa.int32(), nullable=False))
        if self.has_row_hash:
            fields.append(pa.field(ROW_HASH_COLUMN, pa.string()))
        metadata = {b"mvl:schema_version": str(self.schema_version).encode()}
        object.__setattr__(self, "schema", pa.schema(fields, metadata=metadata))

    @property
    def schema_version(self) -> int:
        return 1 + len(self.added_columns)

    @property
    def content_columns(self) -> list[str]:
        """The columns that enter `row_hash`."""
        names = [*self.columns.names, KEY_SCHEME_COLUMN] if self.has_key_scheme else self.columns.names
        left_out = self.volatile_columns.union(self.derived_columns, *self.digested_columns.values())
        return [n for n in names if n not in left_out]
