"""`mvl serve`: the local model servers that runs share."""

from __future__ import annotations

import click


@click.group(name="serve")
def command() -> None:
    """Look at, stop or start the local model servers."""
