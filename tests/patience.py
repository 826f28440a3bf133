"""How long a test waits for what must happen: only a hang takes so long, however busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 600.0


def wait_until(is_reached: Callable[[], object], what: str = "it") -> None:
    """Return once the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_reached():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)
