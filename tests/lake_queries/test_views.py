"""Views across tables: current samples, and mixture rows with their content."""

from __future__ import annotations

import pytest

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CATEGORY, REWRITTEN, SAMPLES
from mvl_assets.lake.schemas.training_tables import MIXTURE
from mvl_assets.lake_queries.holdout import is_held_out, iter_held_out_rows
from mvl_assets.lake_queries.views import (
    iter_current_samples,
    iter_mixture_rows,
    read_first_mixture_rows,
    read_mixture_rows_by_id,
)
from tests.lake.rows import category_row, mixture, put, put_samples, rewrite, sample, table_of


def answers_now(lake: Lake, source: str) -> dict[str, str]:
    return {r["native_id"]: r["conversations"][1]["value"] for r in iter_current_samples(lake, source)}


def test_the_newest_version_of_a_sample_is_current(lake: Lake) -> None:
    rows = [sample("a", 1), sample("a", 1, revision=2, answer="two"), sample("a", 2), sample("b", 3)]
    lake.get_table("samples").insert(table_of(SAMPLES, rows))
    assert answers_now(lake, "a") == {"1": "two", "2": "it is 2"}
    assert answers_now(lake, "b") == {"3": "it is 3"}
    assert answers_now(lake, "no such source") == {}


def test_a_withdrawn_sample_is_gone_until_it_returns(lake: Lake) -> None:
    lake.get_table("samples").insert(table_of(SAMPLES, [sample("a", 1), sample("a", 2)]))
    lake.get_table("samples").insert(table_of(SAMPLES, [sample("a", 1, revision=2, withdrawn=True)]))
    assert answers_now(lake, "a") == {"2": "it is 2"}
    lake.get_table("samples").insert(table_of(SAMPLES, [sample("a", 1, revision=3, answer="back")]))
    assert answers_now(lake, "a") == {"1": "back", "2": "it is 2"}


def test_only_the_requested_columns_are_read(lake: Lake) -> None:
    put_samples(lake, "a", [sample("a", 1)])
    assert list(iter_current_samples(lake, "a", ["native_id"])) == [{"native_id": "1"}]


def test_a_lake_without_tables_is_empty(lake: Lake) -> None:
    assert list(iter_current_samples(lake, "a")) == []
    assert list(iter_mixture_rows(lake, "one_vision")) == []
    assert lake.get_table("samples").count() == lake.get_table("samples").version == 0
    with pytest.raises(FileNotFoundError):
        lake.get_table("samples").open()


def put_mixture(lake: Lake, samples: list[dict], rewrites: list[dict]) -> None:
    rows = [
        {
            "row_id": compute_digest("row", n),
            "position": n,
            "kind": "rewritten" if "rewrite_id" in of else "original",
            "rewrite_id": None,
            "category": "ocr",
            **{k: v for k, v in of.items() if k in MIXTURE.columns.names and k != "position"},
        }
        for n, of in enumerate([*samples, *rewrites])
    ]
    put(lake, "mixture/one_vision", MIXTURE, rows)


def test_mixture_rows_have_the_content_of_their_sample_or_rewrite(lake: Lake) -> None:
    samples = [sample("a", n, image_ids=[compute_digest("picture", n)]) for n in range(5)]
    rewrites = [rewrite(s, "ocr") for s in samples[:2]]
    put_samples(lake, "a", samples)
    put(lake, "rewritten/ocr", REWRITTEN, rewrites, "a")
    put_mixture(lake, samples, rewrites)

    rows = list(iter_mixture_rows(lake, "one_vision", batch_size=3))
    assert [r["position"] for r in rows] == list(range(7))
    assert [r["conversations"] for r in rows] == [x["conversations"] for x in samples + rewrites]
    assert [r["image_ids"] for r in rows] == [s["image_ids"] for s in samples + samples[:2]]
    assert [r["position"] for r in iter_mixture_rows(lake, "one_vision", 2, 5)] == [2, 3, 4]
    assert read_first_mixture_rows(lake, "one_vision", 6) == rows[:6]
    by_id = read_mixture_rows_by_id(
        lake, "one_vision", [rows[6]["row_id"], rows[0]["row_id"], compute_digest("nobody")]
    )
    assert by_id == {rows[6]["row_id"]: rows[6], rows[0]["row_id"]: rows[0]}


def test_a_mixture_keeps_the_version_it_refers_to(lake: Lake) -> None:
    old = sample("a", 1, answer="old")
    put_samples(lake, "a", [old])
    put_mixture(lake, [old], [])
    lake.get_table("samples").insert(table_of(SAMPLES, [sample("a", 1, revision=2, answer="new")]))
    assert [r["conversations"][1]["value"] for r in iter_mixture_rows(lake, "one_vision")] == ["old"]


def test_a_mixture_row_without_its_sample_is_an_error(lake: Lake) -> None:
    put_samples(lake, "a", [sample("a", 1)])
    put_mixture(lake, [sample("a", 1), sample("a", 2)], [])
    with pytest.raises(KeyError):
        list(iter_mixture_rows(lake, "one_vision"))


def test_a_mixture_out_of_order_is_an_error(lake: Lake) -> None:
    lake.get_table("mixture/one_vision").publish([mixture(3).take([0, 2, 1])])
    with pytest.raises(ValueError, match="position 2 where 1"):
        list(iter_mixture_rows(lake, "one_vision"))


def test_a_larger_holdout_contains_a_smaller_one_and_has_about_its_share() -> None:
    keys = [compute_digest("picture", n) for n in range(2000)]
    few, many = ({k for k in keys if is_held_out(k, share)} for share in (0.1, 0.3))
    assert few < many
    assert 150 < len(few) < 250
    assert not any(is_held_out(k, 0) for k in keys)


def test_held_out_questions_have_one_short_answer(lake: Lake) -> None:
    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]
    rows = [
        sample("a", 0),
        sample("a", 1, answer="x" * 61),
        sample("a", 2, answer=""),
        sample("a", 3, conversations=turns * 2),
        sample("b", 4),
    ]
    for source in "ab":
        of = [r for r in rows if r["source"] == source]
        put_samples(lake, source, of)
        put(lake, "category/ocr", CATEGORY, [category_row(r, "ocr") for r in of], source)
    assert [r["sample_id"] for r in iter_held_out_rows(lake, "ocr", ["a"], 0.9999999)] == [rows[0]["sample_id"]]
    assert list(iter_held_out_rows(lake, "ocr", ["a", "b"], 0)) == []
