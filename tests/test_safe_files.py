"""Files are read without waiting for anybody, and paths are shown on one line."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ductile import safe_files
from ductile.safe_files import NotRegular, TooLarge


def test_a_file_is_read_whole_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert [safe_files.read(tmp_path / name, 5) for name in ("file", "link")] == [b"12345", b"12345"]
    with pytest.raises(TooLarge):
        safe_files.read(tmp_path / "file", 4)


def test_a_file_that_tells_no_size_is_held_to_the_limit_too() -> None:
    with pytest.raises(TooLarge):
        safe_files.read(Path("/proc/self/environ"), 1)


def to_fifo(path: Path) -> None:
    os.mkfifo(path)


def to_endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [to_fifo, to_endless_device, Path.mkdir])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make) -> None:
    make(tmp_path / "it")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NotRegular):
        safe_files.read(tmp_path / "it", 1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_cannot_be_opened_keeps_its_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        safe_files.read(tmp_path / "none", 1)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match="No such device or address"):
            safe_files.read(tmp_path / "socket", 1)


@pytest.mark.parametrize(("name", "text"), [
    (b"a b", "a b"), (b"a\nb\x1b[31m", "a\\nb\\x1b[31m"), (b"caf\xc3\xa9", "café"), (b"caf\xe9", "caf\\xe9"),
])
def test_a_path_is_shown_on_one_line(name: bytes, text: str) -> None:
    assert safe_files.printable(Path("/x") / os.fsdecode(name)) == f"/x/{text}"


@pytest.mark.parametrize(("error", "text"), [
    (FileNotFoundError(2, "No such file or directory"), "expected a directory that exists, got /a\\nb"),
    (PermissionError(13, "Permission denied"),
     "expected a directory that the daemon's user can read, got /a\\nb: Permission denied"),
    (NotADirectoryError(20, "Not a directory"), "expected a directory, got /a\\nb: Not a directory"),
])
def test_why_a_directory_cannot_be_listed_is_one_line_that_says_what_is_expected(error: OSError, text: str) -> None:
    assert safe_files.why_not_listed(Path("/a\nb"), error) == text
