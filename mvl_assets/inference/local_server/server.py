"""Local model servers, shared by the processes of a machine: one that needs a server finds it or starts it.

One folder per model and flags in `MVL_HOME/servers` holds a lock, `state.json` (process, port), `heartbeat` (touched
while requests run) and `log.txt`. A run that dies leaves the server usable; a server that dies is started again by the
next call of `ensure_server`; a server that no one asks anything ends by itself (`supervisor.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from mvl_assets.common.atomic_write import write_text_atomic
from mvl_assets.common.file_lock import hold_lock
from mvl_assets.common.free_port import find_free_port
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import InfrastructureError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.local_server.server_spec import ServerSpec, runs_on_cpu
from mvl_assets.inference.local_server.supervisor import GRACE_PERIOD_S, HEARTBEAT_FILE

START_TIMEOUT_S = 900.0
# A server that was ready and does not answer for so long is ended and started again.
UNRESPONSIVE_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.2
LOG_TAIL_LINES = 8


class ServerError(InfrastructureError):
    """A local server cannot be started or has ended."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """The content of `state.json`.

    Attributes:
        pid: The supervisor, which is also the process group.
        create_time: Of that process; distinguishes it from a later one with the same number.
    """

    served_model_name: str
    model: str
    flags_hash: str
    pid: int
    create_time: float
    port: int
    idle_timeout_s: float


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server, for display.

    Attributes:
        state: `unresponsive` when it runs, was ready, and does not answer.
        idle_s: Seconds since it was last used.
        idle_timeout_s: Seconds without use after which it ends.
        memory_mib: Resident memory of all its processes.
    """

    name: str
    served_model_name: str
    model: str
    base_url: str
    pid: int
    state: Literal["ready", "starting", "unresponsive", "ended"]
    idle_s: float
    idle_timeout_s: float
    memory_mib: float
    log: Path


def ensure_server(spec: ServerSpec, timeout_s: float = START_TIMEOUT_S) -> Endpoint:
    """Return the running server for `spec`, started if necessary, once it answers.

    Safe to call from any number of processes at once: one starts it, all wait for the same one.

    Raises:
        ServerError: It has ended while starting (with the last lines of its log), or took longer than `timeout_s`.
    """
    return _ensure(spec, load_settings().servers_dir / spec.name, timeout_s)


def _ensure(spec: ServerSpec, folder: Path, timeout_s: float) -> Endpoint:
    deadline = time.monotonic() + timeout_s
    state = _find_or_start(spec, folder)
    answered_at = time.monotonic()
    while not _is_serving(state):
        now = time.monotonic()
        (folder / HEARTBEAT_FILE).touch()
        if not _is_alive(state):
            if not (folder / "ready").exists():
                raise _build_start_error(spec, state, folder)
            # It was ready and has died since, perhaps after we found it alive.
            state = _find_or_start(spec, folder)
            answered_at = now
            continue
        if now > deadline:
            _terminate(folder, state)
            raise ServerError(
                f"the server for {spec.served_model_name} did not answer within {timeout_s:.0f} s of its start",
                hint=f"a slow machine may need longer; its log is {folder / 'log.txt'}",
            )
        if (folder / "ready").exists() and now - answered_at > UNRESPONSIVE_TIMEOUT_S:
            with _lock_folder(folder):
                if _read_state(folder) == state:
                    _terminate(folder, state)
            state = _find_or_start(spec, folder)
            answered_at = now
        time.sleep(POLL_INTERVAL_S)
    (folder / "ready").touch()
    (folder / HEARTBEAT_FILE).touch()
    return Endpoint(
        base_url=_build_base_url(state),
        model=spec.served_model_name,
        start_concurrency=spec.max_num_seqs,
        max_concurrency=2 * spec.max_num_seqs,
        supports_seed=not runs_on_cpu(),
        max_model_len=spec.max_model_len,
        restart=lambda: _ensure(spec, folder, timeout_s),
        heartbeat_file=folder / HEARTBEAT_FILE,
    )


def start_server_in_background(spec: ServerSpec) -> None:
    """Start the server unless it runs, without waiting for it: a later `ensure_server` does."""
    _find_or_start(spec, load_settings().servers_dir / spec.name)


def list_servers() -> list[ServerStatus]:
    """Return every server of this MVL_HOME that was started and not stopped."""
    servers = []
    for folder in sorted(load_settings().servers_dir.glob("*/")):
        state = _read_state(folder)
        if state is None:
            continue
        processes = _list_processes(state)
        servers.append(
            ServerStatus(
                name=folder.name,
                served_model_name=state.served_model_name,
                model=state.model,
                base_url=_build_base_url(state),
                pid=state.pid,
                state=_classify_state(folder, state),
                idle_s=max(0.0, time.time() - (folder / HEARTBEAT_FILE).stat().st_mtime),
                idle_timeout_s=state.idle_timeout_s,
                memory_mib=sum(_read_rss_bytes(process) for process in processes) / 2**20,
                log=folder / "log.txt",
            )
        )
    return servers


def stop_servers(name: str | None = None) -> list[str]:
    """End one server, by its name or that of the served model, or all of them; return the names of those that ran."""
    stopped = []
    for folder in sorted(load_settings().servers_dir.glob("*/")):
        with _lock_folder(folder):
            state = _read_state(folder)
            if state is None or name not in (None, folder.name, state.served_model_name):
                continue
            if _terminate(folder, state):
                stopped.append(folder.name)
    return stopped


