"""Declared sources for the tests of this folder."""

from __future__ import annotations

from typing import Any

from mvl_assets.config.catalog import SourceSpec


def source(slug: str, **fields: Any) -> SourceSpec:
    defaults: dict[str, Any] = {
        "slug": slug,
        "title": slug,
        "category": "ocr",
        "group": "A",
        "modality": "single_image",
        "format": None,
    }
    return SourceSpec.model_validate(defaults | fields)
