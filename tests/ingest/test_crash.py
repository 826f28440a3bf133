"""Killed (-9) at every step of writing, then run again: the lake is what an undisturbed run makes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mvl_assets.ingest import shard as module
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.views import iter_current_samples
from tests.patience import PATIENCE_S
from tests.raw_files import make_image, put, put_json, source, talk

SPEC = source("llava_json")
SMALL = {"MAX_PENDING_ROWS": 2, "SHARD_ROWS": 3}
# Kills the process before or after the n-th of its eight commits: images and samples of three shards, no withdrawn
# sample, the rejects.
CHILD = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from tests.raw_files import source
from mvl_assets.ingest import ingest, shard
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table import Table
for name, value in {SMALL!r}.items():
    setattr(shard, name, value)
writes = 0
def deadly(method):
    def call(*args, **kwargs):
        global writes
        writes += 1
        if str(writes) + "-before" == sys.argv[3]:
            os.kill(os.getpid(), signal.SIGKILL)
        done = method(*args, **kwargs)
        if str(writes) + "-after" == sys.argv[3]:
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    return call
Table.append_fragments, Table.replace_partition = deadly(Table.append_fragments), deadly(Table.replace_partition)
ingest.ingest_source(Lake(sys.argv[2]), source("llava_json"), Path(sys.argv[1]), run_id="killed")
"""


def state(lake: Lake) -> tuple[object, ...]:
    samples = sorted((s["sample_id"], s["revision"], s["content_hash"]) for s in iter_current_samples(lake, SPEC.slug))
    stored = sorted(r["image_id"] for r in lake.images.table.iter_rows(["image_id"]))
    result = sorted((r["row_key"], r["error"]) for r in lake.get_table("rejects").iter_rows(["row_key", "error"]))
    return samples, stored, result


@pytest.mark.parametrize("moment", ["1-before", "1-after", "2-after", "4-before", "5-after", "8-before"])
def test_killed_ingest_completes_when_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    root = tmp_path / "raw"
    rows = [{"id": n, "image": f"{n}.png", "conversations": talk("?", "!")} for n in range(9)]
    for n in range(8):
        put(root, f"{n}.png", make_image(n))
    put_json(root, "rows.json", rows)
    for name, value in SMALL.items():
        monkeypatch.setattr(module, name, value)
    undisturbed = Lake(str(tmp_path / "undisturbed"))
    expected = ingest_source(undisturbed, SPEC, root, run_id="whole")

    command = [sys.executable, "-c", CHILD, str(root), str(tmp_path / "lake"), moment, str(Path(__file__).parents[2])]
    killed = subprocess.run(command, timeout=PATIENCE_S, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    lake = Lake(str(tmp_path / "lake"))
    again = ingest_source(lake, SPEC, root, run_id="again")
    assert state(lake) == state(undisturbed)
    assert again.data_version == expected.data_version
    assert again.reject_counts == expected.reject_counts == {"missing_image": 1}
