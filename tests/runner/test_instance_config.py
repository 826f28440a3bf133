"""The instance files of `deploy/` are read by Dagster itself: a misspelt key fails here, not at a user's start."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config_schema
from dagster._grpc.utils import default_grpc_timeout

from mvl_assets.runner import dagster_home

DEPLOY = Path(__file__).resolve().parents[2] / "mvl_assets" / "deploy"


def test_the_file_for_one_machine_makes_an_instance_without_telemetry(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.run_monitoring_enabled
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 4
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 3


def test_the_instance_of_the_command_line_trains_one_stage_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dagster_home.get_instance() as instance:
        assert instance.event_log_storage.get_concurrency_info("gpu-train").slot_count == 1


def test_a_run_may_take_a_busy_machine_longer_to_start_than_dagster_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.delenv("DAGSTER_GRPC_TIMEOUT_SECONDS", raising=False)
    dagster_home.prepare_home()
    assert default_grpc_timeout() == dagster_home.START_RUN_TIMEOUT_S


@pytest.mark.parametrize("name", ["dagster.yaml", "dagster.cluster.yaml"])
def test_every_key_of_an_instance_file_is_known_to_dagster(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_PG_URL", "postgresql://nobody@localhost/dagster")
    config = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    result = process_config(dagster_instance_config_schema(), config)
    assert result.success, [error.message for error in result.errors or ()]
    broken = process_config(dagster_instance_config_schema(), {**config, "concurency": {}})
    assert not broken.success
