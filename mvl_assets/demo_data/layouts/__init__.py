"""Rows to folders: one writer per native format, in the layout in which the format is published, by its name.

Not here: what the rows say (`contents`), which of them are broken (`recipes`).
"""

from __future__ import annotations

from types import MappingProxyType

from mvl_assets.demo_data.layouts import archives, cauldron, coco, llava, questions, records, regions, videos, web
from mvl_assets.demo_data.layouts.common import SourceLayout

_LAYOUT_MODULES = (archives, cauldron, coco, llava, questions, records, regions, videos, web)
LAYOUTS: MappingProxyType[str, SourceLayout] = MappingProxyType(
    {name: layout for module in _LAYOUT_MODULES for name, layout in module.LAYOUTS.items()}
)
