"""The run tag `mvl/retry`: error classes of rejected requests that a run asks again, or `all`.

It is a tag because any run can have one: from `mvl retry`, the launchpad or a backfill.
"""

from __future__ import annotations

import dagster as dg

RETRY_TAG = "mvl/retry"


def parse_retry_error_classes(context: dg.AssetExecutionContext) -> list[str]:
    """Return the error classes that this run asks again."""
    return context.run.tags.get(RETRY_TAG, "").replace(",", " ").split()
