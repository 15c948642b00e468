"""A pair of FIFOs between a test and a plugin that waits: it says that it has come, and waits to be let through."""

from __future__ import annotations

import os
import select
from pathlib import Path

_SECONDS = 60.0


def line_from(fifo: Path) -> str:
    """Return the line that a program writes into a FIFO. Raises TimeoutError if none comes."""
    # For both ways, so that it opens at once, whether the program has come so far or not.
    end = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        read = b""
        while not read.endswith(b"\n"):
            if not select.select([end], [], [], _SECONDS)[0]:
                raise TimeoutError(f"nothing was written into {fifo} within {_SECONDS} s")
            read += os.read(end, 4096)
        return read.decode()
    finally:
        os.close(end)


class Gate:
    """`config` is what the plugin has to be given. Both ends are held open, so that neither side blocks on opening."""

    def __init__(self, directory: Path) -> None:
        self.config = {"arrived": os.fspath(directory / "arrived"), "go": os.fspath(directory / "go")}
        for path in self.config.values():
            os.mkfifo(path)
            os.chmod(path, 0o666)
        self._arrived = os.open(self.config["arrived"], os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._go = os.open(self.config["go"], os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._read = b""

    def arrived(self) -> list[int]:
        """Wait for a plugin to come, and return the PIDs that it tells."""
        while b"\n" not in self._read:
            if not select.select([self._arrived], [], [], _SECONDS)[0]:
                raise TimeoutError(f"no plugin has come within {_SECONDS} s")
            self._read += os.read(self._arrived, 4096)
        line, _, self._read = self._read.partition(b"\n")
        return [int(word) for word in line.split()]

    def is_empty(self) -> bool:
        """Say whether nobody has come that was not seen yet."""
        return not self._read and not select.select([self._arrived], [], [], 0)[0]

    def let_through(self) -> None:
        """Let one plugin go on."""
        os.write(self._go, b"go\n")

    def turn_away(self) -> None:
        """Have one plugin fail that looks at what it is told."""
        os.write(self._go, b"fail\n")

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self._arrived)
        os.close(self._go)
