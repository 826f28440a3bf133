"""The C library's allocator, told to keep what it has.

Belongs here: settings of memory on a CPU. Does not: memory on a GPU, which torch keeps by itself.
"""

from __future__ import annotations

import ctypes
import sys

# malloc.h of glibc
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MAX_TRIM_THRESHOLD = (1 << 31) - 1
MMAP_THRESHOLDS = (1 << 30, 1 << 25)  # older versions of glibc take 32 MiB at most


def retain_freed_blocks() -> None:
    """Tensors that are freed stay with this process, for the next of that size.

    By default glibc gives large blocks back to the kernel at once, and every step faults all its activations and
    gradients in again, page by page: a fifth of a small model's step. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    mallopt(M_TRIM_THRESHOLD, MAX_TRIM_THRESHOLD)
    for threshold in MMAP_THRESHOLDS:
        if mallopt(M_MMAP_THRESHOLD, threshold):
            return
