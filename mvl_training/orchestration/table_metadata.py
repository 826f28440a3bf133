"""What every materialization of a table says in the UI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from mvl_assets.lake.columns import describe_column

if TYPE_CHECKING:
    from mvl_assets.lake.table import Table


def build_table_metadata(table: Table) -> dict[str, Any]:
    """Rows, place, columns with their meaning, version."""
    columns = [
        dg.TableColumn(field.name, str(field.type), description=describe_column(table.spec.name, field.name))
        for field in table.schema
    ]
    return {
        "dagster/row_count": table.count(),
        "dagster/uri": table.uri,
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "table_version": table.version,
    }
