"""Large payloads as files in a directory that all machines share: Temporal refuses those over 2 MB."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

_ENCODING = b"ductile/file"
# A history of them must stay below 50 MB, a message to the server below 4 MB.
_LARGE_BYTES = 64 * 1024


class FileCodec(PayloadCodec):
    """Keeps a large payload in a file named by its digest. Writing it again renews the file's time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._store(each) if each.ByteSize() > _LARGE_BYTES else each for each in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._read(each) if each.metadata.get("encoding") == _ENCODING else each for each in payloads]

    def _store(self, payload: Payload) -> Payload:
        data = payload.SerializeToString()
        name = hashlib.sha256(data).hexdigest()
        path = self._directory / name
        try:
            os.utime(path)
        except FileNotFoundError:
            self._write(path, data)
        return Payload(metadata={"encoding": _ENCODING}, data=name.encode())

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file whole and to the disk, before Temporal hears of it."""
        with tempfile.NamedTemporaryFile(dir=self._directory, prefix=".", delete=False) as part:
            part.write(data)
            part.flush()
            os.fsync(part.fileno())
        os.rename(part.name, path)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _read(self, payload: Payload) -> Payload:
        return Payload.FromString((self._directory / payload.data.decode()).read_bytes())
