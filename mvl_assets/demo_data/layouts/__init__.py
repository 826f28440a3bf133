"""Writers of source folders: one per native format and published layout, by name.

The content of the rows is in `contents`, and which of them are invalid in `recipes`.
"""

from __future__ import annotations

from types import MappingProxyType

from mvl_assets.demo_data.layouts import archives, cauldron, coco, llava, questions, records, regions, videos, web
from mvl_assets.demo_data.layouts.common import SourceLayout

_LAYOUT_MODULES = (archives, cauldron, coco, llava, questions, records, regions, videos, web)
LAYOUTS: MappingProxyType[str, SourceLayout] = MappingProxyType(
    {name: layout for module in _LAYOUT_MODULES for name, layout in module.LAYOUTS.items()}
)