# -- starting ------------------------------------------------------------------------------------------------------


def _find_or_start(spec: ServerSpec, folder: Path) -> ServerState:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock_folder(folder):
            state = _read_state(folder)
            (folder / HEARTBEAT_FILE).touch()
            if state is not None:
                if _is_alive(state):
                    return state
                _terminate(folder, state)
            return _start(spec, folder)
    except OSError as error:
        raise ServerError(
            f"cannot start a server below {folder}: {error.strerror or error}",
            hint="free some disk space, or set MVL_HOME to a folder you may write",
        ) from error


def _start(spec: ServerSpec, folder: Path) -> ServerState:
    command = spec.prepare_command()
    port = spec.port or find_free_port()
    if spec.port is not None and not _is_port_free(spec.port):
        raise ServerError(
            f"port {spec.port} is in use by another program",
            hint="end that program, or take `--port` out of the model's serve section to let one be chosen",
        )
    supervisor_command = [
        sys.executable,
        "-m",
        "mvl_assets.inference.local_server.supervisor",
        str(folder),
        str(port),
        str(spec.idle_timeout_s),
    ]
    port_arguments = [str(port)] if spec.command is not None else ["--port", str(port)]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [*supervisor_command, *command, *port_arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=spec.build_environment(),
            start_new_session=True,
        )
    _supervisors.append(process)
    state = ServerState(
        served_model_name=spec.served_model_name,
        model=spec.model,
        flags_hash=spec.flags_hash,
        pid=process.pid,
        create_time=psutil.Process(process.pid).create_time(),
        port=port,
        idle_timeout_s=spec.idle_timeout_s,
    )
    (folder / "ready").unlink(missing_ok=True)
    write_text_atomic(folder / "state.json", json.dumps(dataclasses.asdict(state), indent=1))
    return state


# Supervisors that this process started: polled, or an ended one would remain as a zombie.
_supervisors: list[subprocess.Popen[bytes]] = []


def _build_start_error(spec: ServerSpec, state: ServerState, folder: Path) -> ServerError:
    log = folder / "log.txt"
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = [line for line in text.splitlines() if line.strip()][-LOG_TAIL_LINES:]
    if "Address already in use" in text or "address already in use" in text:
        hint = f"another program has taken port {state.port} meanwhile; run again"
    elif "memory" in "\n".join(lines).lower():
        hint = "give it less memory (kv_cache_gib, max_model_len, max_num_seqs in the profile), or free some"
    else:
        hint = f"the complete log is {log}"
    log_tail = "".join(f"\n    {line}" for line in lines) or " (its log is empty)"
    return ServerError(f"the server for {spec.served_model_name} ended while starting:{log_tail}", hint=hint)


def _is_port_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do it: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# -- status --------------------------------------------------------------------------------------------------------


# This machine is reached directly, whatever proxy the environment names.
_loopback_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _build_base_url(state: ServerState) -> str:
    return f"http://127.0.0.1:{state.port}/v1"


def _is_serving(state: ServerState) -> bool:
    """Return whether it is healthy and serves the right model: another program may have taken the port."""
    try:
        with _loopback_opener.open(f"http://127.0.0.1:{state.port}/health", timeout=5):
            pass
        with _loopback_opener.open(f"{_build_base_url(state)}/models", timeout=5) as response:
            models = json.loads(response.read())["data"]
        return any(model["id"] == state.served_model_name for model in models)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _classify_state(folder: Path, state: ServerState) -> Literal["ready", "starting", "unresponsive", "ended"]:
    if not _is_alive(state):
        return "ended"
    if _is_serving(state):
        return "ready"
    return "unresponsive" if (folder / "ready").exists() else "starting"


def _is_alive(state: ServerState) -> bool:
    for supervisor in _supervisors:
        supervisor.poll()
    try:
        process = psutil.Process(state.pid)
        return abs(process.create_time() - state.create_time) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _list_processes(state: ServerState) -> list[psutil.Process]:
    """Return the processes of the server's group, also those that have outlived its supervisor."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if (
                os.getpgid(process.pid) == state.pid
                and process.create_time() >= state.create_time - 1.0
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                processes.append(process)
    return processes


def _read_rss_bytes(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        return float(process.memory_info().rss)
    return 0.0


def _read_state(folder: Path) -> ServerState | None:
    try:
        return ServerState(**json.loads((folder / "state.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


# -- ending --------------------------------------------------------------------------------------------------------


def _terminate(folder: Path, state: ServerState) -> bool:
    """End the whole process group and forget it; return whether anything ran."""
    processes = _list_processes(state)
    if _is_alive(state):
        # The supervisor ends the server gracefully, then the rest of the group.
        with contextlib.suppress(ProcessLookupError):
            os.kill(state.pid, signal.SIGTERM)
        psutil.wait_procs(processes, timeout=GRACE_PERIOD_S + 2)
    for process in _list_processes(state):
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)
    for supervisor in _supervisors:
        supervisor.poll()
    (folder / "state.json").unlink(missing_ok=True)
    (folder / "ready").unlink(missing_ok=True)
    return bool(processes)


def _lock_folder(folder: Path) -> AbstractContextManager[None]:
    return hold_lock(folder / "lock")
