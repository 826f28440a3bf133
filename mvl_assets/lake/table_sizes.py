"""Which tables a lake holds, and how many bytes each takes on disk. One listing of all files, nothing is opened."""

from __future__ import annotations

import pyarrow.fs as pafs

from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schema import spec_of

END = ".lance"


def inventory(lake: Lake) -> dict[str, int]:
    """Bytes by table name, such as `images`, `rewritten/ocr` or `answers/judge/chartqa`, sorted by name.

    Folders that are called like a table and are none of this lake's are left out.
    """
    filesystem, root = (
        pafs.FileSystem.from_uri(lake.root) if "://" in lake.root else (pafs.LocalFileSystem(), lake.root)
    )
    found: dict[str, int] = {}
    for info in filesystem.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True)):
        inside = info.path.removeprefix(root).lstrip("/")
        name, end, _ = inside.partition(f"{END}/")
        if end:
            found[name] = found.get(name, 0) + (info.size or 0)
    return {name: size for name, size in sorted(found.items()) if _is_ours(name)}


def _is_ours(name: str) -> bool:
    try:
        spec_of(name)
    except KeyError:
        return False
    return True
