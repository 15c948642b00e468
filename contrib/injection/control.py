"""The shim that injects a fault, built from `inject.c`, and the file through which it is told what to do."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).with_name("inject.c")
_CONTROL_VARIABLE = "DUCTILE_FAULTS_CONTROL"
# As `struct control` in inject.c.
_FIELDS = struct.Struct("=IIIiIIII480s3584s")
_ARMED = struct.Struct("=I")
_WRITE, _SYNC, _CREATE, _OPEN, _RENAME, _LINK, _UNLINK, _MKDIR, _TRUNCATE = (1 << bit for bit in range(9))
_CHANGES = _WRITE | _SYNC | _CREATE | _RENAME | _LINK | _UNLINK | _MKDIR | _TRUNCATE
_KILL, _FAIL_ONCE, _FAIL_ON = 1, 2, 3


class MissingTool(Exception):
    """What is needed and not installed; the text says how to get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens at the chosen call, and which calls count."""

    name: str
    meaning: str
    calls: int
    action: int
    error: int = 0

    @property
    def kills(self) -> bool:
        return self.action == _KILL

    @property
    def lasts(self) -> bool:
        return self.action == _FAIL_ON


FAULTS = {fault.name: fault for fault in (
    Fault(name="kill", meaning="SIGKILL in the call; a write has written half", calls=_CHANGES, action=_KILL),
    Fault(name="eio", meaning="the call fails once with EIO", calls=_CHANGES, action=_FAIL_ONCE, error=errno.EIO),
    Fault(name="full", meaning="from this call on the disk is full, for a while",
          calls=_WRITE | _CREATE | _RENAME | _LINK | _MKDIR, action=_FAIL_ON, error=errno.ENOSPC),
    Fault(name="emfile", meaning="the open fails once with EMFILE", calls=_OPEN, action=_FAIL_ONCE,
          error=errno.EMFILE),
)}


def build(directory: Path) -> Path:
    """Return the shim, built in a directory. Raises MissingTool."""
    if shutil.which("cc") is None:
        raise MissingTool("no C compiler: install cc (Debian: apt install gcc libc6-dev)")
    library = directory / "inject.so"
    done = subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, _SOURCE], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise MissingTool(f"cc cannot build {_SOURCE.name}: {done.stderr.strip().splitlines()[0]}")
    return library


class Control:
    """One program's shim: which calls count, at which it strikes, and what it has met."""

    def __init__(self, file: Path, library: Path, root: Path, fault: Fault, target: int) -> None:
        """`target` is the number of the call, from 1; 0 strikes nowhere and counts."""
        fields = (0, fault.calls, fault.action, fault.error, target, 0, 0, 0, b"", os.fsencode(root))
        file.write_bytes(_FIELDS.pack(*fields))
        self.environ = {"LD_PRELOAD": os.fspath(library), _CONTROL_VARIABLE: os.fspath(file)}
        with open(file, "r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), _FIELDS.size)

    def arm(self) -> None:
        """Count from the next call on."""
        _ARMED.pack_into(self._map, 0, 1)

    def disarm(self) -> None:
        """Count no more; a fault that lasts is over."""
        _ARMED.pack_into(self._map, 0, 0)

    @property
    def counted(self) -> int:
        return _FIELDS.unpack_from(self._map)[5]

    @property
    def is_met(self) -> bool:
        return _FIELDS.unpack_from(self._map)[6] > 0

    @property
    def met(self) -> str:
        """The call that was struck, and its file."""
        return _FIELDS.unpack_from(self._map)[8].rstrip(b"\0").decode("utf-8", "replace")

    def close(self) -> None:
        self._map.close()
