"""One recipe over two machines, which here are two network namespaces joined by a virtual cable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvl_assets.lake.lake import Lake
from mvl_training.runs.training_run import LAUNCHER_ENV
from tests.patience import PATIENCE_S
from tests.training import tiny_model as small

STEPS = 4
DEPLOY = small.PROJECT / "mvl_assets" / "deploy"

# A namespace of users and mounts makes us root of it, and everything in it is gone when its last process is.
INSIDE = ["unshare", "--user", "--map-root-user", "--net", "--mount", "bash", "-euc"]
CABLE = """
mount -t tmpfs none /run
ip netns add node0; ip netns add node1
ip link add eth0 netns node0 type veth peer name eth0 netns node1
for n in 0 1; do
  ip -n node$n link set lo up; ip -n node$n addr add 10.77.0.$((n + 1))/24 dev eth0; ip -n node$n link set eth0 up
done
"""
# What the hosts file's addresses are reached with, in ssh's place: `host line`.
REACH = '#!/bin/bash\nexec ip netns exec node$((${1##*.} - 1)) bash -c "$2"\n'


def trainer(recipe: Path, lake: Lake, out: Path) -> list[str]:
    options = ["--recipe", str(recipe), "--stage", "single_image", "--lake", lake.root, "--out", str(out)]
    return ["-m", "mvl_training.trainer.main", *options, "--steps", str(STEPS)]


def losses(out: Path) -> list[tuple[int, float, float]]:
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [(line["step"], line["loss"], line["grad_norm"]) for line in map(json.loads, lines)]


def finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output[-3000:]


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=small.PROJECT,
        env=small.build_environment() | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_machines_of_one_rank_train_as_one_machine_of_two(tmp_path: Path, tokenizer: Path, lake: Lake) -> None:
    allowed = subprocess.run([*INSIDE, CABLE], capture_output=True, text=True, check=False)
    if allowed.returncode:
        pytest.skip(f"no network namespaces here: {allowed.stderr.strip()[-200:]}")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(small.build_recipe_data(tokenizer)), encoding="utf-8")
    (tmp_path / "hosts.txt").write_text("# the first holds rank 0\n10.77.0.1\n10.77.0.2\n", encoding="utf-8")
    reach = tmp_path / "reach"
    reach.write_text(REACH, encoding="utf-8")
    reach.chmod(0o755)

    apart = [str(DEPLOY / "train-hosts.sh"), str(tmp_path / "hosts.txt"), "--nproc_per_node", "1"]
    # Each machine stages its part of a checkpoint, and rank 0 publishes them together.
    staged = tmp_path / "staged.yaml"
    staged.write_text(yaml.safe_dump(small.build_recipe_data(tokenizer, staged_checkpoints=True)), encoding="utf-8")
    apart += trainer(staged, lake, tmp_path / "apart")
    nodes = start([*INSIDE, CABLE + 'exec "$@"', "bash", *apart], MVL_SSH=str(reach), GLOO_SOCKET_IFNAME="eth0")
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    one = start(together + trainer(recipe, lake, tmp_path / "together"))
    try:
        finish(one)
        finish(nodes)
    finally:
        for process in (one, nodes):
            process.terminate()

    assert len(losses(tmp_path / "apart")) == STEPS
    assert losses(tmp_path / "apart") == losses(tmp_path / "together")
    files = [sorted(path.name for path in (tmp_path / out / "checkpoints").rglob("*")) for out in ("apart", "together")]
    assert files[0] == files[1]
    worlds: list[Any] = [
        json.loads((tmp_path / p / "result.json").read_text())["world_size"] for p in ("apart", "together")
    ]
    assert worlds == [2, 2]


def test_a_machine_that_fails_ends_the_others(tmp_path: Path) -> None:
    (tmp_path / "hosts.txt").write_text("first\nsecond\n", encoding="utf-8")
    reach = tmp_path / "reach"
    reach.write_text('#!/bin/bash\n[ "$1" = second ] && exit 7\nexec sleep 600\n', encoding="utf-8")
    reach.chmod(0o755)
    command = [str(DEPLOY / "train-hosts.sh"), str(tmp_path / "hosts.txt"), "--nproc_per_node", "1"]
    done = subprocess.run(command, env={**os.environ, "MVL_SSH": str(reach)}, timeout=PATIENCE_S, check=False)
    assert done.returncode == 7


def test_the_launcher_command_replaces_torchrun(monkeypatch: pytest.MonkeyPatch, tokenizer: Path) -> None:
    from mvl_training.runs.training_run import TrainingRun

    run = TrainingRun("single_image", "tiny.yaml", small.build_recipe(tokenizer), "lake", "1", None)
    alone = run.build_command()
    monkeypatch.setenv(LAUNCHER_ENV, "deploy/train-hosts.sh 'my hosts.txt'")
    assert run.build_command() == ["deploy/train-hosts.sh", "my hosts.txt", *alone[alone.index("--shutdown-timeout") :]]
