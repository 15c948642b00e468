"""What the daemon logs, as a test reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ductile import log


@contextmanager
def as_it_was() -> Iterator[None]:
    """End what the block does to the log, which is one for the whole process and goes nowhere outside.

    Lines that were logged before and had nowhere to go are dropped first.
    """
    log.close()
    try:
        yield
    finally:
        log.close()


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
