"""The pictures: content-addressed, stored once with their original bytes, only ever added to.

Never compacted: Lance would rewrite every byte of every picture.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import lance
import numpy as np
import pyarrow as pa

from mvl_assets.lake.schema import IMAGES, ImageRow
from mvl_assets.lake.table import Table

_META = ("image_id", "size", "format", "width", "height", "frames", "mode", "phash")


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What is known of a picture without its bytes; sides in pixels as stored (before an EXIF turn)."""

    image_id: str
    size: int
    format: str
    width: int
    height: int
    frames: int
    mode: str
    phash: str | None


class ImageStore:
    """Find, add and fetch pictures by id. Ids are looked up in a sorted array of 24 bytes a picture."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._version = -1
        self._ids = np.empty(0, dtype="S16")
        self._offsets = np.empty(0, dtype=np.int64)

    def missing(self, ids: Iterable[str]) -> set[str]:
        """Those of `ids` that are not stored yet."""
        wanted = set(ids)
        return wanted - set(self._locate(wanted))

    def insert(self, rows: Sequence[ImageRow]) -> int:
        """Adds pictures that are not there yet, in one commit; returns how many. Callers bound the batch in bytes."""
        if not rows:
            return 0
        columns = {
            "image_id": pa.array([r.image_id for r in rows], pa.string()),
            "bytes": lance.blob_array([r.data for r in rows]),
            "size": pa.array([len(r.data) for r in rows], pa.int64()),
            "format": pa.array([r.format for r in rows], pa.string()),
            "width": pa.array([r.width for r in rows], pa.int32()),
            "height": pa.array([r.height for r in rows], pa.int32()),
            "frames": pa.array([r.frames for r in rows], pa.int32()),
            "mode": pa.array([r.mode for r in rows], pa.string()),
            "phash": pa.array([r.phash for r in rows], pa.string()),
        }
        return self.table.insert(pa.table(columns, schema=IMAGES.schema))

    def fetch(self, ids: Collection[str]) -> dict[str, bytes]:
        """The original bytes of each picture. Raises `KeyError` with the first id that is not stored."""
        places = self._locate(set(ids))
        for image_id in ids:
            if image_id not in places:
                raise KeyError(image_id)
        if not places:
            return {}
        names = list(places)
        blobs = self.table.open().read_blobs("bytes", indices=[places[n] for n in names], preserve_order=True)
        return {n: data or b"" for n, (_, data) in zip(names, blobs, strict=True)}

    def describe(self, ids: Collection[str]) -> dict[str, ImageInfo]:
        """Size and kind of each stored picture; ids that are not stored are left out."""
        places = self._locate(set(ids))
        if not places:
            return {}
        rows = self.table.open().take(list(places.values()), columns=list(_META)).to_pylist()
        return {r["image_id"]: ImageInfo(**r) for r in rows}

    def _locate(self, ids: set[str]) -> dict[str, int]:
        """Offset in the table by id, for the ids that are stored."""
        self._refresh()
        if not ids or not len(self._ids):
            return {}
        names = list(ids)
        keys = np.array([bytes.fromhex(n) for n in names], dtype="S16")
        spots = np.minimum(np.searchsorted(self._ids, keys), len(self._ids) - 1)
        found = self._ids[spots] == keys
        return {n: int(self._offsets[s]) for n, s, ok in zip(names, spots, found, strict=True) if ok}

    def _refresh(self) -> None:
        version = self.table.version
        if version == self._version:
            return
        parts = [
            np.array([bytes.fromhex(i) for i in batch.column(0).to_pylist()], dtype="S16")
            for batch in self.table.scan(["image_id"], batch_size=65536)
        ]
        ids = np.concatenate(parts) if parts else np.empty(0, dtype="S16")
        self._offsets = np.argsort(ids)
        self._ids = ids[self._offsets]
        self._version = version
