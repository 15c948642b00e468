"""What only the C library offers."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36   # prctl(2)
# Parameters of mallopt(3). The value is glibc's default, but setting it stops its automatic growth.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_THRESHOLD_BYTES = 128 * 1024


def become_subreaper() -> None:
    """Become the parent of orphaned descendants, instead of init (prctl(2)).

    If the kernel refuses, the next start finds descendants that left their group.
    """
    _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def give_large_blocks_back() -> None:
    """Make glibc return large blocks to the system as soon as they are freed.

    By default it keeps up to twice the largest block that was ever freed, in the heap of each thread.
    """
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _THRESHOLD_BYTES)


def _libc() -> Any:
    # Imported late, when the standard descriptors are open: libffi keeps a file open and could take their numbers.
    return import_module("ctypes").CDLL(None)
