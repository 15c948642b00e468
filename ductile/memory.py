"""What the C library keeps of the memory that was freed."""

from __future__ import annotations

import ctypes

# The parameters of mallopt(3), with glibc's own defaults as values: to set them stops their growth.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_THRESHOLD_BYTES = 128 * 1024


def give_large_blocks_back() -> None:
    """Have what is large returned to the system as soon as it is freed, where the C library is glibc.

    By its own choice glibc keeps up to twice the largest block that was ever freed, in each thread's heap.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _THRESHOLD_BYTES)
