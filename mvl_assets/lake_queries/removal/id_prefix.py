"""Ids that users abbreviate to their first characters."""

from __future__ import annotations

from mvl_assets.lake import sql
from mvl_assets.lake.errors import LakeError

MIN_ID_PREFIX_LENGTH = 6


def build_prefix_filter(column: str, prefix: str) -> str:
    """Return the SQL condition for ids in `column` that begin with a prefix in lower case.

    Raises:
        LakeError: The prefix is too short, or not hexadecimal.
    """
    if len(prefix) < MIN_ID_PREFIX_LENGTH or set(prefix) - set("0123456789abcdef"):
        raise LakeError(
            f"{prefix!r} is not an id", hint=f"give at least {MIN_ID_PREFIX_LENGTH} characters of a 32-character id"
        )
    return f"{column} LIKE {sql.format_literal(prefix + '%')}"
