"""Asking rejected requests again: a run with the tag `mvl/retry` does, for the error classes the tag names, or `all`.

A tag, because it can be given to any run: by `mvl retry`, in the launchpad, with a backfill.
"""

from __future__ import annotations

import dagster as dg

RETRY_TAG = "mvl/retry"


def parse_retry_error_classes(context: dg.AssetExecutionContext) -> list[str]:
    """The error classes that this run asks again."""
    return context.run.tags.get(RETRY_TAG, "").replace(",", " ").split()
