"""A full or read-only disk ends in one clear line; stored rows stay, and the next run continues."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lake.processes import Worker
from tests.lake.small_disk import small_disk


def test_a_full_or_read_only_disk_is_reported_and_loses_no_rows(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("unshare") is None or subprocess.run([*small_disk(folder), "true"], capture_output=True).returncode:
        pytest.skip("an unprivileged user may not mount a file system on this machine")
    worker = Worker("fill_disk", str(folder / "lake"), before=small_disk(folder))
    output = {line.split(" disk ")[0].split(" the ")[0].split(" 0 ")[0]: line for line in worker.rest()}
    lines = list(output.values())
    assert worker.process.wait() == 0, lines
    full = [line for line in lines if "the disk is full" in line and "free some space" in line]
    assert {line.split()[0] for line in full} == {"answers", "publish", "insert", "pictures"}, lines
    assert "kept 0 more 1" in lines, "what was acknowledged before the disk was full is there, and writing goes on"
    refused = [line for line in lines if "is read-only at" in line and "MVL_LAKE" in line]
    assert {line.split()[1] for line in refused} == {"answers", "publish", "insert", "pictures"}, lines
    assert "readable 1" in lines
