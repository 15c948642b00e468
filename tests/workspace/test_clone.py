from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ductile.workspace.artifact import Aborted, Artifact, InputLost
from ductile.workspace.manager import ClonedWorkspace, Workspaces
from support.launch import NOBODY, descriptors, in_a_child, writable_by_all
from workspace.trees import (
    JOB,
    LONG_AGO_NS,
    NOT_UTF8,
    OTHER,
    PARENT,
    a_deep_tree,
    after,
    bind,
    calls_of,
    completed,
    made,
    mode,
    never,
    tree,
    write,
)

MIB = 1024 * 1024

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


def test_a_clone_is_the_same_tree_with_files_by_hard_links(tmp_path: Path, root: Path, workspaces: Workspaces) -> None:
    names = ["file", "a/b/deep", f"{NOT_UTF8}/{NOT_UTF8}", "two\nlines", " ", "n" * 255]
    path = workspaces.create(PARENT)
    for name in names:
        write(path / name, "x")
    (path / "a" / "run").write_text("#!")
    (path / "a" / "run").chmod(0o755)
    (path / "empty").mkdir(mode=0o550)
    (path / "a").chmod(0o750)
    for name, target in (("out", tmp_path), ("up", "../.."), ("below", "a"), ("nowhere", "no such"), ("it", "it")):
        (path / name).symlink_to(target)
    artifacts = completed(workspaces)
    assert workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=never) == ClonedWorkspace(path=root / JOB)
    assert tree(root / JOB) == tree(root / PARENT)
    assert tree(root / JOB)["a"] == "directory 0750"
    assert tree(root / JOB)["empty"] == "directory 0750"
    assert tree(root / JOB)["a/run"] == "file 0555 #!"
    assert tree(root / JOB)["out"] == f"link to {tmp_path}"
    assert all(os.path.samefile(root / JOB / name, root / PARENT / name) for name in names)
    assert set(artifacts) == {*names, "a/run"}
    assert mode(root / JOB) == 0o700


@pytest.mark.parametrize("deep", [False, True])
def test_nothing_of_an_earlier_attempt_is_in_a_clone(root: Path, workspaces: Workspaces, deep: bool) -> None:
    artifacts = made(workspaces, {"made": "x", "a/b": "y"})
    workspaces.clone(JOB, PARENT, artifacts, deep=deep, abort=never)
    (root / JOB / "half").mkdir()
    (root / JOB / "half" / "done").write_text("z")
    (root / JOB / "made").unlink()
    workspaces.clone(JOB, PARENT, artifacts, deep=deep, abort=never)
    assert set(tree(root / JOB)) == {"made", "a", "a/b"}


def test_what_is_no_file_directory_or_link_is_left_out_with_a_warning(root: Path, workspaces: Workspaces) -> None:
    artifacts = made(workspaces, {"a/file": "x"})
    with socket.socket(socket.AF_UNIX) as listener:
        bind(listener, root / PARENT / "a" / "socket")
        os.mkfifo(root / PARENT / "a" / "fifo")
        if os.geteuid() == 0:
            os.mknod(root / PARENT / "a" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        cloned = workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=never)
    assert set(tree(root / JOB)) == {"a", "a/file"}
    [warning] = cloned.warnings
    what, _, names = warning.partition(": ")
    assert what == "files left out because they are sockets, devices or FIFOs"
    assert set(names.split(", ")) == {"a/socket", "a/fifo", *(["a/null"] if os.geteuid() == 0 else [])}


def test_a_file_that_came_after_the_success_is_left_out_with_a_warning(root: Path, workspaces: Workspaces) -> None:
    artifacts = made(workspaces, {"made": "x"})
    for name in ("later\n1", "sub/later"):
        write(root / PARENT / name, "y")
    cloned = workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=never)
    assert set(tree(root / JOB)) == {"made", "sub"}
    [warning] = cloned.warnings
    assert warning in {
        "files left out because they were added to the input workspace after its job ended: later\\n1, sub/later",
        "files left out because they were added to the input workspace after its job ended: sub/later, later\\n1",
    }


def test_a_warning_names_a_few_files_and_counts_the_others(root: Path, workspaces: Workspaces) -> None:
    artifacts = made(workspaces, {"made": "x"})
    for number in range(1203):
        (root / PARENT / f"later-{number}").touch()
    [warning] = workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=never).warnings
    assert warning.endswith(" and 1,200 more")
    assert warning.count("later-") == 3


# Deep copies


