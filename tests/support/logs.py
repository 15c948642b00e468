"""What the daemon logs, as a test reads it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ductile import log


@contextmanager
def as_it_was() -> Iterator[None]:
    """Put back what the block does to the log, which is one for the whole process."""
    root = logging.getLogger("ductile")
    before = list(root.handlers), root.level, root.propagate, logging.raiseExceptions
    try:
        yield
    finally:
        for handler in root.handlers:
            if handler not in before[0]:
                handler.close()
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        root.propagate, logging.raiseExceptions = before[2:]


@contextmanager
def kept(directory: Path) -> Iterator[Path]:
    """Keep the log of the block, from DEBUG upwards, in a file."""
    with as_it_was():
        log.set_up(directory / "ductile.log", "debug")
        yield directory / "ductile.log"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def messages(path: Path) -> list[str]:
    return [line["message"] for line in lines(path)]


def said(path: Path) -> list[str]:
    """Level and message of each line."""
    return [f"{line['level']} {line['message']}" for line in lines(path)]
