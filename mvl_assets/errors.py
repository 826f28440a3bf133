"""The errors a person meets. Every one says what happened, where, and what to do next.

Belongs here: the base class and the ones more than one room raises. An error of one room lives in that room.
"""

from __future__ import annotations


class MvlError(Exception):
    """An error a person can act on.

    `message` is one line; `hint` says what to do next. The CLI prints both and exits with 1; Dagster shows both.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = message
        self.hint = hint
        super().__init__(message if hint is None else f"{message} | {hint}")


class InfrastructureError(MvlError):
    """Something that every step needs is missing or broken: a full disk, a server that does not start.

    A run of many steps ends with it, because the others would only say it again.
    """


class SourceError(MvlError):
    """A source as a whole cannot be read (its rows that cannot be read become rejects instead)."""

    def __init__(self, source: str, message: str, *, file: str | None = None, hint: str | None = None) -> None:
        self.source = source
        self.file = file
        location = source if file is None else f"{source}: {file}"
        super().__init__(f"{location}: {message}", hint=hint)
