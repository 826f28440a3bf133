"""Pages, chats and tables from the web: WIT, M3IT, WildVision, links with captions, screenshots, tables with text."""

from __future__ import annotations

from mvl_assets.miniature.layouts.common import Layout

LAYOUTS: dict[str, Layout] = {}
