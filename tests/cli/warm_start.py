"""Python processes that need not import Dagster and the project again: forks of one that has.

More than half of what a short command takes is imports. A fork has its own environment, folder, output and exit status,
and ends as any interpreter does.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
# Imported, and not used: lance, for one, starts threads then, and a process with threads must not be forked. None of
# them reads the profile when it is imported, as definitions do: a command has a profile of its own.
MODULES = (
    "dagster._core.storage.sqlite_storage",
    "mvl_assets.curation.screening",
    "mvl_assets.ingest.sync_source",
    "mvl_assets.judging.judge",
    "mvl_assets.rewriting.rewrite",
    "mvl_assets.runner.pipeline_runner",
    "jsonschema",
    "rich.progress",
    "upath",
)
WITHOUT_THREADS = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


def run_forked(
    code: str, words: list[str], folder: Path, environment: dict[str, str], seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run the code as `python -c CODE WORDS...` would, without input, and return its status and what it wrote.

    Raises:
        subprocess.TimeoutExpired: It took longer, and has been killed.
    """
    request = json.dumps({"code": code, "words": words, "folder": str(folder), "environment": environment})
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        connection = _connect()
        socket.send_fds(connection, [f"{len(request.encode()):10}".encode()], [out.fileno(), error.fileno()])
        connection.sendall(request.encode())
        pid = int(connection.recv(10))
        connection.settimeout(seconds)
        try:
            status = int(connection.recv(10))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            connection.settimeout(None)
            connection.recv(10)
            raise subprocess.TimeoutExpired(words, seconds) from None
        finally:
            connection.settimeout(None)
        out.seek(0)
        error.seek(0)
        return subprocess.CompletedProcess(words, status, out.read(), error.read())


@cache
def _connect() -> socket.socket:
    """Start the process that forks, once per session; it ends when this one does."""
    ours, theirs = socket.socketpair()
    with theirs:
        subprocess.Popen(
            [sys.executable, "-c", f"from tests.cli.warm_start import serve_forks; serve_forks({theirs.fileno()})"],
            cwd=PROJECT,
            env=os.environ | WITHOUT_THREADS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    return ours


def serve_forks(descriptor: int) -> None:
    """Fork for every request that arrives, and answer with the fork's process id and then its exit status."""
    warnings.filterwarnings("ignore", "lance is not fork-safe")
    for name in MODULES:
        importlib.import_module(name)
    assert not sys.modules["mvl_assets.orchestration.asset_keys"].load_active_profile.cache_info().currsize
    connection = socket.socket(fileno=descriptor)
    while True:
        length, descriptors, _, _ = socket.recv_fds(connection, 10, 2)
        if not length:
            return
        request = json.loads(connection.recv(int(length), socket.MSG_WAITALL))
        threads = re.search(r"^Threads:\s+(\d+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
        assert threads and threads[1] == "1", "one of MODULES starts a thread"
        pid = os.fork()
        if pid == 0:
            connection.close()
            for ours, theirs in zip(descriptors, (1, 2), strict=True):
                os.dup2(ours, theirs)
                os.close(ours)
            os.chdir(request["folder"])
            os.environ.clear()
            os.environ.update(request["environment"])
            sys.argv = ["-c", *request["words"]]
            exec(request["code"], vars(sys.modules["__main__"]))
            return
        for ours in descriptors:
            os.close(ours)
        connection.sendall(f"{pid:10}".encode())
        connection.sendall(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):10}".encode())
