"""Which file system a directory is on, to keep the database off networks."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

# File systems whose locks or shared memory do not reach other machines, or not reliably (sqlite.org/wal.html).
_NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.ceph", "fuse.davfs", "fuse.glusterfs", "fuse.rclone",
    "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb2",
    "smb3", "smbfs",
}


def network_file_system(directory: Path, mountinfo: Path = MOUNTINFO) -> str | None:
    """Return the type of the network file system that `directory` is on, or None for a local one.

    `mountinfo` is in the form of proc(5). Where it cannot be read the answer is None.
    """
    try:
        table = mountinfo.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    kind = _type_of(Path(directory).resolve(), table)
    return kind if kind in _NETWORK else None


def _type_of(directory: Path, table: str) -> str | None:
    """Return the type of the innermost mount above `directory`; of two on one place the later."""
    best, kind = -1, None
    for line in table.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split()
        if not separator or len(fields) < 5:
            continue
        place = Path(_unescape(fields[4]))
        if directory.is_relative_to(place) and len(place.parts) >= best:
            best, kind = len(place.parts), after.split()[0]
    return kind


def _unescape(text: str) -> str:
    r"""Undo mountinfo's octal escapes: a space is written `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
