"""Postgres as Dagster's storage: a backfill by the daemon, with queued runs and a process per run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from mvl_assets.config.project import PACKAGE_DIR
from mvl_assets.config.settings import PROJECT_ROOT
from tests.defs.world import GENERAL, MATH, World
from tests.execution.tasks import wait_until
from tests.patience import PATIENCE_S
from tests.postgres import find_postgres, start_postgres

pytestmark = [
    pytest.mark.skipif(find_postgres() is None, reason="no Postgres server: sudo apt-get install postgresql"),
    pytest.mark.skipif(
        importlib.util.find_spec("dagster_postgres") is None, reason="no dagster-postgres: pip install 'mvl[postgres]'"
    ),
]


@pytest.fixture
def dagster_home(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The instance of one machine, with the storage and the queue of the cluster's file."""
    deploy = PACKAGE_DIR / "deploy"
    config = yaml.safe_load((deploy / "dagster.yaml").read_text(encoding="utf-8"))
    cluster = yaml.safe_load((deploy / "dagster.cluster.yaml").read_text(encoding="utf-8"))
    config |= {name: cluster[name] for name in ("storage", "backfills", "sensors")}
    # Fewer than there are partitions, so that one has to wait.
    config["concurrency"] = {**cluster["concurrency"], "runs": {"max_concurrent_runs": 1}}
    home = world.home / "dagster-postgres"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    postgres = find_postgres()
    assert postgres is not None
    with start_postgres(postgres) as url:
        monkeypatch.setenv("DAGSTER_PG_URL", url)
        yield home


@contextmanager
def run_daemon(home: Path) -> Iterator[None]:
    location = {"module_name": "mvl_assets.definitions", "location_name": "mvl_assets"}
    workspace = home / "workspace.yaml"
    workspace.write_text(yaml.safe_dump({"load_from": [{"python_module": location}]}), encoding="utf-8")
    command = [sys.executable, "-m", "dagster._daemon", "run", "-w", str(workspace)]
    with (home / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, cwd=PROJECT_ROOT)
        try:
            yield
        finally:
            daemon.terminate()
            daemon.wait(PATIENCE_S)


def test_a_backfill_of_several_partitions_runs_one_process_after_another(dagster_home: Path, world: World) -> None:
    # One run per partition makes both.
    stages = [dg.AssetKey([stage, "code_math"]) for stage in ("rewritten", "judged")]
    versions = {key: world.lake.get_table("/".join(key.path)).version for key in stages}
    with dg.DagsterInstance.get() as instance:
        backfill = PartitionBackfill.from_asset_partitions(
            backfill_id="all-again",
            asset_graph=world.definitions.resolve_asset_graph(),
            partition_names=[MATH, GENERAL],
            asset_selection=stages,
            backfill_timestamp=time.time(),
            tags={},
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
        instance.add_backfill(backfill)

        def are_runs_finished() -> bool:
            runs = instance.get_runs()
            assert not any(run.is_failure_or_canceled for run in runs), (dagster_home / "daemon.log").read_text()
            return len(runs) >= 2 and all(run.is_success for run in runs)

        with run_daemon(dagster_home):
            wait_until(are_runs_finished, 600)
        runs = instance.get_runs()
        assert {run.tags["dagster/partition"] for run in runs} == {MATH, GENERAL}
        assert {run.tags["dagster/backfill"] for run in runs} == {"all-again"}
        records = sorted(instance.get_run_records(), key=lambda record: record.start_time or 0)
        assert all(a.end_time <= b.start_time for a, b in pairwise(records))  # type: ignore[operator]
        assert len(runs) == len({find_process(instance, run.run_id) for run in runs}) == 2
        events = [
            event.asset_materialization
            for run in runs
            for event in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        ]
        materialized = {(event.asset_key, event.partition) for event in events if event is not None}
        assert materialized == {(key, source) for key in stages for source in (MATH, GENERAL)}
        stored = instance.get_backfill("all-again")
        assert stored is not None and stored.status != BulkActionStatus.FAILED
    assert not list(dagster_home.rglob("*.db")), "something is kept in SQLite"
    # Nothing has changed since the lake was built, so nothing was written.
    assert {key: world.lake.get_table("/".join(key.path)).version for key in stages} == versions


def find_process(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return the process that a run says it is executed in."""
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    (pid,) = {
        str(event.dagster_event.engine_event_data.metadata["pid"].value)
        for event in events
        if event.dagster_event is not None and "pid" in event.dagster_event.engine_event_data.metadata
    }
    return pid
