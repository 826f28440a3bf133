"""What a failure says to a person: one line, what to do, and whether going on makes sense.

Belongs here: finding the error a person can act on inside what Dagster, its database and the operating system raise.
The errors themselves belong to their rooms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mvl_assets.config.settings import load_settings
from mvl_assets.errors import InfrastructureError, MvlError
from mvl_assets.lake.errors import DiskError, to_disk_error

# SQLite, which keeps Dagster's events, has words of its own.
SQLITE_FULL_MESSAGE = "database or disk is full"
SQLITE_READ_ONLY_MESSAGES = ("attempt to write a readonly database", "unable to open database file")


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """`is_fatal` says that other steps would meet the same."""

    message: str
    hint: str | None
    is_fatal: bool

    @property
    def first_line(self) -> str:
        """The first line of the message, for places that show one."""
        return _get_first_line(self.message)


def to_user_facing_error(error: BaseException) -> ErrorReport | None:
    """The problem behind an error, or behind what caused it; None for one that only a developer can act on."""
    for cause in _iter_error_chain(error):
        mvl_error = cause if isinstance(cause, MvlError) else _to_disk_error(cause)
        if mvl_error is not None:
            return ErrorReport(mvl_error.message.strip(), mvl_error.hint, isinstance(mvl_error, InfrastructureError))
    return None


def build_unexpected_error(error: BaseException) -> ErrorReport:
    """A problem nobody foresaw, in its own words."""
    message = _get_first_line(str(error)) or "no more is known"
    return ErrorReport(
        f"{type(error).__name__}: {message}", "the log of the run in the UI has the whole traceback", False
    )


def _iter_error_chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, outermost first."""
    visited_ids: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in visited_ids:
        visited_ids.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _to_disk_error(error: BaseException) -> DiskError | None:
    home = load_settings().home
    text = str(error)
    if SQLITE_FULL_MESSAGE in text:
        return DiskError(f"the disk is full while writing {home}", hint="free some space and run again")
    if any(message in text for message in SQLITE_READ_ONLY_MESSAGES):
        return DiskError(
            f"{home} cannot be written",
            hint="make it writable, or set MVL_HOME to a folder you may write",
        )
    return to_disk_error(error, str(getattr(error, "filename", None) or home))


def _get_first_line(text: str) -> str:
    """The first line that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
