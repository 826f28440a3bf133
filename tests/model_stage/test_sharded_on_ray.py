"""Shards of a source on a Ray cluster of two nodes, one of which is killed in the middle."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mvl_assets.execution.ray_cluster import is_ray_installed
from mvl_assets.lake.lake import Lake
from mvl_assets.rewriting.rewrite import rewrite_source
from tests.execution.tasks import wait_until
from tests.model_stage.halting_stage import read_table, run_halting
from tests.ray_nodes import kill_node, start_cluster
from tests.rewriting.small_source import MATH, profile, put
from tests.servers import serving

# Not `importorskip`: Ray reads its environment when it is imported.
pytestmark = pytest.mark.skipif(not is_ray_installed(), reason="Ray is not installed: pip install 'mvl[ray]'")

N_ROWS = 40


def test_a_killed_node_leaves_the_same_lake_and_nothing_is_paid_twice(lake: Lake, tmp_path: Path) -> None:
    whole = Lake(str(tmp_path / "whole"))
    for each in (lake, whole):
        put(each, MATH, range(N_ROWS))
    with serving() as (server, endpoint), start_cluster() as cluster:
        rewrite_source(whole, MATH, profile(), run_id="r", endpoints=[endpoint])
        server.answer_counts.clear()

        def kill_in_the_middle() -> None:
            # One worker on each node has stored the answers of its shard.
            wait_until(lambda: len(list(tmp_path.glob("[01]*.*"))) >= 2, 120)
            kill_node(cluster)
            (tmp_path / "go").touch()

        killer = threading.Thread(target=kill_in_the_middle)
        killer.start()
        report = run_halting(lake, tmp_path, endpoint, kind="ray", address=cluster.address, shard_rows=N_ROWS // 4)
        killer.join()
    assert report.rows == N_ROWS
    assert len(list(tmp_path.glob("[01]*.*"))) == 5, "no shard was started again"
    assert read_table(lake, "rewritten/code_math") == read_table(whole, "rewritten/code_math")
    assert sum(server.answer_counts.values()) == len(server.answer_counts) == N_ROWS