def test_a_deep_copy_is_the_jobs_own_and_may_be_changed(root: Path, workspaces: Workspaces) -> None:
    artifacts = made(workspaces, {"a/file": "x", "empty": ""})
    write(root / PARENT / "run", "#!", mode=0o755)
    artifacts |= completed(workspaces)
    before = tree(root / PARENT)
    assert workspaces.clone(JOB, PARENT, artifacts, deep=True, abort=never) == ClonedWorkspace(path=root / JOB)
    assert tree(root / JOB) == {"a": "directory 0755", "a/file": "file 0644 x", "empty": "file 0644 ",
                                "run": "file 0755 #!"}
    assert (root / JOB / "a" / "file").stat().st_mtime_ns == LONG_AGO_NS
    with (root / JOB / "a" / "file").open("a") as file:
        file.write("more")
    assert tree(root / PARENT) == before


def test_holes_of_a_file_stay_holes_and_nothing_of_it_is_lost(root: Path, workspaces: Workspaces) -> None:
    path = workspaces.create(PARENT) / "sparse"
    with path.open("wb") as file:
        for offset in (0, 7 * MIB, 40 * MIB):
            file.seek(offset)
            file.write(b"data" * 500_000)
        file.truncate(64 * MIB)
    artifacts = completed(workspaces)
    workspaces.clone(JOB, PARENT, artifacts, deep=True, abort=never)
    copy = root / JOB / "sparse"
    assert (copy.stat().st_size, copy.read_bytes() == path.read_bytes()) == (64 * MIB, True)
    assert copy.stat().st_blocks <= path.stat().st_blocks + 16 < 64 * MIB // 512


def test_a_full_disk_ends_a_deep_copy_with_the_files_name(root: Path, mount: Callable[..., None]) -> None:
    root.mkdir()
    mount("tmpfs", root, "-o", "size=3m")
    workspaces = Workspaces(root)
    (workspaces.create(PARENT) / "large").write_bytes(b"x" * 2 * MIB)
    artifacts = completed(workspaces)
    before = descriptors()
    with pytest.raises(OSError, match="No space left on device") as caught:
        workspaces.clone(JOB, PARENT, artifacts, deep=True, abort=never)
    assert (caught.value.filename, descriptors()) == (str(root / PARENT / "large"), before)
    workspaces.cleanup(JOB)
    assert os.listdir(root) == [PARENT]
    assert workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=never).warnings == ()


# What cannot be linked


def test_a_file_on_another_file_system_is_copied_with_a_warning(
    root: Path, workspaces: Workspaces, mount: Callable[..., None],
) -> None:
    artifacts = made(workspaces, {"kept": "x", "sub/one": "1", "sub/two": "2"})
    mount("tmpfs", root / PARENT / "sub")
    for name, text in (("one", "1"), ("two", "2")):
        write(root / PARENT / "sub" / name, text, mode=0o444)
    cloned = workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=never)
    [warning] = cloned.warnings
    assert warning in {f"files copied because the file system does not link them: {names}"
                       for names in ("sub/one, sub/two", "sub/two, sub/one")}
    assert os.path.samefile(root / JOB / "kept", root / PARENT / "kept")
    # As sealed as a link would be, and with the time that the ledger knows.
    assert tree(root / JOB / "sub") == {"one": "file 0444 1", "two": "file 0444 2"}
    assert (root / JOB / "sub" / "one").stat().st_mtime_ns == LONG_AGO_NS


def test_a_changed_file_on_another_file_system_is_named(
    root: Path, workspaces: Workspaces, mount: Callable[..., None],
) -> None:
    artifacts = made(workspaces, {"sub/one": "1"})
    mount("tmpfs", root / PARENT / "sub")
    (root / PARENT / "sub" / "one").write_text("2")
    with pytest.raises(InputLost, match=r"have changed: sub/one \(changed\); "):
        workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=never)


def test_a_file_with_as_many_links_as_there_may_be_is_copied_with_a_warning(root: Path, workspaces: Workspaces) -> None:
    artifacts = made(workspaces, {"file": "x"})
    assert in_a_child(cloned_without_links, workspaces, artifacts) == (
        "files copied because the file system does not link them: file",)
    assert tree(root / JOB) == {"file": "file 0444 x"}
    assert not os.path.samefile(root / JOB / "file", root / PARENT / "file")


def cloned_without_links(workspaces: Workspaces, artifacts: Mapping[str, Artifact]) -> tuple[str, ...]:
    """Clone where every file has as many links as its file system allows: tens of thousands, or any number."""
    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.link":
            raise OSError(errno.EMLINK, "too many links")

    sys.addaudithook(refuse)
    return workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=never).warnings


@needs_root
@pytest.mark.parametrize(("permissions", "found"), [
    (0o444, (("files copied because the file system does not link them: a/theirs",), {"a", "a/theirs"})),
    (0o000, ("Permission denied", "a/theirs")),
])
def test_another_users_file_is_copied_where_it_can_be_read_and_named_where_not(
    permissions: int, found: object,
) -> None:
    if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "1":
        pytest.skip("this machine lets everybody link everybody's files (proc(5), protected_hardlinks)")
    with writable_by_all() as directory:
        workspaces = Workspaces(directory / "ws")
        workspaces.make_root()
        artifacts = made(workspaces, {"a/theirs": "x"})
        (directory / "ws" / PARENT / "a" / "theirs").chmod(permissions)
        for place in (directory / "ws", directory / "ws" / PARENT, directory / "ws" / PARENT / "a"):
            os.chown(place, NOBODY, NOBODY)
        assert in_a_child(clone_theirs, directory / "ws", artifacts, ordinary=True) == found


