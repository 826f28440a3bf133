"""The tables of a lake and their bytes on disk, from one listing of files."""

from __future__ import annotations

import pyarrow.fs as pafs

from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.tables import get_table_spec
from mvl_assets.lake.storage import open_filesystem

TABLE_SUFFIX = ".lance"


def measure_table_sizes(lake: Lake) -> dict[str, int]:
    """Return bytes by table name, such as `images`, `rewritten/ocr` or `answers/judged/chartqa`, sorted by name.

    Tables that are not this program's are left out.
    """
    filesystem, root = open_filesystem(lake.root)
    bytes_by_table: dict[str, int] = {}
    for file_info in filesystem.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True)):
        relative_path = file_info.path.removeprefix(root).lstrip("/")
        name, separator, _ = relative_path.partition(f"{TABLE_SUFFIX}/")
        if separator:
            bytes_by_table[name] = bytes_by_table.get(name, 0) + (file_info.size or 0)
    return {name: size for name, size in sorted(bytes_by_table.items()) if _is_known_table(name)}


def _is_known_table(name: str) -> bool:
    try:
        get_table_spec(name)
    except KeyError:
        return False
    return True
