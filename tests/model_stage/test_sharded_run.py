"""A source in shards: the same tables as without, whatever dies in between, and nothing paid twice as it grows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from mvl_assets.inference.endpoint import Endpoint, EndpointError
from mvl_assets.inference.progress import Progress
from mvl_assets.inference.testing.fake_server import FakeServer, FakeServerConfig
from mvl_assets.judging.judge import judge_source
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table_sizes import measure_table_sizes
from mvl_assets.lake_queries.lineage import trace
from mvl_assets.lake_queries.removal.purge import Purge
from mvl_assets.rewriting.rewrite import rewrite_source
from tests.execution.tasks import wait_until
from tests.model_stage.halting_stage import read_table, run_halting
from tests.rewriting.small_source import MATH, plan_judges, plan_rewrite, profile, put
from tests.servers import serving

N_ROWS = 40


@pytest.fixture
def served() -> Iterator[tuple[FakeServer, Endpoint]]:
    with serving() as (server, endpoint):
        yield server, endpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The source rewritten and judged in one piece."""
    lake = Lake(str(tmp_path_factory.mktemp("whole") / "lake"))
    put(lake, MATH, range(N_ROWS))
    with serving() as (_, endpoint):
        rewrite_source(lake, MATH, profile(), run_id="r", endpoints=[endpoint])
        judge_source(lake, MATH, profile(), run_id="r", endpoints=[endpoint])
    return lake


def list_answer_tables(lake: Lake) -> list[str]:
    return [name for name in measure_table_sizes(lake) if name.startswith("answers/")]


