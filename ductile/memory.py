"""Returns freed memory to the system."""

from __future__ import annotations

import ctypes

# Parameters of mallopt(3). The value is glibc's default, but setting it stops its automatic growth.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_THRESHOLD_BYTES = 128 * 1024


def give_large_blocks_back() -> None:
    """Make glibc return large blocks to the system as soon as they are freed.

    By default it keeps up to twice the largest block that was ever freed, in the heap of each thread.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _THRESHOLD_BYTES)
