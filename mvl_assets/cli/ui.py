"""`mvl ui`: Dagster's web interface on this lake, on loopback."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from mvl_assets.common.file_lock import try_lock
from mvl_assets.common.verbosity import Verbosity, get_verbosity
from mvl_assets.errors import MvlError
from mvl_assets.runner.dagster_home import find_workspace_file, prepare_home

HOST = "127.0.0.1"
POLL_INTERVAL_S = 0.5
STOP_S = 150.0
"""Dagster waits a minute for each of its two services."""

_PR_SET_PDEATHSIG = 1


@click.command(name="ui")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65_535))
def command(port: int) -> None:
    """Open Dagster's web interface on this lake, until Ctrl-C."""
    home = prepare_home()
    # Two on one lake would both run its sensors and schedules.
    with _hold_project(home / "ui.lock", port), _hold_port(port):
        _serve(port)


@contextmanager
def _hold_project(lock_path: Path, port: int) -> Iterator[None]:
    with try_lock(lock_path) as is_first:
        if not is_first:
            url = f"http://{HOST}:{lock_path.read_text(encoding='utf-8').strip()}"
            raise MvlError(f"the web interface of this project runs already: {url}", hint="open it, or stop it there")
        lock_path.write_text(f"{port}\n", encoding="utf-8")
        yield


@contextmanager
def _hold_port(port: int) -> Iterator[None]:
    """Refuse a port that is in use, or that another `mvl ui` is about to use: Dagster binds it after half a minute."""
    with socket.socket(socket.AF_UNIX) as claim, socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            claim.bind(f"\0mvl-ui:{port}")  # an abstract name: it ends with this process, however that ends
            probe.bind((HOST, port))
        except OSError as error:
            raise MvlError(f"port {port} is in use", hint=f"mvl ui --port {port + 1}") from error
        probe.close()
        yield


def _serve(port: int) -> None:
    """Run Dagster until Ctrl-C, SIGTERM, or its end.

    Raises:
        MvlError: Dagster ended by itself.
    """
    click.echo(f"starting Dagster at http://{HOST}:{port}, which takes half a minute; Ctrl-C stops it")
    is_verbose = get_verbosity() == Verbosity.VERBOSE
    # The ignored warning says that the command is now called `dg dev`, which does the same here.
    arguments = [sys.executable, "-W", "ignore::FutureWarning", "-m", "dagster", "dev", "-w", "workspace.yaml"]
    arguments += ["-h", HOST, "-p", str(port), "--log-level", "info" if is_verbose else "warning"]
    # A plain shell starts background jobs with SIGINT ignored; Dagster's processes would inherit that and never stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # In a session of its own, Ctrl-C reaches this process alone. Sent to all of Dagster's at once, it would be a
    # traceback from whichever was starting.
    process = subprocess.Popen(
        arguments,
        cwd=find_workspace_file().parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )
    assert process.stdout is not None
    is_stopping = threading.Event()
    copier = threading.Thread(target=_copy_output, args=(process.stdout, is_stopping), daemon=True)
    copier.start()
    try:
        _report_start(process, port)
        code = process.wait()
        copier.join(timeout=POLL_INTERVAL_S)
        raise MvlError(
            f"Dagster ended by itself, with code {code}", hint="its messages are above; `mvl ui -v` shows more of them"
        )
    except KeyboardInterrupt:
        is_stopping.set()
        click.echo("\nstopping (Ctrl-C again: at once)", err=True)
    finally:
        is_stopping.set()
        _stop(process)
    click.echo("stopped", err=True)


def _report_start(process: subprocess.Popen[bytes], port: int) -> None:
    """Say when the pages can be opened."""
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                click.echo(
                    f"ready: http://{HOST}:{port}/asset-groups (the graph), http://{HOST}:{port}/assets (a list)"
                )
                return
        try:
            process.wait(POLL_INTERVAL_S)
        except subprocess.TimeoutExpired:
            continue


def _copy_output(stream: IO[bytes], is_stopping: threading.Event) -> None:
    """Write Dagster's lines to stderr; not those of its end, where interrupted imports print tracebacks."""
    for line in stream:
        if not is_stopping.is_set():
            sys.stderr.write(line.decode("utf-8", "replace"))
            sys.stderr.flush()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask Dagster to stop its services, and kill what is left when it takes too long or the user asks again."""
    try:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(STOP_S)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _end_with_parent() -> None:
    """Let the kernel interrupt the new process when this one dies without stopping it, as by `kill -9`."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
