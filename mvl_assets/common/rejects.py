"""The error that becomes a reject."""

from __future__ import annotations


class RejectError(Exception):
    """A row, file or answer that cannot be used.

    Attributes:
        code: Class of the error in snake_case, the column `error` of the rejects table.
        message: What is wrong, in one line.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{code}: {message}")
