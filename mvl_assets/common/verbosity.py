"""How much a command says, as `-q` and `-v` set it for this process."""

from __future__ import annotations

from enum import IntEnum


class Verbosity(IntEnum):
    """`QUIET`: results, warnings and errors. `NORMAL`: progress, too. `VERBOSE`: also the traceback of an error."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


_current = Verbosity.NORMAL


def set_verbosity(verbosity: Verbosity) -> None:
    """Set the verbosity of this process."""
    global _current
    _current = verbosity


def get_verbosity() -> Verbosity:
    """Return the verbosity of this process."""
    return _current
