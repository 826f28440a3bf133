"""Cuts rows into shards near a size, and names them by their place, their number and the digest of their content.

A shard that is there under its name is right. So an export that was killed goes on where it stopped, one of a changed
mixture writes what changed, and equal rows in equal form have equal names on any machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mvl_assets.common.digest import RunningDigest
from mvl_assets.lake_queries.row_addresses import AddressBook, RowAddresses

PART_ROWS = 256
"""Rows of a part of the address book: a shard is a run of whole parts."""

SHARD_BYTES = 1_000_000_000
SHARD_ROWS = 65_536
"""A shard ends before the part that would take it over one of these, unless it would be empty."""

_CONTENT_COLUMNS = (
    "row_id",
    "version_id",
    "rewrite_hash",
    "judged_hash",
    "license",
    "category",
    "content_score",
    "relevance_score",
    "scores",
)


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard.

    Attributes:
        name: Name of its files without folder and ending, such as `train-00003-of-00012-0a1b2c3d4e5f6071`.
        n_rows: Its rows.
        n_images: Its images, each counted once for every part of the shard that shows it.
        n_image_bytes: Their bytes in the lake.
    """

    name: str
    n_rows: int
    n_images: int
    n_image_bytes: int


def iter_shards(
    book: AddressBook, form: Sequence[object], shard_bytes: int = SHARD_BYTES
) -> Iterator[tuple[Shard, RowAddresses]]:
    """Yield each shard with the addresses of its rows.

    Args:
        book: The rows, in parts of `PART_ROWS`.
        form: What else decides the bytes of a file: format, version of the layout, form of the images.
        shard_bytes: Bytes of images in a shard.
    """
    sizes = book.measure_parts()
    bounds = list(iter_shard_bounds(sizes, shard_bytes))
    for number, (start, stop) in enumerate(bounds):
        addresses = book.read(start, stop)
        digest = RunningDigest()
        digest.add(list(form))
        for name in _CONTENT_COLUMNS:
            digest.add(addresses.rows.column(name).to_pylist())
        shard_name = f"train-{number:05d}-of-{len(bounds):05d}-{digest.to_hex()[:16]}"
        yield Shard(shard_name, len(addresses.rows), len(addresses.images), sum(sizes[start:stop])), addresses


def iter_shard_bounds(sizes: Sequence[int], shard_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield first part and part after the last of each shard.

    Args:
        sizes: Bytes of each part.
        shard_bytes: Bytes of a shard.
    """
    start, n_bytes = 0, 0
    for part, size in enumerate(sizes):
        is_full = n_bytes + size > shard_bytes or (part - start + 1) * PART_ROWS > SHARD_ROWS
        if part > start and is_full:
            yield start, part
            start, n_bytes = part, 0
        n_bytes += size
    if sizes:
        yield start, len(sizes)
