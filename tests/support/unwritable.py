"""Descriptors that take nothing, and the two ways in which Python writes to one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

KINDS = ("full", "closed pipe", "for reading")
# Python writes at the end of a line, or at once.
BUFFERINGS = ({}, {"PYTHONUNBUFFERED": "1"})


@contextmanager
def unwritable(kind: str) -> Iterator[int]:
    """A descriptor on a full device, on a pipe that nobody reads, or one that is for reading."""
    if kind == "full":
        fd = os.open("/dev/full", os.O_WRONLY)
    elif kind == "closed pipe":
        reader, fd = os.pipe()
        os.close(reader)
    else:
        fd = os.open(os.devnull, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)
