"""A free TCP port of this machine."""

from __future__ import annotations

import socket


def find_free_port() -> int:
    """Return a TCP port of the loopback interface that is free now; another process may still take it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
