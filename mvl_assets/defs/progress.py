"""What a long step says while it runs: one log line every few seconds, never one per row (each is a database row)."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg

from mvl_assets.inference.progress import Progress

EVERY_SECONDS = 5.0


def log_progress(context: dg.AssetExecutionContext) -> Callable[[Progress], None]:
    """A progress sink for the engine that logs at most every `EVERY_SECONDS` seconds of the run's clock."""
    last = -EVERY_SECONDS

    def report(progress: Progress) -> None:
        nonlocal last
        if progress.seconds - last >= EVERY_SECONDS:
            last = progress.seconds
            context.log.info(progress.line())

    return report
