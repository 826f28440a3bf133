"""Rejects of all stages are rows of one table, replaced stage by stage and source by source."""

from __future__ import annotations

from mvl_assets.ingest.rejects import RejectSpool
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import Reject
from mvl_assets.lake_queries.rejects import MAX_MESSAGE_CHARS, build_reject_table, publish_rejects


def test_a_later_run_replaces_the_rejects_of_its_stage_and_source_alone(lake: Lake) -> None:
    def publish(stage: str, source: str, *row_keys: str) -> None:
        rejects = [Reject(stage, source, key, "length", "cut off", request_key="q") for key in row_keys]
        publish_rejects(lake, stage, source, [build_reject_table(rejects, "run")])

    publish("rewrite", "a", "1", "2")
    publish("rewrite", "b", "1")
    publish("judge", "a", "1")
    publish("rewrite", "a", "2")
    result = {(row["stage"], row["source"], row["row_key"]) for row in lake.get_table("rejects").iter_rows()}
    assert result == {("rewrite", "a", "2"), ("rewrite", "b", "1"), ("judge", "a", "1")}
    publish("rewrite", "a")
    assert lake.get_table("rejects").count("partition_key = 'rewrite/a'") == 0


def test_rejects_of_ingest_use_the_same_row_key_as_other_stages(lake: Lake) -> None:
    with RejectSpool("a", "run") as spool:
        spool.add("key", "bad_json", "no JSON", "rows.json", 3)
        spool.publish(lake)
    (row,) = lake.get_table("rejects").iter_rows()
    expected = build_reject_table(
        [Reject("raw", "a", "key", "bad_json", "no JSON", "rows.json", 3)], "run"
    ).to_pylist()[0]
    assert {name: row[name] for name in expected} == expected


def test_a_message_is_cut_and_always_storable(lake: Lake) -> None:
    rejects = [Reject("rewrite", "a", "1", "http_400", "half \ud83d" + "x" * 2 * MAX_MESSAGE_CHARS)]
    publish_rejects(lake, "rewrite", "a", [build_reject_table(rejects, "run")])
    (row,) = lake.get_table("rejects").iter_rows()
    assert row["message"].startswith("half \\ud83d") and len(row["message"]) < MAX_MESSAGE_CHARS + 10
