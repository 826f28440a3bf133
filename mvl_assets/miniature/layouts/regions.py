"""What is where in a picture: Visual Genome, COCO instances, RefCOCO, Localized Narratives, ICDAR text."""

from __future__ import annotations

from mvl_assets.miniature.layouts.common import Layout

LAYOUTS: dict[str, Layout] = {}
