"""Serving the application on loopback."""

from __future__ import annotations

import socket

import uvicorn

from mvl_assets.errors import MvlError
from mvl_assets.view.app import ViewApp

HOST = "127.0.0.1"


def open_socket(port: int) -> socket.socket:
    """Return a socket that listens on loopback; port 0 is any free one.

    Raises:
        MvlError: The port is in use.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise MvlError(f"port {port} is in use", hint=f"mvl view --port {port + 1}") from error
    return listener


def build_server(app: ViewApp) -> uvicorn.Server:
    """Return the server of an application; `run(sockets=[...])` answers requests until it is told to stop."""
    config = uvicorn.Config(app.build(), log_level="warning", access_log=False, server_header=False, lifespan="off")
    return uvicorn.Server(config)
