"""User-facing form of a failure: one line, a hint, and whether other steps can go on.

Finds the error that a user can act on inside what Dagster, its database and the operating system raise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mvl_assets.config.settings import load_settings
from mvl_assets.errors import InfrastructureError, MvlError
from mvl_assets.lake.errors import DiskError, StoreError, is_store_error, to_disk_error, to_store_error

# SQLite, which stores Dagster's events, has its own messages.
SQLITE_FULL_MESSAGE = "database or disk is full"
SQLITE_READ_ONLY_MESSAGES = ("attempt to write a readonly database", "unable to open database file")


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """A failure as the user sees it. `is_fatal`: other steps would fail in the same way."""

    message: str
    hint: str | None
    is_fatal: bool

    @property
    def first_line(self) -> str:
        """The first line of the message, for places that show one."""
        return _get_first_line(self.message)


def to_user_facing_error(error: BaseException) -> ErrorReport | None:
    """Return the report of the cause that a user can act on; None if only a developer can."""
    for cause in _iter_error_chain(error):
        mvl_error = cause if isinstance(cause, MvlError) else _to_storage_error(cause)
        if mvl_error is not None:
            return ErrorReport(mvl_error.message.strip(), mvl_error.hint, isinstance(mvl_error, InfrastructureError))
    return None


def build_unexpected_error(error: BaseException) -> ErrorReport:
    """Return the report of an unforeseen failure, with the error's own message."""
    message = _get_first_line(str(error)) or "no message"
    return ErrorReport(
        f"{type(error).__name__}: {message}", "the log of the run in the UI has the whole traceback", False
    )


def _iter_error_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, outermost first."""
    visited_ids: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in visited_ids:
        visited_ids.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _to_storage_error(error: BaseException) -> DiskError | StoreError | None:
    home = load_settings().home
    text = str(error)
    store_error = to_store_error(error, load_settings().lake_root)
    if store_error is not None:
        return store_error
    if is_store_error(error):  # its text may quote the request with its credentials
        return StoreError(
            f"the object store of {load_settings().lake_root} failed a request",
            hint="run again; if it goes on, `mvl doctor` tries what a lake needs of its store",
        )
    if SQLITE_FULL_MESSAGE in text:
        return DiskError(f"the disk is full while writing {home}", hint="free some space and run again")
    if any(message in text for message in SQLITE_READ_ONLY_MESSAGES):
        return DiskError(
            f"{home} cannot be written",
            hint="make it writable, or set MVL_HOME to a folder you may write",
        )
    return to_disk_error(error, str(getattr(error, "filename", None) or home))


def _get_first_line(text: str) -> str:
    """Return the first line that is not blank."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
