"""Filters of rows: what they may say, and the errors that name what they may not."""

from __future__ import annotations

import pytest

from mvl_assets.errors import MvlError
from mvl_assets.lake_queries.mixtures.row_filter import ScoreType, parse_row_filter
from mvl_assets.lake_queries.mixtures.score_columns import ScoreCatalog, list_score_types

COLUMNS: dict[str, ScoreType] = {
    "p_yes": "number",
    "blur": "number",
    "language": "text",
    "all_yes": "boolean",
    "ratings.relevance": "number",
}


@pytest.mark.parametrize(
    ("text", "clauses", "columns"),
    [
        (
            "p_yes >= 0.5 and blur > 20 and language in ('en','zh')",
            ["p_yes >= 0.5", "blur > 20", "language IN ('en', 'zh')"],
            ("p_yes", "blur", "language"),
        ),
        ("P_YES > 0.5 or blur is null", ["(p_yes > 0.5) OR (blur IS NULL)"], ("p_yes", "blur")),
        ("ratings.relevance >= 3 and not all_yes", ["ratings.relevance >= 3", "NOT all_yes"], None),
        ("blur between 1 and 3 -- and a comment", ["blur BETWEEN 1 AND 3"], ("blur",)),
        ("all_yes and (blur > 1 and p_yes + 0.1 < 3)", ["all_yes", "blur > 1", "(p_yes + 0.1) < 3"], None),
    ],
)
def test_filter_has_the_clauses_that_all_rows_pass(
    text: str, clauses: list[str], columns: tuple[str, ...] | None
) -> None:
    parsed = parse_row_filter(text, COLUMNS)
    assert [clause.text for clause in parsed.clauses] == clauses
    assert columns in (None, parsed.columns)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("p_yes >", "syntax error"),
        ("pyes > 1", "no column pyes (character 1)"),
        ("blur > 1 and p_yes > 'x'", "p_yes is of type number and 'x' of type text (character 22)"),
        ("blur", "blur is a number, where true or false is needed"),
        ("language like 3", "3 is a number, where text is needed"),
        ("p_yes > 1; DROP TABLE samples", "only SELECT statements"),
        ("p_yes > (SELECT 1)", "subquery is not allowed"),
        ("p_yes > 1 LIMIT 2", "more than a condition"),
        ("all_yes UNION SELECT 1", "more than a condition"),
        ("read_text('/etc/passwd') IS NULL", "read_text is not allowed"),
        ("p_yes::INTEGER > 1", "cast is not allowed"),
        ("p_yes > ?", "parameter is not allowed"),
        ("(" * 2000 + "all_yes" + ")" * 2000, "depth"),
        (" and ".join(["all_yes"] * 63), "63 clauses"),
    ],
)
def test_what_is_no_filter_is_one_clear_error(text: str, problem: str) -> None:
    with pytest.raises(MvlError) as caught:
        parse_row_filter(text, COLUMNS)
    assert problem in str(caught.value)
    assert "columns: all_yes, blur" in (caught.value.hint or "")


def test_misspelled_column_is_suggested() -> None:
    with pytest.raises(MvlError) as caught:
        parse_row_filter("languge = 'en'", COLUMNS)
    assert "did you mean `language`" in (caught.value.hint or "")


def test_columns_of_tables_can_be_named() -> None:
    types = list_score_types(ScoreCatalog())
    assert (types["p_yes"], types["all_yes"], types["task_type"], types["n_chars"]) == (
        "number",
        "boolean",
        "text",
        "number",
    )
