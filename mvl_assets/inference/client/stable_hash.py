"""A hash that is the same in every process."""

from __future__ import annotations

import hashlib


def compute_stable_hash(text: str) -> int:
    """Return 64 bits that are the same in every process, which Python's own hash of a text is not."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")