def clone_theirs(root: Path, artifacts: dict) -> tuple:
    before = descriptors()
    try:
        cloned = Workspaces(root).clone(JOB, PARENT, artifacts, deep=False, abort=never)
    except OSError as error:
        assert descriptors() == before
        return error.strerror, str(Path(error.filename).relative_to(root / PARENT))
    return cloned.warnings, set(tree(cloned.path))


# Given up, deep, and changed meanwhile


@pytest.mark.parametrize("deep", [False, True])
def test_a_clone_can_be_given_up_wherever_it_asks(root: Path, workspaces: Workspaces, deep: bool) -> None:
    path = workspaces.create(PARENT)
    (path / "a" / "b").mkdir(parents=True)
    (path / "a" / "large").write_bytes(b"x" * (2 * MIB + 1))
    artifacts = completed(workspaces)
    # Another time, so that it must be read.
    (path / "a" / "large").touch()
    asked = calls_of(lambda abort: workspaces.clone(JOB, PARENT, artifacts, deep=deep, abort=abort))
    assert asked >= 3 + 3
    for calls in range(asked):
        with pytest.raises(Aborted):
            workspaces.clone(JOB, PARENT, artifacts, deep=deep, abort=after(calls))
    assert workspaces.clone(JOB, PARENT, artifacts, deep=deep, abort=after(asked)).warnings == ()
    assert (root / JOB / "a" / "large").stat().st_size == 2 * MIB + 1


def test_a_tree_of_five_thousand_levels_is_completed_cloned_verified_and_removed(in_memory: Path) -> None:
    workspaces = Workspaces(in_memory)
    a_deep_tree(in_memory / PARENT, 5000)
    artifacts = completed(workspaces)
    assert sorted(map(len, artifacts)) == [4, 2004, 4004, 6004, 8004]
    workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=never)
    workspaces.clone(OTHER, JOB, artifacts, deep=True, abort=never)
    assert workspaces.verify(OTHER, artifacts) == ()
    assert {each.path: each for each in workspaces.complete(JOB, PARENT, artifacts, abort=never).artifacts} == artifacts
    for job_id in (PARENT, JOB, OTHER):
        workspaces.cleanup(job_id)
    assert os.listdir(in_memory) == []


def test_a_directory_of_thousands_of_files_is_cloned(in_memory: Path) -> None:
    workspaces = Workspaces(in_memory)
    artifacts = made(workspaces, {f"{number}": "" for number in range(3000)})
    assert workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=never).warnings == ()
    assert len(os.listdir(in_memory / JOB)) == 3000


@pytest.mark.parametrize("operation", ["clone", "complete"])
def test_a_directory_that_becomes_a_link_while_it_is_looked_at_is_not_followed(
    tmp_path: Path, root: Path, workspaces: Workspaces, operation: str,
) -> None:
    artifacts = made(workspaces, {"a/b/file": "x", "a/read": "x"})
    # Another time, so that it must be read: that is when the directory beside it is swapped.
    (root / PARENT / "a" / "read").touch()
    outside = tmp_path / "outside"
    write(outside / "secret", "s", mode=0o666)
    asked = []

    def swap_at_the_third() -> bool:
        asked.append(None)
        if len(asked) == 3:
            (root / PARENT / "a" / "b").rename(tmp_path / "elsewhere")
            (root / PARENT / "a" / "b").symlink_to(outside)
        return False

    with pytest.raises(NotADirectoryError) as caught:
        if operation == "clone":
            workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=swap_at_the_third)
        else:
            workspaces.complete(PARENT, None, {}, abort=swap_at_the_third)
    assert caught.value.filename == str(root / PARENT / "a" / "b")
    assert tree(outside) == {"secret": "file 0666 s"}


def test_a_directory_that_is_moved_away_ends_the_walk(tmp_path: Path, root: Path, workspaces: Workspaces) -> None:
    artifacts = made(workspaces, {"a/b/file": "x"})
    (tmp_path / "elsewhere").mkdir()
    asked = []

    def move_at_the_third() -> bool:
        asked.append(None)
        if len(asked) == 3:
            (root / PARENT / "a" / "b").rename(tmp_path / "elsewhere" / "b")
        return False

    with pytest.raises(OSError, match="a directory was moved meanwhile") as caught:
        workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=move_at_the_third)
    assert caught.value.filename == str(root / PARENT / "a" / "b" / "..")
