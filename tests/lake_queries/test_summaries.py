"""Summaries of the lake, checks of its tables, and stale rows."""

from __future__ import annotations

import lance
import pyarrow as pa

from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.checks import check_table
from mvl_assets.lake.schemas.data_tables import REJECTS, REWRITTEN, SAMPLES
from mvl_assets.lake.schemas.training_tables import EVALUATION
from mvl_assets.lake_queries.freshness import count_stale_rows
from mvl_assets.lake_queries.summaries import (
    compute_checkpoint_scores,
    count_by_source,
    count_rejects_by_reason,
    summarize_categories,
)
from tests.lake.rows import pages, put, put_category, put_samples, rewrite, sample, table_of


def test_a_category_summary_counts_samples_rewrites_and_kept_pairs(lake: Lake) -> None:
    put_category(lake, "ocr", "a", 10, rewritten=3, dropped=2)
    put_category(lake, "video", "b", 2)
    ocr, video = summarize_categories(lake)
    assert (ocr.category, ocr.n_samples, ocr.n_rewritten, ocr.n_judged, ocr.n_kept) == ("ocr", 10, 5, 5, 3)
    assert (video.category, video.n_samples, video.n_rewritten, video.n_judged, video.n_kept) == ("video", 2, 0, 0, 0)


def test_current_samples_are_counted_once_by_source(lake: Lake) -> None:
    history = [
        *(sample("a", n) for n in range(5)),
        sample("a", 0, revision=2),
        sample("a", 1, revision=2, withdrawn=True),
        sample("a", 2, revision=2, withdrawn=True),
        sample("a", 2, revision=3),
        sample("b", 0),
    ]
    lake.get_table("samples").insert(table_of(SAMPLES, history))
    rejects = [
        {"reject_id": f"{n:032x}", "partition_key": "p", "stage": s, "source": "a", "error": "bad"}
        for n, s in enumerate(["raw", "judge"])
    ]
    put(lake, "rejects", REJECTS, rejects, "p")
    rows, rejected = count_by_source(lake)
    assert (rows["a"], rows["b"]) == (4, 1)
    assert dict(rejected) == {"a": 1}
    assert dict(count_rejects_by_reason(lake)) == {("raw", "bad"): 1, ("judge", "bad"): 1}


def test_an_empty_lake_has_empty_summaries(lake: Lake) -> None:
    assert summarize_categories(lake) == compute_checkpoint_scores(lake) == []
    assert count_by_source(lake) == ({}, {})


def test_checkpoint_scores_are_shares_of_correct_answers(lake: Lake) -> None:
    rows = [
        {
            "result_id": f"{n:032x}",
            "checkpoint": "c",
            "checkpoint_version": "v",
            "correct": n < 3,
            "blank_image_correct": None if n == 0 else n < 2,
            "category": "chart" if n < 3 else "ocr",
            "reference": "7" if n < 2 else "8",
        }
        for n in range(4)
    ]
    put(lake, "evaluation/held_out", EVALUATION, rows, "c")
    assert compute_checkpoint_scores(lake) == [("c", "v", 4, 0.75, 1 / 3, 3 / 4)]


def test_rows_made_with_another_prompt_or_model_are_stale(lake: Lake) -> None:
    made = [
        rewrite(sample("a", n), "ocr") | {"prompt_hash": f"p{n % 2}", "model": "m", "model_revision": r}
        for n, r in enumerate(["1", "1", "1", "2"])
    ]
    put(lake, "rewritten/ocr", REWRITTEN, made, "a")

    def count(*prompts: str, model: str = "m", source: str = "a") -> int:
        return count_stale_rows(lake, "rewritten/ocr", source, prompt_hashes=prompts, model=model, model_revision="1")

    assert count("p0", "p1") == 1
    assert count("p0") == 2
    assert count("p0", "p1", model="other") == 4
    assert count() == 4
    assert count(source="b") == 0


def test_a_sound_table_passes_its_check(lake: Lake) -> None:
    put_category(lake, "ocr", "a", 5)
    assert check_table(lake.get_table("category/ocr")).ok
    assert check_table(lake.get_table("category/ocr"), "a").n_rows == 5
    assert check_table(lake.get_table("category/ocr"), "b").n_rows == 0
    assert not check_table(lake.get_table("category/chart")).ok


def test_a_check_finds_duplicate_keys_and_missing_hashes(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    table.publish([pages("a", "x", range(3))], "a")
    rows = pages("a", "y", range(2, 4)).append_column("row_hash", pa.array(["00" * 16, None]))
    lance.write_dataset(rows.cast(table.schema), table.uri, mode="append")
    assert check_table(table).problems == ["1 rows share a key", "1 rows have no row hash"]


def test_a_check_finds_rows_that_do_not_match_their_hash(lake: Lake) -> None:
    table = lake.get_table("category/ocr")
    table.insert(pages("a", "x", range(3)).append_column("row_hash", pa.array(["00" * 16] * 3)))
    assert check_table(table).problems == ["3 of 3 rows do not match their row hash"]


def test_a_check_finds_samples_whose_text_is_not_that_of_their_content_hash(lake: Lake) -> None:
    rows = [sample("a", number) for number in range(3)]
    put_samples(lake, "a", rows)
    assert check_table(lake.get_table("samples")).ok
    rows[1]["conversations"][1]["value"] = "something else"
    put_samples(lake, "b", [row | {"source": "b", "version_id": row["sample_id"]} for row in rows])
    assert check_table(lake.get_table("samples"), "b").problems == ["1 of 3 rows do not match their content hash"]
