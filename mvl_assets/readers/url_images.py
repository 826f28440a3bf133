r"""Images that a source only links to, looked for in its folder `pictures/`. Nothing is fetched here.

Two layouts are known, and both may be there:

    pictures/<sha256 of the URL, 64 hex digits>.jpg         (also .png, .webp, .gif, or no ending)
    pictures/00000.parquet  {url, key, status, ...}         img2dataset, one file for every shard, with the pictures in
    pictures/00000/000000012.jpg, or in pictures/00000.tar  its output format `files` or `webdataset`

`printf %s "$URL" | sha256sum` gives the first, `img2dataset --output_folder pictures` writes the second (checked
against img2dataset/writer.py and downloader.py of rom1504/img2dataset). Its shards are joined with the URLs in memory:
36 bytes per fetched image, 23 MB for the 646,469 of WIT.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mvl_assets.common.rejects import RejectError
from mvl_assets.errors import SourceError
from mvl_assets.readers.files import format_relative_path, list_data_files, resolve_file, resolve_image
from mvl_assets.readers.parsers import parquet_stream
from mvl_assets.readers.parsers.json_stream import Item
from mvl_assets.readers.sample import EncodedImage

IMAGE_FOLDER = "pictures"
IMAGE_SUFFIXES = (".jpg", ".png", ".webp", ".gif", "")
"""img2dataset writes the first three."""

_SHARD_KEY = re.compile(r"\w{1,24}")
_INDEX_DTYPE = np.dtype([("url", "u8"), ("shard", "u4"), ("key", "S24")])


def list_url_tables(source: str, root: Path, *patterns: str) -> list[Path]:
    """Return the source's own files: those that match and are not in `pictures/`.

    Raises:
        SourceError: There is none.
    """
    image_dir = root / IMAGE_FOLDER
    paths = [path for path in list_data_files(source, root, *patterns) if not path.is_relative_to(image_dir)]
    if not paths:
        raise SourceError(source, f"no {' or '.join(patterns)} in {root} outside {IMAGE_FOLDER}/")
    return paths


class UrlImageIndex:
    """The images below `root/pictures`, by URL."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._shards = sorted((root / IMAGE_FOLDER).glob("**/*.parquet"))
        shard_indexes = [_index_shard(shard_number, path) for shard_number, path in enumerate(self._shards)]
        self._index = np.sort(
            np.concatenate(shard_indexes) if shard_indexes else np.empty(0, _INDEX_DTYPE), order="url"
        )
        self._suffix = IMAGE_SUFFIXES[0]

    def resolve_image_url(self, url: object) -> EncodedImage:
        """Return the image of a URL. Raises `RejectError`: `no_url`, `missing_image`, and as `resolve_image`."""
        if not isinstance(url, str) or not url.strip():
            raise RejectError("no_url", "the row names no image")
        digest = hashlib.sha256(url.encode("utf-8", "surrogatepass"))
        for suffix in IMAGE_SUFFIXES:
            path = resolve_file(self._root, f"{IMAGE_FOLDER}/{digest.hexdigest()}{suffix}", ("",))
            if path is not None:
                return EncodedImage(url, path=path)
        url_text = url[:300].encode("utf-8", "backslashreplace").decode()
        index_position = int(np.searchsorted(self._index["url"], _to_url_hash(digest.digest())))
        if index_position == len(self._index) or self._index["url"][index_position] != _to_url_hash(digest.digest()):
            raise RejectError("missing_image", f"{url_text} was not fetched into {IMAGE_FOLDER}/")
        shard = format_relative_path(self._root, self._shards[self._index["shard"][index_position]].with_suffix(""))
        image_stem = f"{shard}/{self._index['key'][index_position].decode()}"
        # A run of img2dataset writes one kind of file; asking for that first spares looking through archives.
        for suffix in (self._suffix, *IMAGE_SUFFIXES):
            try:
                image = resolve_image(self._root, image_stem + suffix, ("",))
            except RejectError as error:
                if error.code != "missing_image":
                    raise
            else:
                self._suffix = suffix
                return replace(image, name=url)
        raise RejectError("missing_image", f"{url_text} was fetched as {image_stem}, but is not there")


def _index_shard(shard_number: int, path: Path) -> npt.NDArray[np.void]:
    """Return the images that a shard's table lists as fetched; none for a table that cannot be read."""
    index_rows: list[tuple[int, int, bytes]] = []
    for item in parquet_stream.iter_rows(path, ("url", "key", "status"), batch_size=8192):
        row = item.value if isinstance(item, Item) else {}
        url, key = row.get("url"), str(row.get("key"))
        if row.get("status") == "success" and isinstance(url, str) and _SHARD_KEY.fullmatch(key):
            index_rows.append(
                (
                    _to_url_hash(hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()),
                    shard_number,
                    key.encode(),
                )
            )
    return np.array(index_rows, dtype=_INDEX_DTYPE)


def _to_url_hash(digest: bytes) -> int:
    """Return 64 bits of a digest: two of 646,469 URLs share them with a chance of one in 88 million."""
    return int.from_bytes(digest[:8], "big")
