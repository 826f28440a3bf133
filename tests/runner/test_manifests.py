"""The manifests of `deploy/`: each object against Kubernetes' schema, and names that files share are equal."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mvl_assets.config.profile import PROFILES_DIR, Profile
from mvl_assets.config.project import PACKAGE_DIR
from mvl_assets.config.settings import PROJECT_ROOT
from mvl_assets.execution.ray_cluster import is_ray_installed
from tests.patience import PATIENCE_S

DEPLOY = PACKAGE_DIR / "deploy"
KUBERNETES_VERSION = "1.33"
PLACEHOLDERS = {"@NAME@": "mvl-train", "@NODES@": "4", "@SAVE_GRACE@": "270", "@GRACE@": "300"}


def load_objects(name: str) -> list[dict[str, Any]]:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    return list(yaml.safe_load_all(text))


DAGSTER, RAY = load_objects("dagster-kubernetes.yaml"), load_objects("ray-kubernetes.yaml")


def iter_pod_specs() -> Iterator[dict[str, Any]]:
    for item in DAGSTER:
        if "template" in item.get("spec", {}):
            yield item["spec"]["template"]["spec"]
    (cluster,) = RAY
    for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]):
        yield group["template"]["spec"]


def iter_values(node: Any, key: str) -> Iterator[Any]:
    """Yield what is stored under a key, anywhere below a node."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from iter_values(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from iter_values(value, key)


@pytest.mark.parametrize("name", ["dagster-kubernetes.yaml", "train-kubernetes.yaml"])
def test_every_object_follows_the_schema_of_its_kind(name: str) -> None:
    for item in load_objects(name):
        kubernetes_validate.validate(item, KUBERNETES_VERSION, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**item, "spek": {}}, KUBERNETES_VERSION, strict=True)


def test_pods_of_the_ray_cluster_follow_the_schema_of_pods() -> None:
    (cluster,) = RAY
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    head, (workers,) = cluster["spec"]["headGroupSpec"], cluster["spec"]["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (head, workers):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, KUBERNETES_VERSION, strict=True)
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    # One shard per CPU that the pod asks for.
    (container,) = workers["template"]["spec"]["containers"]
    assert workers["rayStartParams"]["num-cpus"] == container["resources"]["requests"]["cpu"]


def test_names_that_files_share_are_equal() -> None:
    workspace = yaml.safe_load((DEPLOY / "workspace.cluster.yaml").read_text(encoding="utf-8"))
    services = {
        item["metadata"]["name"]: item["spec"]["ports"][0]["port"] for item in DAGSTER if item["kind"] == "Service"
    }
    locations = {entry["grpc_server"]["host"]: entry["grpc_server"]["port"] for entry in workspace["load_from"]}
    assert locations.items() <= services.items()
    assert {entry["grpc_server"]["location_name"] for entry in workspace["load_from"]} == {"mvl_assets", "mvl_training"}
    launcher = yaml.safe_load((DEPLOY / "dagster.cluster.yaml").read_text(encoding="utf-8"))["run_launcher"]["config"]
    specs = list(iter_pod_specs())
    assert set(launcher["env_secrets"]) == {
        secret["name"] for key in ("secretRef", "secretKeyRef") for secret in iter_values(specs, key)
    }
    config_maps = {volume["name"] for volume in iter_values(specs, "configMap")}
    assert config_maps == {launcher["instance_config_map"]}
    claims = {claim["claimName"] for claim in iter_values([*specs, launcher], "persistentVolumeClaim")}
    assert claims <= {item["metadata"]["name"] for item in DAGSTER if item["kind"] == "PersistentVolumeClaim"}
    images = {container["image"] for spec in specs for container in spec["containers"]}
    assert len({image for image in images if not image.startswith("postgres:")}) == 1
    for spec in specs:
        volumes = {volume["name"] for volume in spec.get("volumes", ())}
        mounted = {mount["name"] for container in spec["containers"] for mount in container.get("volumeMounts", ())}
        assert mounted - volumes <= {"data"}  # of the StatefulSet's claim template


def test_the_ray_cluster_is_of_the_pinned_version_and_at_the_address_that_is_documented() -> None:
    extras = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (cluster,) = RAY
    assert extras["ray"] == [f"ray[client]=={cluster['spec']['rayVersion']}"]
    readme = (DEPLOY / "README.md").read_text(encoding="utf-8")
    (executor,) = set(re.findall(r"\{kind: ray, address: \"ray://[^}]*\}", readme))
    assert yaml.safe_load(executor)["address"] == f"ray://{cluster['metadata']['name']}-head-svc:10001"
    profile = yaml.safe_load((PROFILES_DIR / "paper.yaml").read_text(encoding="utf-8"))
    Profile.model_validate(profile | {"executor": yaml.safe_load(executor)})


@pytest.mark.skipif(importlib.util.find_spec("dagster_k8s") is None, reason="no dagster-k8s: mvl[kubernetes]")
def test_keys_of_the_run_launcher_are_known_to_dagster_k8s() -> None:
    from dagster._config import process_config, resolve_to_config_type
    from dagster_k8s import K8sRunLauncher

    launcher = yaml.safe_load((DEPLOY / "dagster.cluster.yaml").read_text(encoding="utf-8"))["run_launcher"]
    result = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), launcher["config"])
    assert result.success, [error.message for error in result.errors or ()]


@pytest.mark.soak
@pytest.mark.skipif(not is_ray_installed(), reason="Ray is not installed: pip install 'mvl[ray]'")
def test_the_slurm_script_runs_a_command_on_a_ray_cluster_and_ends_it(tmp_path: Path) -> None:
    stand_ins = {
        "scontrol": "echo localhost",
        # Options of one word with a value each, or without.
        "srun": 'while [[ $1 == --* ]]; do [[ $1 == --overlap ]] && shift || shift 2; done; exec "$@"',
        "hostname": "echo 127.0.0.1",
    }
    for name, line in stand_ins.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{line}\n")
        (tmp_path / name).chmod(stat.S_IRWXU)
    program = (
        "from pathlib import Path; from mvl_assets.execution.ray_cluster import RayExecutor;"
        "from tests.execution import tasks;"
        f"print(sorted(RayExecutor('auto').run(tasks.square, tasks.make_jobs(Path({str(tmp_path)!r}), 3))))"
    )
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_CPUS_PER_TASK": "2",
        "MVL_RAY_PORT": "24679",
        # Loopback addresses only, as `set_ray_environment` does.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    ended = subprocess.run(
        [DEPLOY / "ray-slurm.sh", sys.executable, "-c", program],
        cwd=PROJECT_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ended.stdout.splitlines()[-1] == "[0, 1, 4]", ended.stdout + ended.stderr
    status = subprocess.run(
        [Path(sys.executable).with_name("ray"), "status", "--address", "127.0.0.1:24679"],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert status.returncode != 0
