"""PDQ hashes in SQL: images whose hashes share a band of bits may be copies, which a join finds.

A hash of 256 bits is four columns `h0` to `h3` of 64. Two hashes that differ in few bits have one of 16 bands in common
in most cases; see `benchmarks/curation.py` for what is found.
"""

from __future__ import annotations

N_BANDS = 16
"""Bands of 16 bits in a PDQ hash, and numbers in a sketch."""

MAX_PDQ_DISTANCE = 48
"""Bits in which hashes of images that are compared differ at most. Planted copies differ by up to 40; two images that
have nothing in common by 80 or more."""

MIN_PDQ_QUALITY = 20
"""Images with less structure are blank, or nearly: their hashes mean nothing."""

MAX_NEIGHBOURS = 16
"""An image, or a text, is compared with the closest."""

MAX_BUCKET_IMAGES = 256
"""What shares a band with more images is compared with the first of them alone."""

HASH_WORDS = ", ".join(f"('0x' || substr(hash, {16 * n + 1}, 16))::UBIGINT AS h{n}" for n in range(4))
"""The four columns of a column `hash` of hexadecimal digits."""

PDQ_DISTANCE = " + ".join(f"bit_count(xor(a.h{n}, b.h{n}))::SMALLINT" for n in range(4))
"""Bits in which the hashes of the rows `a` and `b` differ."""


def format_band_key(nth: int) -> str:
    """Return the expression of one band of the row's hash."""
    return f"((h{nth // 4} >> {48 - 16 * (nth % 4)}) & 65535)::USMALLINT"
