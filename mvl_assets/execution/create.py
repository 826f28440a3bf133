"""The executor that a profile names."""

from __future__ import annotations

from mvl_assets.config.profile import ExecutorConfig
from mvl_assets.execution.executor import Executor
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.execution.ray_cluster import RayExecutor


def create_executor(config: ExecutorConfig) -> Executor:
    """Return the executor.

    Raises:
        MvlError: It is Ray, which is not installed.
    """
    if config.kind == "ray":
        return RayExecutor(config.address, config.processes)
    return ProcessExecutor(config.processes)
