"""Strata: which column they are of, and into which one a row falls."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from mvl_assets.config.mixture_config import StrataConfig
from mvl_assets.curation.strata import list_strata, resolve_strata
from mvl_assets.errors import MvlError


def place_values(strata: StrataConfig, values: list[Any], type_: str) -> list[str]:
    sql = resolve_strata(strata).sql
    rows = duckdb.sql(
        f"SELECT {sql} FROM (SELECT unnest($values)::{type_} AS stratum_value)", params={"values": values}
    )
    return [name for (name,) in rows.fetchall()]


def test_a_number_falls_between_its_edges_and_what_is_no_number_into_none() -> None:
    strata = StrataConfig(column="p_yes", edges=[0.5, 0.8], shares=[0, 1, 1])
    names = place_values(strata, [0.1, 0.5, 0.79, 0.8, 1.0, None, float("nan")], "DOUBLE")
    assert names == ["0: < 0.5", *["1: 0.5 to 0.8"] * 2, *["2: >= 0.8"] * 2, "", ""]
    assert list(list_strata(strata).items()) == [("0: < 0.5", 0), ("1: 0.5 to 0.8", 1), ("2: >= 0.8", 1)]


def test_every_value_of_a_column_of_words_is_a_stratum() -> None:
    strata = StrataConfig(column="task_type")
    assert place_values(strata, ["count", None, "compare"], "VARCHAR") == ["count", "", "compare"]
    assert not list_strata(strata)


@pytest.mark.parametrize(
    ("column", "table"),
    [("p_yes", "judged"), ("task_type", "rewritten"), ("n_chars", "category"), ("source", "judged")],
)
def test_the_column_is_looked_up_in_judged_then_rewritten_then_category(column: str, table: str) -> None:
    edges = [1.0] if column in ("p_yes", "n_chars") else []
    assert resolve_strata(StrataConfig(column=column, edges=edges)).table == table


@pytest.mark.parametrize(
    ("strata", "message"),
    [
        ({"column": "p_yess"}, "no column 'p_yess' of single values"),
        ({"column": "verdicts"}, "no column 'verdicts' of single values"),
        ({"column": 'p_yes" FROM x; --'}, "no column"),
        ({"column": "task_type", "edges": [1]}, "task_type is no number"),
        ({"column": "p_yes"}, "p_yes is a number with a fraction, so its strata need edges"),
    ],
)
def test_a_column_that_cannot_be_strata_is_refused(strata: dict[str, Any], message: str) -> None:
    with pytest.raises(MvlError, match=message):
        resolve_strata(StrataConfig.model_validate(strata))
