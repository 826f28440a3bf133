"""Videos in their own formats: multiple choice, VideoInstruct, folders of frames."""

from __future__ import annotations

from mvl_assets.miniature.layouts.common import Layout

LAYOUTS: dict[str, Layout] = {}
