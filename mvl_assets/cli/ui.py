"""`mvl ui`: Dagster's web interface on this lake, on loopback."""

from __future__ import annotations

import os
import signal
import socket
import sys

import click

from mvl_assets.errors import MvlError
from mvl_assets.runner.dagster_home import find_workspace_file, prepare_home


@click.command(name="ui")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65_535))
def command(port: int) -> None:
    """Open Dagster's web interface on this lake."""
    home = prepare_home()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise MvlError(f"port {port} is in use", hint=f"mvl ui --port {port + 1}") from error
    click.echo(f"starting: http://127.0.0.1:{port}  (DAGSTER_HOME {home}; Ctrl-C stops it)")
    os.chdir(find_workspace_file().parent)
    # A plain shell starts background jobs with SIGINT ignored; Dagster's processes would inherit that and never stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The ignored warning says that the command is now called `dg dev`, which does the same here.
    arguments = [
        "-W",
        "ignore::FutureWarning",
        "-m",
        "dagster",
        "dev",
        "-w",
        "workspace.yaml",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - replaces this process, no shell
