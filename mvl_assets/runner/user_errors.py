"""What a failure says to a person: one line, what to do, and whether going on makes sense.

Belongs here: finding the error a person can act on inside what Dagster, its database and the operating system raise.
The errors themselves belong to their rooms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mvl_assets.config.settings import settings
from mvl_assets.errors import MachineError, MvlError
from mvl_assets.lake.errors import DiskError, disk_error

# SQLite, which keeps Dagster's events, has words of its own.
SQLITE_FULL = "database or disk is full"
SQLITE_READ_ONLY = ("attempt to write a readonly database", "unable to open database file")


@dataclass(frozen=True, slots=True)
class Problem:
    """`stops` says that other steps would meet the same."""

    message: str
    hint: str | None
    stops: bool

    @property
    def line(self) -> str:
        """The first line of the message, for places that show one."""
        return _line(self.message)


def problem_of(error: BaseException) -> Problem | None:
    """The problem behind an error, or behind what caused it; None for one that only a developer can act on."""
    for link in _chain(error):
        found = link if isinstance(link, MvlError) else _disk(link)
        if found is not None:
            return Problem(found.message.strip(), found.hint, isinstance(found, MachineError))
    return None


def unexpected(error: BaseException) -> Problem:
    """A problem nobody foresaw, in its own words."""
    words = _line(str(error)) or "no more is known"
    return Problem(f"{type(error).__name__}: {words}", "the log of the run in the UI has the whole traceback", False)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, outermost first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _disk(error: BaseException) -> DiskError | None:
    home = settings().home
    text = str(error)
    if SQLITE_FULL in text:
        return DiskError(f"the disk is full while writing {home}", hint="free some space and run again")
    if any(words in text for words in SQLITE_READ_ONLY):
        return DiskError(
            f"{home} cannot be written",
            hint="make it writable, or set MVL_HOME to a folder you may write",
        )
    return disk_error(error, str(getattr(error, "filename", None) or home))


def _line(text: str) -> str:
    """The first line that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
