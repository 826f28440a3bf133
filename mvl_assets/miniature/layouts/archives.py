"""Rows beside archives of pictures: Cambrian-10M, M4-Instruct in parts, LLaVA-Video, the released MAmmoTH-VL files."""

from __future__ import annotations

from mvl_assets.miniature.layouts.common import Layout

LAYOUTS: dict[str, Layout] = {}
