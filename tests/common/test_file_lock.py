"""Locks on files: exclusive, shared, and released when their process is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mvl_assets.common.file_lock import acquire_lock, hold_lock, try_lock

HOLDER = """
import sys
from pathlib import Path
from mvl_assets.common.file_lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_an_exclusive_lock_keeps_all_others_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold_lock(path):
        for shared in (False, True):
            with try_lock(path, shared=shared) as is_held:
                assert not is_held
    with try_lock(path) as is_held:
        assert is_held


def test_shared_locks_admit_each_other_but_no_exclusive_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold_lock(path, shared=True), try_lock(path, shared=True) as is_shared, try_lock(path) as is_exclusive:
        assert is_shared and not is_exclusive


def test_a_lock_is_released_when_its_block_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wrong"), hold_lock(tmp_path / "lock"):
        raise ValueError("wrong")
    with try_lock(tmp_path / "lock") as is_held:
        assert is_held


def test_a_killed_process_releases_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with try_lock(path) as is_held:
            assert not is_held
        holder.kill()
        holder.wait()
        with try_lock(path) as is_held:
            assert is_held


def test_a_folder_can_be_locked_and_a_link_refused(tmp_path: Path) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    fd = acquire_lock(tmp_path, blocking=False, flags=flags)
    assert fd is not None and acquire_lock(tmp_path, blocking=False, flags=flags) is None
    os.close(fd)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="link"):
        acquire_lock(tmp_path / "link", flags=flags)


def test_no_descriptor_stays_open_when_the_lock_is_held(tmp_path: Path) -> None:
    with hold_lock(tmp_path / "lock"):
        n_before = len(list(Path("/proc/self/fd").iterdir()))
        with try_lock(tmp_path / "lock"):
            pass
        assert acquire_lock(tmp_path / "lock", blocking=False) is None
        assert len(list(Path("/proc/self/fd").iterdir())) == n_before
