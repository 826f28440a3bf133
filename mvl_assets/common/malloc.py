"""Settings of glibc's allocator. With another C library both functions do nothing."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

# malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

RELEASE_THRESHOLD_BYTES = 128 << 10
MAX_TRIM_THRESHOLD_BYTES = (1 << 31) - 1
RETAIN_MMAP_THRESHOLDS_BYTES = (1 << 30, 1 << 25)  # older versions of glibc accept 32 MiB at most


@cache
def release_freed_blocks() -> None:
    """Return large blocks to the kernel when they are freed, in this process from now on.

    By default glibc raises the threshold for this to the size of the largest block freed so far, up to 32 MB, so that
    memory which a compaction needed only briefly stays with the process.
    """
    _set_option(_M_MMAP_THRESHOLD, RELEASE_THRESHOLD_BYTES)
    _set_option(_M_TRIM_THRESHOLD, RELEASE_THRESHOLD_BYTES)


def retain_freed_blocks() -> None:
    """Keep freed blocks in this process, so that the next tensor of that size can use them.

    By default glibc returns large blocks to the kernel at once, and every training step faults all its activations and
    gradients in again, page by page: a fifth of a small model's step.
    """
    _set_option(_M_TRIM_THRESHOLD, MAX_TRIM_THRESHOLD_BYTES)
    for threshold in RETAIN_MMAP_THRESHOLDS_BYTES:
        if _set_option(_M_MMAP_THRESHOLD, threshold):
            return


def _set_option(option: int, value: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(option, value))
