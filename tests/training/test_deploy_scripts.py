"""What the deploy scripts really run, with stand-ins for ssh, srun and kubectl that write it down."""

from __future__ import annotations

import os
import shlex
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import parse_args

from tests.patience import PATIENCE_S
from tests.training import tiny_model as small

DEPLOY = small.PROJECT / "mvl_assets" / "deploy"
TRAINER = ["--nproc_per_node", "8", "-m", "mvl_training.trainer.main", "--out", "/data/a b&c"]

# A cluster that takes every job, whose job is complete at once.
KUBECTL = """case $1 in
apply) cat > "$WRITTEN/job.yaml" ;;
get) echo Complete ;;
esac
"""


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A project folder whose Python writes down its arguments, one a line."""
    _program(tmp_path / ".venv/bin/python", 'printf "%s\\n" "$@" > "$WRITTEN/arguments"\n')
    return tmp_path


def _program(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/bash\n{text}", encoding="utf-8")
    file.chmod(0o755)


def _run(command: list[str], there: Path, **more: str) -> None:
    path = f"{there / 'bin'}:{os.environ['PATH']}"
    environment = {"HOME": str(there), "PATH": path, "WRITTEN": str(there), **more}
    subprocess.run(command, cwd=there, env=environment, timeout=PATIENCE_S, check=True)


def _torchrun(there: Path) -> Namespace:
    """What torchrun makes of the arguments that Python was given."""
    given = (there / "arguments").read_text(encoding="utf-8").splitlines()
    assert given[:2] == ["-m", "torch.distributed.run"]
    return parse_args(given[2:])


def _hosts(there: Path, text: str, **more: str) -> dict[str, list[str]]:
    """By what ssh was given as the host, the words of the line that it would run there."""
    (there / "hosts.txt").write_text(text, encoding="utf-8")
    _program(there / "reach", 'printf "%s" "$2" > "$WRITTEN/to $1"\n')
    command = [str(DEPLOY / "train-hosts.sh"), str(there / "hosts.txt"), *TRAINER]
    _run(command, there, MVL_SSH=str(there / "reach"), **more)
    return {file.name[3:]: shlex.split(file.read_text(encoding="utf-8")) for file in there.glob("to *")}


def test_train_hosts_takes_the_first_word_of_a_line_and_a_rendezvous_without_user(there: Path) -> None:
    lines = _hosts(there, "# ours\n\nubuntu@10.0.0.1\nnode2 slots=8\n  node3 \nnode4 # big\nnode5\r\nnode6")
    assert sorted(lines) == ["node2", "node3", "node4", "node5", "node6", "ubuntu@10.0.0.1"]
    for line in lines.values():
        assert line[line.index("--rdzv-endpoint") + 1] == "10.0.0.1:29500"
        assert line[line.index("--nnodes") + 1] == "6"
        assert line[-len(TRAINER) :] == TRAINER
    ranks = {host: line[line.index("--node-rank") + 1] for host, line in lines.items()}
    assert (ranks["ubuntu@10.0.0.1"], ranks["node6"]) == ("0", "5")


def test_train_hosts_passes_settings_but_no_secrets(there: Path) -> None:
    passed = {"MVL_HOME": "/data/a 'b'", "HF_HOME": "/hub", "TOKENIZERS_PARALLELISM": "false"}
    passed |= {"AWS_ENDPOINT_URL": "http://store:9000", "AWS_REGION": "eu-north-1"}
    secret = {"HF_TOKEN": "hf_SECRET", "MVL_API_KEY": "sk-SECRET", "AWS_SECRET_ACCESS_KEY": "SECRET"}
    (line,) = _hosts(there, "node1\n", **passed, **secret).values()
    assert {f"{name}={value}" for name, value in passed.items()} <= set(line)
    assert "SECRET" not in " ".join(line)


def test_train_hosts_refuses_a_file_without_a_host(there: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        _hosts(there, "# none yet\n")


def test_train_slurm_gives_ranks_time_to_save(there: Path) -> None:
    _program(there / "bin/srun", 'while [[ $1 == --* ]]; do [[ $1 == *=* ]] || shift; shift; done\nexec "$@"\n')
    _program(there / "bin/scontrol", 'printf "%s\\n" node7 node8\n')
    slurm = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2", "SLURM_NODEID": "1"}
    _run([str(DEPLOY / "train-slurm.sh"), *TRAINER], there, **slurm)
    given = _torchrun(there)
    assert given.shutdown_timeout == 270
    assert (given.nnodes, given.node_rank, given.rdzv_endpoint) == ("2", 1, "node7:29500")
    assert [given.training_script, *given.training_script_args] == TRAINER[3:]


def test_train_kubernetes_gives_ranks_time_to_save_and_the_pod_more(there: Path) -> None:
    _program(there / "bin/kubectl", KUBECTL)
    settings = {"MVL_NODES": "2", "MVL_IMAGE": "registry/mvl:1", "MVL_HOME": "/shared"}
    _run([str(DEPLOY / "train-kubernetes.sh"), *TRAINER], there, **settings)
    _, job = yaml.safe_load_all((there / "job.yaml").read_text(encoding="utf-8"))
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    _run([*container["command"], *container["args"]], there, JOB_COMPLETION_INDEX="1")
    given = _torchrun(there)
    assert 30 < given.shutdown_timeout < pod["terminationGracePeriodSeconds"]
    assert (given.nnodes, given.node_rank) == ("2", 1)
    assert [given.training_script, *given.training_script_args] == TRAINER[3:]
