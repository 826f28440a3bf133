"""The lock of an object store; here in a folder, where it works the same. `tests/object_store` has it on a server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from mvl_assets.lake.durability import heartbeat, store_lock
from mvl_assets.lake.durability.holder import describe_holder, is_known_dead
from mvl_assets.lake.durability.store_lock import LIFETIME_S, try_store_lock
from tests.patience import PATIENCE_S


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store_lock, "RETRY_WAIT_S", 0.02)
    path = tmp_path / "locks"
    path.mkdir()
    return path


def take(stack: ExitStack, folder: Path, *, shared: bool) -> bool:
    return stack.enter_context(try_store_lock(str(folder), shared=shared))


def test_many_may_share_it_and_one_may_have_it_alone(folder: Path) -> None:
    with ExitStack() as first:
        assert take(first, folder, shared=True)
        with ExitStack() as second:
            assert take(second, folder, shared=True)
            assert not take(second, folder, shared=False)
        assert take(first, folder, shared=True)
    with ExitStack() as alone:
        assert take(alone, folder, shared=False)
        assert not take(alone, folder, shared=True) and not take(alone, folder, shared=False)
    assert list(folder.iterdir()) == []


def test_a_dead_holder_counts_until_its_time_is_over(folder: Path) -> None:
    dead = folder / "exclusive-0.json"
    dead.write_text("{}")
    with ExitStack() as stack:
        assert not take(stack, folder, shared=True)
    long_ago = time.time() - LIFETIME_S - 1
    os.utime(dead, (long_ago, long_ago))
    with ExitStack() as stack:
        assert take(stack, folder, shared=False)
    assert not dead.exists()


def test_a_holder_that_was_killed_on_this_machine_is_known_to_be_dead(folder: Path) -> None:
    code = "import sys; from mvl_assets.lake.durability.store_lock import try_store_lock\n"
    code += "with try_store_lock(sys.argv[1], shared=False) as got: print(got, flush=True); sys.stdin.readline()"
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        with ExitStack() as stack:
            assert not take(stack, folder, shared=True)
        process.kill()
    assert len(list(folder.iterdir())) == 1
    with ExitStack() as stack:
        assert take(stack, folder, shared=False)


@pytest.mark.parametrize("changed", [{"machine": "another boot"}, {"machine": ""}])
def test_of_a_holder_elsewhere_nothing_is_known(changed: dict[str, str]) -> None:
    assert not is_known_dead(describe_holder())
    assert not is_known_dead(describe_holder() | {"start": "1"} | changed)
    assert is_known_dead(describe_holder() | {"start": "1"})


def test_a_holder_shows_again_and_again_that_it_lives(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "RENEWALS_PER_LIFETIME", 1800)
    with ExitStack() as holder:
        assert take(holder, folder, shared=True)
        (shown,) = folder.iterdir()
        for _ in range(2):
            before = shown.stat().st_mtime_ns
            while shown.stat().st_mtime_ns == before:
                time.sleep(0.01)


def test_two_that_come_at_once_are_never_both_alone(folder: Path) -> None:
    rounds, people = 20, 3
    barrier = threading.Barrier(people)
    inside: list[list[bool]] = [[] for _ in range(people)]

    def come(person: int) -> None:
        for _ in range(rounds):
            barrier.wait(PATIENCE_S)
            with try_store_lock(str(folder), shared=False) as is_acquired:
                inside[person].append(is_acquired)
                barrier.wait(PATIENCE_S)

    threads = [threading.Thread(target=come, args=(person,)) for person in range(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert all(sum(turn) <= 1 for turn in zip(*inside, strict=True)) and all(len(turns) == rounds for turns in inside)
