"""The part of a mixture whose terms permit a use: rows of some licences, without rewrites of some models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvl_assets.lake import sql
from mvl_assets.lake.durability.spill import stream_table
from mvl_assets.lake.lake import Lake

if TYPE_CHECKING:
    import duckdb

_REWRITTEN_FAMILY = "rewritten"


@dataclass(frozen=True, slots=True)
class MixtureFilter:
    """Which rows of mixtures are taken. Can be pickled.

    Attributes:
        name: Name of the use.
        licenses: The declared licences whose rows are taken; rows without one are not.
        models: The models whose rewrites are taken.
    """

    name: str
    licenses: frozenset[str]
    models: frozenset[str]


def fill_mixture_table(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    stage: str,
    columns: Sequence[str],
    mixture_filter: MixtureFilter | None = None,
    *,
    name: str = "mixed",
) -> None:
    """Create a table of columns of a mixture's rows that the filter takes, with their position among these.

    Args:
        con: Where.
        lake: The lake.
        stage: The training stage.
        columns: Columns of the mixture besides `position`.
        mixture_filter: Which rows; None takes all.
        name: Name of the table.
    """
    table = lake.get_table(f"mixture/{stage}")
    if mixture_filter is None:
        with stream_table(con, "mixture", table, ["position", *columns]):
            con.execute(f"CREATE TABLE {name} AS SELECT * FROM mixture")  # noqa: S608 - of ours
        return
    all_columns = list(dict.fromkeys(["position", *columns, "license", "kind", "rewrite_id"]))
    condition = sql.is_in("license", sorted(mixture_filter.licenses))
    with stream_table(con, "mixture", table, all_columns, condition):
        con.execute("CREATE TABLE permitted AS SELECT * FROM mixture")
    refused_models = f"model IS NULL OR NOT ({sql.is_in('model', sorted(mixture_filter.models))})"
    for rewritten in lake.list_tables(_REWRITTEN_FAMILY):
        with stream_table(con, "refused", lake.get_table(rewritten), ["rewrite_id"], refused_models):
            con.execute(
                "DELETE FROM permitted WHERE kind = 'rewritten' AND rewrite_id IN (SELECT rewrite_id FROM refused)"
            )
    names = ", ".join(sql.quote_identifier(column).replace("`", '"') for column in columns)
    con.execute(
        f"CREATE TABLE {name} AS SELECT row_number() OVER (ORDER BY position) - 1 AS position, {names} FROM permitted"  # noqa: S608 - of ours
    )
    con.execute("DROP TABLE permitted")
