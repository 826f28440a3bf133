"""Scratch folders are removed with their process, or by the next one if it was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mvl_assets.lake.durability.scratch import SCRATCH_PREFIX, create_scratch_dir, sweep_scratch_dirs

HOLD = """
import sys
from mvl_assets.lake.durability.scratch import create_scratch_dir
with create_scratch_dir("test") as folder:
    (folder / "rows").write_text("many", encoding="utf-8")
    print(folder, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MVL_SCRATCH", str(tmp_path))
    return tmp_path


def holder() -> tuple[subprocess.Popen[str], Path]:
    """A process that has a folder and keeps it, and the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_scratch_folder_is_removed_with_its_block(temporary: Path) -> None:
    with pytest.raises(ValueError, match="wrong"), create_scratch_dir("test") as folder:
        assert folder.parent == temporary and folder.name.startswith(SCRATCH_PREFIX)
        (folder / "rows").touch()
        raise ValueError("wrong")
    assert list(temporary.iterdir()) == []


def test_folders_of_killed_processes_are_removed_by_the_next_process(temporary: Path) -> None:
    killed, left = holder()
    killed.kill()
    killed.wait()
    assert (left / "rows").exists()
    living, kept = holder()
    try:
        assert kept.is_dir() and not left.exists()
    finally:
        living.communicate("done\n")
    assert not kept.exists()


def test_folders_in_use_and_other_folders_are_left_alone(temporary: Path) -> None:
    other = temporary / "mvl-something"
    other.mkdir()
    living, kept = holder()
    try:
        with create_scratch_dir("test") as own:
            assert sweep_scratch_dirs(temporary) == 0
            assert own.is_dir() and (kept / "rows").exists() and other.is_dir()
    finally:
        living.kill()
        living.wait()
    assert sweep_scratch_dirs(temporary) == 1
