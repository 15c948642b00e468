from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ductile.errors import DuctileError
from ductile.workspace import Workspaces
from support.launch import descriptors, in_a_child, writable_by_all

JOB = "0f5a2c1e-7f7a-4a53-9d0c-3a1c8c8d2b11"
OTHER = "0f5a2c1e-7f7a-4a53-9d0c-3a1c8c8d2b12"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "ws"


@pytest.fixture
def workspaces(root: Path) -> Iterator[Workspaces]:
    made = Workspaces(root)
    made.make_root()
    before = descriptors()
    yield made
    assert descriptors() == before


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def a_deep_tree(path: Path, levels: int) -> None:
    """Make directories below one another, deeper than any path may be long."""
    path.mkdir()
    fd = os.open(path, os.O_RDONLY)
    for level in range(levels):
        os.mkdir("d", dir_fd=fd)
        if level % 1000 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def test_the_root_and_a_jobs_directory_are_for_their_owner_alone(root: Path, workspaces: Workspaces) -> None:
    path = workspaces.create(JOB)
    assert path == root / JOB
    assert (mode(root), mode(path), os.listdir(path)) == (0o700, 0o700, [])


def test_a_root_is_made_with_all_above_it_and_left_as_it_is_where_it_stands(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "ws"
    Workspaces(deep).make_root()
    deep.chmod(0o750)
    (deep / "file").touch()
    Workspaces(deep).make_root()
    assert (mode(deep), os.listdir(deep)) == (0o750, ["file"])


def test_a_root_that_cannot_be_made_is_said_in_one_line(root: Path) -> None:
    root.write_text("")
    with pytest.raises(DuctileError) as caught:
        Workspaces(root).make_root()
    assert caught.value.lines == (f"cannot make the workspace directory {root}: File exists",)
    assert caught.value.exit_code == 71


def test_a_root_that_an_ordinary_user_may_not_write_is_said_in_one_line() -> None:
    with writable_by_all() as directory:
        root = directory / "ws"
        root.mkdir(mode=0o555)
        assert in_a_child(refusal, root, ordinary=True) == (
            (f"the workspace directory {root} is not writable by this user; "
             f"change its owner or set workspace.path",), 71)


def refusal(root: Path) -> tuple[tuple[str, ...], int]:
    with pytest.raises(DuctileError) as caught:
        Workspaces(root).make_root()
    return caught.value.lines, caught.value.exit_code


def test_the_path_of_a_workspace_has_no_link_in_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    workspaces = Workspaces(tmp_path / "link")
    assert workspaces.create(JOB) == tmp_path.resolve() / "real" / JOB
    workspaces.discard(JOB)
    assert os.listdir(tmp_path / "real") == []


def test_a_new_attempt_finds_nothing_of_the_last_one(workspaces: Workspaces) -> None:
    path = workspaces.create(JOB)
    (path / "half").mkdir()
    (path / "half" / "made").write_text("x")
    assert os.listdir(workspaces.create(JOB)) == []


@pytest.mark.parametrize("in_its_place", ["a file", "a link to a directory", "a dangling link", "a fifo", "a socket"])
@pytest.mark.parametrize("operation", ["create", "discard"])
def test_what_stands_in_a_directorys_place_is_removed_and_not_followed(
    tmp_path: Path, root: Path, workspaces: Workspaces, operation: str, in_its_place: str,
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    place = root / JOB
    with socket.socket(socket.AF_UNIX) as listener:
        match in_its_place:
            case "a file":
                place.write_text("x")
            case "a link to a directory":
                place.symlink_to(outside)
            case "a dangling link":
                place.symlink_to(tmp_path / "nowhere")
            case "a fifo":
                os.mkfifo(place)
            case "a socket":
                bind(listener, place)
        getattr(workspaces, operation)(JOB)
    assert os.listdir(root) == ([JOB] if operation == "create" else [])
    assert os.listdir(outside) == ["kept"]
    assert operation == "discard" or place.is_dir()


def bind(listener: socket.socket, path: Path) -> None:
    """Bind by way of a descriptor: the path may be longer than a socket's address."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{fd}/{path.name}")
    finally:
        os.close(fd)


def test_everything_in_a_workspace_goes_and_nothing_outside(
    tmp_path: Path, root: Path, workspaces: Workspaces,
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    outside.chmod(0o500)
    path = workspaces.create(JOB)
    for place in (path, path / "below"):
        place.mkdir(exist_ok=True)
        (place / "dir").mkdir()
        (place / "file").write_text("x")
        (place / "read-only").touch(mode=0o000)
        (place / "out").symlink_to(outside)
        (place / "up").symlink_to("../..")
        (place / "itself").symlink_to("itself")
        os.mkfifo(place / "fifo")
        os.link(outside / "kept", place / "linked")
        Path(os.fsdecode(os.fsencode(place) + b"/\xff\xfe\n*")).mkdir()
        (place / ("n" * 255)).touch()
    workspaces.discard(JOB)
    assert os.listdir(root) == []
    assert (os.listdir(outside), (outside / "kept").read_text(), mode(outside)) == (["kept"], "x", 0o500)


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A directory in memory, where there is such a place: a disk that others keep busy takes seconds for so much."""
    directory = Path(tempfile.mkdtemp(prefix="ductile-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    yield directory
    subprocess.run(["rm", "-rf", "--", directory], check=True, timeout=60)


def test_a_tree_of_five_thousand_levels_goes(in_memory: Path) -> None:
    a_deep_tree(in_memory / JOB, 5000)
    Workspaces(in_memory).discard(JOB)
    assert os.listdir(in_memory) == []


def test_a_directory_of_many_files_goes(in_memory: Path) -> None:
    workspaces = Workspaces(in_memory)
    path = workspaces.create(JOB)
    for number in range(3000):
        (path / f"{number}").touch()
    workspaces.discard(JOB)
    assert os.listdir(in_memory) == []


def test_an_ordinary_user_removes_what_it_has_closed_to_itself() -> None:
    with writable_by_all() as directory:
        assert in_a_child(remove_closed_directories, directory, ordinary=True) == ([], [], 0o000)


def remove_closed_directories(directory: Path) -> tuple[list[str], list[str], int]:
    root = directory / "ws"
    workspaces = Workspaces(root)
    workspaces.make_root()
    outside = directory / "outside"
    outside.mkdir()
    left = []
    for closed in (0o000, 0o400, 0o500, 0o200, 0o100):
        path = workspaces.create(JOB)
        for place in (path / "a" / "b", path / "c", path / "empty"):
            place.mkdir(parents=True)
        (path / "a" / "b" / "file").touch(mode=0o000)
        (path / "out").symlink_to(outside)
        outside.chmod(0o000)
        for place in (path / "a" / "b", path / "a", path / "c", path / "empty", path):
            place.chmod(closed)
        workspaces.create(JOB)
        left += os.listdir(path)
        workspaces.discard(JOB)
    kept = mode(outside)
    outside.chmod(0o700)
    return left, os.listdir(root), kept


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can put another user's directory there")
def test_what_another_user_has_put_there_is_an_error_and_costs_no_descriptor() -> None:
    with writable_by_all() as directory:
        root = directory / "ws"
        root.mkdir()
        root.chmod(0o777)
        (root / JOB / "theirs").mkdir(parents=True)
        (root / JOB / "theirs" / "file").touch()
        assert in_a_child(fail_to_remove, root, ordinary=True) == [errno.EPERM, errno.EPERM, True]
        Workspaces(root).discard(JOB)
        assert os.listdir(root) == []


def fail_to_remove(root: Path) -> list[object]:
    workspaces = Workspaces(root)
    before = descriptors()
    found: list[object] = []
    for operation in (workspaces.discard, workspaces.create):
        with pytest.raises(OSError) as caught:
            operation(JOB)
        found.append(caught.value.errno)
    return [*found, descriptors() == before]


def test_discarding_what_is_not_there_is_no_error(root: Path, workspaces: Workspaces) -> None:
    workspaces.discard(JOB)
    workspaces.create(JOB)
    workspaces.discard(JOB)
    workspaces.discard(JOB)
    assert os.listdir(root) == []


def test_keeping_puts_an_empty_directory_by_and_no_other(root: Path, workspaces: Workspaces) -> None:
    workspaces.create(JOB)
    (workspaces.create(OTHER) / "made").write_text("x")
    workspaces.keep(JOB)
    workspaces.keep(OTHER)
    workspaces.keep(JOB)
    kept = sorted((path.name, os.listdir(path)) for path in root.iterdir())
    assert kept == [(".spare", []), (OTHER, ["made"])]


def test_the_directory_that_was_put_by_serves_the_next_job(root: Path, workspaces: Workspaces) -> None:
    first = workspaces.create(JOB)
    first.chmod(0o500)
    inode = first.stat().st_ino
    workspaces.keep(JOB)
    second = workspaces.create(OTHER)
    assert (second.stat().st_ino, stat.S_IMODE(second.stat().st_mode)) == (inode, 0o700)
    assert [path.name for path in root.iterdir()] == [OTHER]


@pytest.mark.parametrize("spoil", ["file", "link", "full", "none"])
def test_a_spare_directory_that_a_plugin_has_spoiled_is_not_used(
    tmp_path: Path, root: Path, workspaces: Workspaces, spoil: str,
) -> None:
    spare = root / ".spare"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if spoil == "file":
        spare.write_text("x")
    elif spoil == "link":
        spare.symlink_to(elsewhere)
    elif spoil == "full":
        spare.mkdir()
        (spare / "planted").write_text("x")
    path = workspaces.create(JOB)
    assert path.is_dir() and not path.is_symlink()
    assert os.listdir(path) == []
    assert elsewhere.is_dir()


@pytest.mark.parametrize("in_its_place", ["file", "link"])
def test_keeping_what_is_no_directory_any_more_is_no_error(
    tmp_path: Path, root: Path, workspaces: Workspaces, in_its_place: str,
) -> None:
    if in_its_place == "file":
        (root / JOB).write_text("x")
    else:
        (root / JOB).symlink_to(tmp_path)
    workspaces.keep(JOB)
    assert tmp_path.is_dir()
