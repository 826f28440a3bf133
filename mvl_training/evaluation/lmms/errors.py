"""The error a person meets, in lmms-eval's environment."""

from __future__ import annotations


class LmmsError(Exception):
    """`message` is one line, `hint` says what to do. The other environment shows both as an `MvlError`."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message, self.hint = message, hint
        super().__init__(message if hint is None else f"{message} | {hint}")
