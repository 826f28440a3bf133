"""A Ray cluster of several nodes on the loopback interface of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from mvl_assets.execution.ray_cluster import LOOPBACK, set_ray_environment

OBJECT_STORE_BYTES = 80 << 20


@contextmanager
def start_cluster(n_nodes: int = 2, n_cpus: int = 1) -> Iterator[Any]:
    """Start a head and further nodes with `n_cpus` CPUs each; the test's process is no part of it."""
    set_ray_environment(LOOPBACK)
    from ray.cluster_utils import Cluster

    node = {
        "num_cpus": n_cpus,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "node_ip_address": LOOPBACK,
    }
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(n_nodes - 1):
            cluster.add_node(**node)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


def kill_node(cluster: Any) -> None:
    """Kill all processes of the newest node but the head's, as when a machine is lost."""
    node = list(cluster.worker_nodes)[-1]
    (raylet,) = node.all_processes["raylet"]
    # Without its raylet a worker would live for a moment, and might finish its task.
    for process in psutil.Process(raylet.process.pid).children(recursive=True):
        process.kill()
    cluster.remove_node(node, allow_graceful=False)
