"""Keeping a process that writes for days as small as its work.

Belongs here: the two things that made it grow without anybody holding anything, Lance's caches and glibc's free lists.
"""

from __future__ import annotations

import ctypes
from functools import cache

import lance

# A table of answers is read by its key column alone; one version's manifest takes tens of kilobytes.
CACHE_BYTES = 4 << 20
MMAP_THRESHOLD_BYTES = 128 << 10
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def create_small_session() -> lance.Session:
    """Caches for one table that is committed to every second. Lance's default keeps what a thousand versions held."""
    return lance.Session(metadata_cache_size_bytes=CACHE_BYTES, index_cache_size_bytes=CACHE_BYTES)


@cache
def release_freed_blocks() -> None:
    """Has glibc return large blocks when they are freed. Once per process; nothing happens with another C library.

    By default it raises the size above which it does so to that of the largest block freed yet, up to 32 MB, and what a
    compaction needed for a moment stays with the process.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    mallopt(_M_TRIM_THRESHOLD, MMAP_THRESHOLD_BYTES)
