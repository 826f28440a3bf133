"""Declared sources for tests of fetching."""

from __future__ import annotations

import random
from typing import Any

from mvl_assets.config.catalog import HubDataset, SourceSpec
from mvl_assets.fetch.transfer import RetryPolicy

QUICK = RetryPolicy(max_attempts=4, backoff_base_s=0.001)


def spec(slug: str = "demo", *, repo: str | None = "lab/data", config: str | None = None, **fields: Any) -> SourceSpec:
    files = fields.pop("files", ())
    hub = HubDataset(repo=repo, config=config, files=files) if repo is not None else None
    values: dict[str, Any] = {
        "title": slug.title(),
        "category": "general",
        "group": "A",
        "modality": None,
        "format": "llava_json",
        "hub": hub,
        **fields,
    }
    return SourceSpec(slug=slug, **values)


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that repeat nowhere, so that a wrong join shows."""
    return random.Random(seed).randbytes(size)
