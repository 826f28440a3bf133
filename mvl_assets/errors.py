"""Errors that more than one package raises. Every message says what happened and where; the hint says what to do."""

from __future__ import annotations

from typing import Any


class MvlError(Exception):
    """An error that the user can act on.

    `message` is one line; `hint` says what to do next. The CLI prints both and exits with 1; Dagster shows both.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = message
        self.hint = hint
        super().__init__(message if hint is None else f"{message} | {hint}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Without a call of __init__, whose parameters differ between subclasses: errors travel between processes.
        return _rebuild_error, (type(self), self.args, self.__dict__)


class InfrastructureError(MvlError):
    """Something that every step needs is missing or broken: a full disk, a server that does not start.

    A run of many steps ends with it, because the other steps would fail in the same way.
    """


class SourceError(MvlError):
    """A source as a whole cannot be read; single rows that cannot be read become rejects instead."""

    def __init__(self, source: str, message: str, *, file: str | None = None, hint: str | None = None) -> None:
        self.source = source
        self.file = file
        location = source if file is None else f"{source}: {file}"
        super().__init__(f"{location}: {message}", hint=hint)


def _rebuild_error(error_class: type[MvlError], args: tuple[Any, ...], state: dict[str, Any]) -> MvlError:
    error = error_class.__new__(error_class)
    error.args = args
    error.__dict__.update(state)
    return error
