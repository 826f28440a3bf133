r"""Pictures that a source only links to, looked for in its folder `pictures/`. Nothing is fetched here.

Two layouts are known, and both may lie side by side:

    pictures/<sha256 of the URL, 64 hex digits>.jpg         (also .png, .webp, .gif, or no ending)
    pictures/00000.parquet  {url, key, status, ...}         img2dataset, one file for every shard, with the pictures in
    pictures/00000/000000012.jpg, or in pictures/00000.tar  its output format `files` or `webdataset`

`printf %s "$URL" | sha256sum` gives the first, `img2dataset --output_folder pictures` writes the second (checked
against img2dataset/writer.py and downloader.py of rom1504/img2dataset). Its shards are joined with the URLs in memory:
36 bytes a fetched picture, 23 MB for the 646,469 of WIT.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mvl_assets.errors import SourceError
from mvl_assets.readers import parquet_stream
from mvl_assets.readers.files import files_below, find, picture_at, relative
from mvl_assets.readers.json_stream import Item
from mvl_assets.readers.rows import RowError
from mvl_assets.readers.sample import Picture

FOLDER = "pictures"
ENDINGS = (".jpg", ".png", ".webp", ".gif", "")
"""img2dataset writes the first three."""

_KEY = re.compile(r"\w{1,24}")
_INDEX = np.dtype([("url", "u8"), ("shard", "u4"), ("key", "S24")])


def listings(source: str, root: Path, *patterns: str) -> list[Path]:
    """The source's own files: those that match and do not lie in `pictures/`. Raises `SourceError` without any."""
    inside = root / FOLDER
    found = [path for path in files_below(source, root, *patterns) if not path.is_relative_to(inside)]
    if not found:
        raise SourceError(source, f"no {' or '.join(patterns)} in {root} beside {FOLDER}/")
    return found


class Fetched:
    """The pictures below `root/pictures`, by URL."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._shards = sorted((root / FOLDER).glob("**/*.parquet"))
        parts = [_indexed(number, path) for number, path in enumerate(self._shards)]
        self._index = np.sort(np.concatenate(parts) if parts else np.empty(0, _INDEX), order="url")
        self._ending = ENDINGS[0]

    def picture(self, url: object) -> Picture:
        """The picture of a URL. Raises `RowError`: `no_url`, `missing_picture`, and what `picture_at` does else."""
        if not isinstance(url, str) or not url.strip():
            raise RowError("no_url", "the row names no picture")
        digest = hashlib.sha256(url.encode("utf-8", "surrogatepass"))
        for ending in ENDINGS:
            path = find(self._root, f"{FOLDER}/{digest.hexdigest()}{ending}", ("",))
            if path is not None:
                return Picture(url, path=path)
        shown = url[:300].encode("utf-8", "backslashreplace").decode()
        at = int(np.searchsorted(self._index["url"], _number(digest.digest())))
        if at == len(self._index) or self._index["url"][at] != _number(digest.digest()):
            raise RowError("missing_picture", f"{shown} was not fetched into {FOLDER}/")
        shard = relative(self._root, self._shards[self._index["shard"][at]].with_suffix(""))
        place = f"{shard}/{self._index['key'][at].decode()}"
        # A run of img2dataset writes one kind of file; asking for that first spares looking through archives.
        for ending in (self._ending, *ENDINGS):
            try:
                found = picture_at(self._root, place + ending, ("",))
            except RowError as error:
                if error.error != "missing_picture":
                    raise
            else:
                self._ending = ending
                return replace(found, name=url)
        raise RowError("missing_picture", f"{shown} was fetched as {place}, but is not there")


def _indexed(shard: int, path: Path) -> npt.NDArray[np.void]:
    """What a shard's table lists as fetched; a table that cannot be read lists nothing."""
    found: list[tuple[int, int, bytes]] = []
    for item in parquet_stream.rows(path, ("url", "key", "status"), batch_size=8192):
        row = item.value if isinstance(item, Item) else {}
        url, key = row.get("url"), str(row.get("key"))
        if row.get("status") == "success" and isinstance(url, str) and _KEY.fullmatch(key):
            found.append((_number(hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()), shard, key.encode()))
    return np.array(found, dtype=_INDEX)


def _number(digest: bytes) -> int:
    """64 bits of a digest: two of 646,469 URLs share them with a chance of one in 88 million."""
    return int.from_bytes(digest[:8], "big")