def test_shards_in_worker_processes_make_the_same_tables_and_one_commit(
    lake: Lake, whole: Lake, served: tuple[FakeServer, Endpoint]
) -> None:
    server, endpoint = served
    put(lake, MATH, range(N_ROWS))
    in_shards = profile(shard_rows=N_ROWS // 2, processes=2)
    reports: list[Progress] = []
    report = rewrite_source(lake, MATH, in_shards, run_id="r", endpoints=[endpoint], progress=reports.append)
    assert (report.requests.requested, report.requests.attempts_sent, report.rows) == (N_ROWS, N_ROWS, N_ROWS)
    assert read_table(lake, "rewritten/code_math") == read_table(whole, "rewritten/code_math")
    # The first version is the empty table.
    assert lake.get_table("rewritten/code_math").version == 2
    assert {progress.total for progress in reports} == {N_ROWS}
    judged = judge_source(lake, MATH, in_shards, run_id="r", endpoints=[endpoint])
    assert read_table(lake, "judged/code_math") == read_table(whole, "judged/code_math")
    assert judged.kept == lake.get_table("judged/code_math").count("keep")
    assert judged.kept + sum(judged.drop_reasons.values()) == N_ROWS
    assert list_answer_tables(lake) == [
        f"answers/{stage}/drawn/{shard}" for stage in ("judged", "rewritten") for shard in "01"
    ]
    assert max(server.answer_counts.values()) == 1


def test_a_killed_worker_is_replaced_and_asks_nothing_again(
    lake: Lake, whole: Lake, served: tuple[FakeServer, Endpoint], tmp_path: Path
) -> None:
    put(lake, MATH, range(N_ROWS))
    (tmp_path / "kill").write_text("1")
    (tmp_path / "go").touch()
    report = run_halting(lake, tmp_path, served[1], shard_rows=N_ROWS // 2, processes=2)
    assert len(list(tmp_path.glob("1.*"))) == 2, "no worker was killed"
    assert report.rows == N_ROWS
    assert read_table(lake, "rewritten/code_math") == read_table(whole, "rewritten/code_math")
    assert max(served[0].answer_counts.values()) == 1


def test_a_worker_killed_while_it_sends_repeats_only_what_was_under_way(lake: Lake, whole: Lake) -> None:
    put(lake, MATH, range(N_ROWS))
    with serving(FakeServerConfig(hold_after=10)) as (server, endpoint):

        def kill_worker() -> None:
            wait_until(lambda: len(server.answer_counts) == 10 and server.in_flight)
            psutil.Process().children()[-1].kill()
            server.config.hold_after = None

        killer = threading.Thread(target=kill_worker)
        killer.start()
        report = rewrite_source(
            lake, MATH, profile(shard_rows=N_ROWS // 2, processes=2), run_id="r", endpoints=[endpoint]
        )
        killer.join()
    assert report.rows == N_ROWS
    assert read_table(lake, "rewritten/code_math") == read_table(whole, "rewritten/code_math")
    assert max(server.request_counts.values()) <= 2


def test_an_error_ends_the_run_and_the_next_one_sends_the_rest(
    lake: Lake, whole: Lake, served: tuple[FakeServer, Endpoint]
) -> None:
    server, endpoint = served
    put(lake, MATH, range(N_ROWS))
    in_shards = profile(shard_rows=N_ROWS // 4, processes=1)
    rewrite_source(lake, MATH, in_shards, run_id="r", endpoints=[endpoint], limit=N_ROWS // 2)
    assert sum(server.answer_counts.values()) == N_ROWS // 2
    unusable = replace(endpoint, api_key_env="MVL_TEST_KEY_THAT_IS_NOT_SET")
    with pytest.raises(EndpointError) as error:
        rewrite_source(lake, MATH, in_shards, run_id="r", endpoints=[unusable])
    assert "rewritten drawn, shard 00" in error.value.__notes__[0]
    assert lake.get_table("rewritten/code_math").count() == N_ROWS // 2
    rewrite_source(lake, MATH, in_shards, run_id="r", endpoints=[endpoint])
    assert read_table(lake, "rewritten/code_math") == read_table(whole, "rewritten/code_math")
    assert sum(server.answer_counts.values()) == N_ROWS


def test_a_source_that_grows_from_one_to_two_to_four_shards_asks_nothing_again(
    lake: Lake, served: tuple[FakeServer, Endpoint]
) -> None:
    server, endpoint = served
    config = profile(shard_rows=20, processes=1)
    for n_rows in (20, 40, 80):
        put(lake, MATH, range(n_rows))
        rewrite_source(lake, MATH, config, run_id="r", endpoints=[endpoint])
        judged = judge_source(lake, MATH, config, run_id="r", endpoints=[endpoint])
        assert judged.rows == n_rows
        assert sum(server.answer_counts.values()) == len(server.answer_counts) == 4 * n_rows
    stored = list_answer_tables(lake)
    assert {name.partition("/drawn")[2] for name in stored} == {"", "/0", "/1", "/00", "/01", "/10", "/11"}
    # In fewer shards again, without an endpoint.
    for shard_rows in (40, 80):
        again = rewrite_source(lake, MATH, profile(shard_rows=shard_rows, processes=1), run_id="r")
        assert (again.requests.attempts_sent, again.rows) == (0, 80)


@pytest.mark.parametrize("image_ids", [None, []], ids=["images", "text"])
def test_equal_requests_meet_in_one_shard(
    lake: Lake, served: tuple[FakeServer, Endpoint], image_ids: list[str] | None
) -> None:
    server, endpoint = served
    same = [{"from": "human", "value": "What is 1 plus 1?"}, {"from": "gpt", "value": "2"}]
    put(lake, MATH, [number % 256 for number in range(N_ROWS)], **({} if image_ids is None else {"image_ids": []}))
    changed: dict[str, Any] = {"conversations": same} | ({} if image_ids is None else {"image_ids": image_ids})
    if image_ids is None:
        changed["image_ids"] = next(lake.get_table("samples").iter_rows(["image_ids"]))["image_ids"]
    put(lake, MATH, range(N_ROWS), **changed)
    report = rewrite_source(lake, MATH, profile(shard_rows=10, processes=1), run_id="r", endpoints=[endpoint])
    assert report.rows == N_ROWS
    assert sum(server.answer_counts.values()) == 1
    assert len(list_answer_tables(lake)) == 1


def test_plan_trace_and_purge_find_the_answers_of_shards(lake: Lake, served: tuple[FakeServer, Endpoint]) -> None:
    put(lake, MATH, range(N_ROWS))
    config = profile(shard_rows=10, processes=1)
    rewrite_source(lake, MATH, config, run_id="r", endpoints=[served[1]])
    judge_source(lake, MATH, config, run_id="r", endpoints=[served[1]])
    assert plan_rewrite(lake, MATH, config).cache_hits == N_ROWS
    assert [plan.to_send for plan in plan_judges(lake, MATH, config)] == [0]
    row = next(lake.get_table("judged/code_math").iter_rows())
    lineage = trace(lake, row["judged_id"])
    assert lineage["answer"]["request_key"] == lineage["rewritten"]["request_key"]
    assert len(lineage["verdicts"]) == 3
    tables = list_answer_tables(lake)
    assert len(tables) == 8
    plan = Purge(lake, MATH.slug).run()
    assert not any(name.startswith("answers/") for name in plan.row_counts)
    assert [lake.get_table(name).count() for name in tables] == [0] * 8
