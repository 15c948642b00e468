from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

from ductile.workspace.artifact import Aborted, Artifact, ChangedInPlace
from ductile.workspace.manager import CompletedWorkspace, Workspaces
from support.launch import NOBODY, in_a_child, writable_by_all
from workspace.trees import (
    JOB,
    LONG_AGO_NS,
    NOT_UTF8,
    OTHER,
    PARENT,
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
# linux/fiemap.h: asks for the extents of a file without bringing it to the disk; an extent that has no place yet.
FS_IOC_FIEMAP = 0xC020660B
FIEMAP_EXTENT_DELALLOC = 0x4
FIEMAP_HEAD = struct.Struct("=QQLLLL")
FIEMAP_EXTENT = struct.Struct("=QQQQQLLLL")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root writes what is sealed")


def digest(content: str) -> str:
    return blake3(content.encode()).hexdigest()


def test_each_file_of_a_success_is_listed_by_path_with_size_time_and_digest(
    root: Path, workspaces: Workspaces,
) -> None:
    path = workspaces.create(JOB)
    names = ["b", "a/z", "a b", f"{NOT_UTF8}/file", "two\nlines", "n" * 255]
    for name in names:
        write(path / name, f"content of {name[:3]!a}")
    (path / "empty").touch()
    os.utime(path / "empty", ns=(LONG_AGO_NS, LONG_AGO_NS))
    done = workspaces.complete(JOB, None, {}, abort=never)
    texts = {"empty": "", **{name: f"content of {name[:3]!a}" for name in names}}
    assert done == CompletedWorkspace(artifacts=tuple(
        Artifact(path=name, size=len(text), mtime_ns=LONG_AGO_NS, digest=digest(text))
        for name, text in sorted(texts.items())))


def test_the_digest_of_a_large_file_is_that_of_the_whole(workspaces: Workspaces) -> None:
    content = os.urandom(3 * MIB + 17)
    (workspaces.create(JOB) / "large").write_bytes(content)
    [artifact] = workspaces.complete(JOB, None, {}, abort=never).artifacts
    assert (artifact.size, artifact.digest) == (len(content), blake3(content).hexdigest())


@pytest.mark.parametrize(("before", "sealed"), [
    (0o644, 0o444), (0o755, 0o555), (0o666, 0o444), (0o600, 0o400), (0o400, 0o400), (0o000, 0o400), (0o200, 0o400),
    (0o6755, 0o555), (0o1666, 0o444), (0o111, 0o511),
])
def test_a_sealed_file_can_be_read_by_its_owner_and_written_by_nobody(before: int, sealed: int) -> None:
    with writable_by_all() as directory:
        assert in_a_child(seal_one, directory, before, ordinary=True) == (sealed, digest("x"))


def seal_one(directory: Path, before: int) -> tuple[int, str]:
    workspaces = Workspaces(directory / "ws")
    workspaces.make_root()
    path = workspaces.create(JOB) / "file"
    path.write_text("x")
    path.chmod(before)
    [artifact] = workspaces.complete(JOB, None, {}, abort=never).artifacts
    return mode(path), artifact.digest


def test_directories_that_their_owner_has_closed_to_himself_are_opened_and_keep_the_rest() -> None:
    with writable_by_all() as directory:
        assert in_a_child(seal_closed, directory, ordinary=True) == {
            "a": "directory 0755", "a/b": "directory 0700", "a/b/file": "file 0444 x", "c": "directory 1777"}


def seal_closed(directory: Path) -> dict[str, str]:
    workspaces = Workspaces(directory / "ws")
    workspaces.make_root()
    path = workspaces.create(JOB)
    write(path / "a" / "b" / "file", "x")
    (path / "c").mkdir()
    for place, closed in ((path / "a" / "b", 0o000), (path / "a", 0o055), (path / "c", 0o1777), (path, 0o000)):
        place.chmod(closed)
    completed(workspaces, JOB)
    return tree(path)


def test_what_is_no_file_stays_and_is_listed_nowhere(tmp_path: Path, root: Path, workspaces: Workspaces) -> None:
    path = workspaces.create(JOB)
    write(path / "file", "x")
    write(tmp_path / "outside", "y")
    (path / "link").symlink_to(tmp_path / "outside")
    (path / "nowhere").symlink_to("no such")
    (path / "up").symlink_to("..")
    with socket.socket(socket.AF_UNIX) as listener:
        bind(listener, path / "socket")
        os.mkfifo(path / "fifo", 0o666)
        if os.geteuid() == 0:
            os.mknod(path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        done = workspaces.complete(JOB, None, {}, abort=never)
    specials = {"socket", "fifo", *(["null"] if os.geteuid() == 0 else [])}
    assert [each.path for each in done.artifacts] == ["file"]
    [warning] = done.warnings
    what, _, names = warning.partition(": ")
    assert what == "files not handed on because they are sockets, devices or FIFOs"
    assert set(names.split(", ")) == specials
    assert set(os.listdir(path)) == {"file", "link", "nowhere", "up", *specials}
    assert (mode(tmp_path / "outside"), mode(path / "fifo") & 0o200) == (0o644, 0o200)


@pytest.mark.parametrize("there", ["empty", "none", "a file", "a link"])
def test_where_nothing_was_made_there_is_nothing_to_list(
    tmp_path: Path, root: Path, workspaces: Workspaces, there: str,
) -> None:
    write(tmp_path / "outside" / "file", "x")
    match there:
        case "empty":
            workspaces.create(JOB)
        case "a file":
            (root / JOB).write_text("x")
        case "a link":
            (root / JOB).symlink_to(tmp_path / "outside")
    assert workspaces.complete(JOB, None, {}, abort=never) == CompletedWorkspace()
    assert tree(tmp_path / "outside") == {"file": "file 0644 x"}


def test_a_file_with_two_names_is_read_once(workspaces: Workspaces) -> None:
    path = workspaces.create(JOB)
    write(path / "a", "x" * 3 * MIB)
    once = calls_of(lambda abort: workspaces.complete(JOB, None, {}, abort=abort))
    os.link(path / "a", path / "b")
    assert calls_of(lambda abort: workspaces.complete(JOB, None, {}, abort=abort)) == once
    a, b = workspaces.complete(JOB, None, {}, abort=never).artifacts
    assert (a.path, b) == ("a", replace(a, path="b"))


def test_a_file_is_on_the_disk_when_it_is_listed(workspaces: Workspaces) -> None:
    path = workspaces.create(JOB) / "file"
    path.write_bytes(os.urandom(MIB))
    completed(workspaces, JOB)
    extents = flags_of_extents(path)
    assert extents and not any(flags & FIEMAP_EXTENT_DELALLOC for flags in extents)


def flags_of_extents(path: Path) -> list[int]:
    """Return the flags of a file's extents (Documentation/filesystems/fiemap.rst of the kernel)."""
    most = 64
    request = bytearray(FIEMAP_HEAD.pack(0, 2**64 - 1, 0, 0, most, 0) + bytes(most * FIEMAP_EXTENT.size))
    with path.open("rb") as file:
        try:
            fcntl.ioctl(file, FS_IOC_FIEMAP, request)
        except OSError:
            pytest.skip("this file system does not say where files are")
    count = FIEMAP_HEAD.unpack_from(request)[3]
    return [FIEMAP_EXTENT.unpack_from(request, FIEMAP_HEAD.size + number * FIEMAP_EXTENT.size)[5]
            for number in range(count)]


def test_a_full_disk_keeps_nobody_from_completing(root: Path, mount: Callable[..., None]) -> None:
    root.mkdir()
    mount("tmpfs", root, "-o", "size=1m")
    workspaces = Workspaces(root)
    path = workspaces.create(JOB)
    with pytest.raises(OSError, match="No space left on device"):
        (path / "large").write_bytes(b"x" * 2 * MIB)
    [artifact] = workspaces.complete(JOB, None, {}, abort=never).artifacts
    assert (artifact.path, artifact.size) == ("large", (path / "large").stat().st_size)


def test_completing_can_be_given_up_wherever_it_asks_and_begun_again(workspaces: Workspaces) -> None:
    parents = made(workspaces, {"a/file": "x"})
    path = workspaces.clone(JOB, PARENT, parents, deep=False, abort=never).path
    (path / "b").mkdir()
    (path / "b" / "large").write_bytes(b"x" * (2 * MIB + 1))
    asked = calls_of(lambda abort: workspaces.complete(JOB, PARENT, parents, abort=abort))
    # Two directories of the parent, three of the job, three pieces and the end of the file.
    assert asked == 2 + 3 + 4
    for calls in range(asked):
        with pytest.raises(Aborted):
            workspaces.complete(JOB, PARENT, parents, abort=after(calls))
    done = workspaces.complete(JOB, PARENT, parents, abort=after(asked))
    assert [each.path for each in done.artifacts] == ["a/file", "b/large"]


def test_a_fifo_that_takes_a_files_place_is_not_waited_for(root: Path) -> None:
    # In a process of its own: it would wait for ever.
    error, name = in_a_child(swap_files_for_fifos, root)
    assert (error, name in {str(root / JOB / "a"), str(root / JOB / "b")}) == ("no longer a regular file", True)


def swap_files_for_fifos(root: Path) -> tuple[str, str]:
    workspaces = Workspaces(root)
    workspaces.make_root()
    path = workspaces.create(JOB)
    for name in ("a", "b"):
        write(path / name, "x")
    asked = []

    def swap_at_the_second() -> bool:
        asked.append(None)
        if len(asked) == 2:
            for name in ("a", "b"):
                (path / name).unlink()
                os.mkfifo(path / name)
        return False

    with pytest.raises(OSError) as caught:
        workspaces.complete(JOB, None, {}, abort=swap_at_the_second)
    return caught.value.strerror, caught.value.filename


@needs_root
@pytest.mark.parametrize(("permissions", "found"), [
    (0o644, (("files not sealed because they are another user's: a/theirs",), ["a/theirs"])),
    (0o444, ((), ["a/theirs"])),
    (0o000, ("Permission denied", "a/theirs")),
])
def test_another_users_file_is_listed_where_it_can_be_read_and_named_where_not(
    permissions: int, found: object,
) -> None:
    with writable_by_all() as directory:
        root = directory / "ws"
        write(root / JOB / "a" / "theirs", "x", mode=permissions)
        for place in (root, root / JOB, root / JOB / "a"):
            os.chown(place, NOBODY, NOBODY)
        assert in_a_child(complete_theirs, root, ordinary=True) == found


def complete_theirs(root: Path) -> tuple:
    try:
        done = Workspaces(root).complete(JOB, None, {}, abort=never)
    except OSError as error:
        return error.strerror, str(Path(error.filename).relative_to(root / JOB))
    return done.warnings, [each.path for each in done.artifacts]


# What is shared with the parent


@pytest.fixture
def parents(workspaces: Workspaces) -> dict[str, Artifact]:
    """What the ledger says of the parent's files, and the job's clone of them."""
    artifacts = made(workspaces, {"a/file": "x", "other": "y"})
    workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=never)
    return artifacts


def complete(workspaces: Workspaces, parents: dict[str, Artifact]) -> dict[str, Artifact]:
    done = workspaces.complete(JOB, PARENT, parents, abort=never)
    assert done.warnings == ()
    return {each.path: each for each in done.artifacts}


def test_a_shared_file_keeps_its_digest_and_is_not_read(
    root: Path, workspaces: Workspaces, parents: dict[str, Artifact],
) -> None:
    unread = {path: replace(each, digest=f"that of {path}") for path, each in parents.items()}
    write(root / JOB / "new", "z")
    done = complete(workspaces, unread)
    assert done == unread | {"new": Artifact(path="new", size=1, mtime_ns=LONG_AGO_NS, digest=digest("z"))}


def test_a_shared_file_with_another_name_keeps_its_digest(
    root: Path, workspaces: Workspaces, parents: dict[str, Artifact],
) -> None:
    unread = {path: replace(each, digest=f"that of {path}") for path, each in parents.items()}
    (root / JOB / "a" / "file").rename(root / JOB / "moved")
    os.link(root / JOB / "other", root / JOB / "twice")
    assert complete(workspaces, unread) == {
        "moved": replace(unread["a/file"], path="moved"), "other": unread["other"],
        "twice": replace(unread["other"], path="twice")}


def test_a_file_that_was_replaced_is_the_jobs_own(
    root: Path, workspaces: Workspaces, parents: dict[str, Artifact],
) -> None:
    (root / JOB / "a" / "file").unlink()
    write(root / JOB / "a" / "file", "z")
    (root / JOB / "other").unlink()
    # Same size and time as the parent's: that alone makes it no shared file.
    assert complete(workspaces, parents) == {"a/file": replace(parents["a/file"], digest=digest("z"))}
    assert (root / PARENT / "a" / "file").read_text() == "x"
    assert workspaces.verify(PARENT, parents) == ()


def test_a_shared_file_that_was_only_touched_keeps_its_digest(
    root: Path, workspaces: Workspaces, parents: dict[str, Artifact],
) -> None:
    os.utime(root / JOB / "other", ns=(1, 1))
    assert complete(workspaces, parents) == parents | {"other": replace(parents["other"], mtime_ns=1)}


def test_a_shared_file_that_was_opened_up_is_sealed_again(
    root: Path, workspaces: Workspaces, parents: dict[str, Artifact],
) -> None:
    (root / JOB / "other").chmod(0o666)
    unread = parents | {"other": replace(parents["other"], digest="unread")}
    assert complete(workspaces, unread) == unread
    assert mode(root / PARENT / "other") == 0o444


@pytest.mark.parametrize("content", ["longer", "z", ""])
@pytest.mark.parametrize("name", ["a/file", "moved"])
def test_a_shared_file_that_was_changed_in_place_is_named(
    root: Path, workspaces: Workspaces, parents: dict[str, Artifact], name: str, content: str,
) -> None:
    path = root / JOB / name
    (root / JOB / "a" / "file").rename(path)
    path.chmod(0o644)
    path.write_text(content)
    with pytest.raises(ChangedInPlace) as caught:
        complete(workspaces, parents)
    assert str(caught.value) == (
        f"job {JOB} changed a file in place that it shares with job {PARENT}'s workspace: {name}; "
        f"replace it (write a new file and rename) or give the step workspace: copy")
    assert workspaces.verify(PARENT, parents) == ("a/file",)


def test_without_the_parents_workspace_every_file_is_read(
    root: Path, workspaces: Workspaces, parents: dict[str, Artifact],
) -> None:
    shutil.rmtree(root / PARENT)
    unread = {path: replace(each, digest="unread") for path, each in parents.items()}
    assert complete(workspaces, unread) == parents


def test_a_deep_copy_is_read_like_what_the_job_made(root: Path, workspaces: Workspaces) -> None:
    parents = made(workspaces, {"file": "x", "kept": "y"})
    workspaces.clone(JOB, PARENT, parents, deep=True, abort=never)
    with (root / JOB / "file").open("a") as file:
        file.write("more")
    os.utime(root / JOB / "file", ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert complete(workspaces, parents) == parents | {
        "file": Artifact(path="file", size=5, mtime_ns=LONG_AGO_NS, digest=digest("xmore"))}
    assert workspaces.verify(PARENT, parents) == ()


# Plugins


def test_a_plugin_of_an_ordinary_user_that_writes_in_place_is_refused_by_the_seal() -> None:
    with writable_by_all() as directory:
        code, error, kept, retried = in_a_child(run_a_chain, directory / "ws", ordinary=True)
        assert (code, "ermission denied" in error) == (2, True)
        assert kept == {"made": "file 0444 first"}
        assert retried == {"made": "file 0444 second", "more": "file 0444 new"}


def run_a_chain(root: Path) -> tuple[int, str, dict[str, str], dict[str, str]]:
    """Run a plugin that writes in place and leaves something, then one that replaces the file."""
    workspaces = Workspaces(root)
    workspaces.make_root()
    run("printf first > made", workspaces.create(PARENT))
    parents = completed(workspaces)
    path = workspaces.clone(JOB, PARENT, parents, deep=False, abort=never).path
    failed = run("echo half > half; mkdir halves; echo second > made; exit 0", path)
    workspaces.cleanup(JOB)
    path = workspaces.clone(JOB, PARENT, parents, deep=False, abort=never).path
    again = run("[ ! -e half ] && [ ! -e halves ] && printf second > new && mv -f new made && printf new > more", path)
    assert again.returncode == 0, again.stderr
    assert len(workspaces.complete(JOB, PARENT, parents, abort=never).artifacts) == 2
    return failed.returncode, failed.stderr, tree(root / PARENT), tree(path)


@needs_root
def test_a_plugin_of_root_that_writes_in_place_is_found_by_the_digest(root: Path, workspaces: Workspaces) -> None:
    parents = made(workspaces, {"made": "first"})
    path = workspaces.clone(JOB, PARENT, parents, deep=False, abort=never).path
    assert run("echo second > made", path).returncode == 0
    with pytest.raises(ChangedInPlace, match="'s workspace: made; replace it"):
        workspaces.complete(JOB, PARENT, parents, abort=never)
    assert workspaces.verify(PARENT, parents) == ("made",)


@needs_root
def test_a_plugin_of_root_may_write_in_place_into_a_deep_copy(root: Path, workspaces: Workspaces) -> None:
    parents = made(workspaces, {"made": "first"}, OTHER)
    path = workspaces.clone(JOB, OTHER, parents, deep=True, abort=never).path
    assert run("printf second > made", path).returncode == 0
    [artifact] = workspaces.complete(JOB, OTHER, parents, abort=never).artifacts
    assert (artifact.digest, workspaces.verify(OTHER, parents)) == (digest("second"), ())


def run(script: str, workspace: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell that a redirection which fails ends with code 2, as POSIX has it for special built-ins."""
    return subprocess.run(["/bin/sh", "-c", script.replace("echo second > made", "exec > made; echo second")],
                          cwd=workspace, capture_output=True, text=True, timeout=30)
