"""The supervisor ends its server when it is idle or told to, and leaves no process of the group behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from mvl_assets.common.free_port import find_free_port
from mvl_assets.inference.local_server.supervisor import HEARTBEAT_FILE
from tests.patience import PATIENCE_S, wait_until

# A server with a process of its own, as vLLM has its engine.
SERVER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
if sys.argv[1:]:
    from mvl_assets.inference.testing.fake_server import main
    main(sys.argv[1:])
time.sleep({seconds})
"""


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """Start a supervisor, and return it with the process number of the server's child.

    The heartbeat is far ahead of the clock, which no stall outlasts, until `stop_heartbeat`.
    """
    started: list[subprocess.Popen[str]] = []

    def start(
        idle_timeout_s: float, seconds: float = PATIENCE_S, port: int = 0, arguments: Sequence[str] = ()
    ) -> tuple[subprocess.Popen[str], int]:
        (tmp_path / HEARTBEAT_FILE).touch()
        os.utime(tmp_path / HEARTBEAT_FILE, (time.time() + PATIENCE_S,) * 2)
        command = [sys.executable, "-m", "mvl_assets.inference.local_server.supervisor", str(tmp_path), str(port)]
        process = subprocess.Popen(
            [*command, str(idle_timeout_s), sys.executable, "-c", SERVER.format(seconds=seconds), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def stop_heartbeat(folder: Path) -> None:
    os.utime(folder / HEARTBEAT_FILE, (0, 0))


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def answers(url: str, body: bytes | None = None) -> bool:
    try:
        with urllib.request.urlopen(url, body, timeout=PATIENCE_S) as response:
            return response.status == 200
    except OSError:
        return False


def assert_group_ended(process: subprocess.Popen[str], child_pid: int) -> None:
    assert process.wait(PATIENCE_S) == -signal.SIGKILL, "the supervisor is the last process of its group"
    wait_until(lambda: has_ended(child_pid))


def test_a_server_without_a_heartbeat_ends_with_all_its_processes(supervise: Callable, tmp_path: Path) -> None:
    process, child_pid = supervise(idle_timeout_s=1.0)
    stop_heartbeat(tmp_path)
    assert_group_ended(process, child_pid)


def test_a_heartbeat_keeps_the_server_alive(supervise: Callable, tmp_path: Path) -> None:
    process, child_pid = supervise(idle_timeout_s=1.0)
    time.sleep(2)
    assert process.poll() is None and not has_ended(child_pid)
    stop_heartbeat(tmp_path)
    assert_group_ended(process, child_pid)


@pytest.mark.parametrize("is_held", [False, True], ids=["answered", "open"])
def test_requests_of_clients_that_know_only_the_address_renew_the_heartbeat(
    supervise: Callable, tmp_path: Path, is_held: bool
) -> None:
    port = find_free_port()
    arguments = ("--port", str(port), "--hold-after", "0" if is_held else "1")
    process, child_pid = supervise(idle_timeout_s=1.5, port=port, arguments=arguments)
    url, body = f"http://127.0.0.1:{port}", b'{"model": "fake", "messages": [], "max_tokens": 1}'
    wait_until(lambda: answers(f"{url}/metrics"))
    with ThreadPoolExecutor() as clients:
        reply = clients.submit(answers, f"{url}/v1/chat/completions", body)
        if not is_held:
            assert reply.result()
        wait_until(lambda: (tmp_path / HEARTBEAT_FILE).stat().st_mtime <= time.time())
        if is_held:
            assert not reply.done()
            assert answers(f"{url}/release", b"") and reply.result()
    assert_group_ended(process, child_pid)


def test_a_server_whose_folder_is_removed_ends(supervise: Callable, tmp_path: Path) -> None:
    process, child_pid = supervise(idle_timeout_s=600)
    (tmp_path / HEARTBEAT_FILE).unlink()
    assert_group_ended(process, child_pid)


def test_sigterm_ends_the_server_and_its_processes(supervise: Callable) -> None:
    process, child_pid = supervise(idle_timeout_s=600)
    process.send_signal(signal.SIGTERM)
    assert_group_ended(process, child_pid)


def test_the_end_of_the_server_ends_what_it_has_left_running(supervise: Callable) -> None:
    assert_group_ended(*supervise(idle_timeout_s=600, seconds=0.2))
