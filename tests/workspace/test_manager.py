from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ductile.errors import DuctileError
from ductile.workspace.manager import Workspaces
from support.launch import descriptors, in_a_child, writable_by_all
from workspace.trees import JOB, OTHER, a_deep_tree, bind, mode


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
    assert caught.value.lines == (f"cannot create the workspace directory {root}: File exists",)
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
    workspaces.cleanup(JOB)
    assert os.listdir(tmp_path / "real") == []


def test_a_new_attempt_finds_nothing_of_the_last_one(workspaces: Workspaces) -> None:
    path = workspaces.create(JOB)
    (path / "half").mkdir()
    (path / "half" / "made").write_text("x")
    assert os.listdir(workspaces.create(JOB)) == []


@pytest.mark.parametrize("in_its_place", ["a file", "a link to a directory", "a dangling link", "a fifo", "a socket"])
@pytest.mark.parametrize("operation", ["create", "cleanup"])
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
    assert operation == "cleanup" or place.is_dir()


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
    workspaces.cleanup(JOB)
    assert os.listdir(root) == []
    assert (os.listdir(outside), (outside / "kept").read_text(), mode(outside)) == (["kept"], "x", 0o500)


def test_a_tree_of_five_thousand_levels_goes(in_memory: Path) -> None:
    a_deep_tree(in_memory / JOB, 5000)
    Workspaces(in_memory).cleanup(JOB)
    assert os.listdir(in_memory) == []


def test_a_directory_of_many_files_goes(in_memory: Path) -> None:
    workspaces = Workspaces(in_memory)
    path = workspaces.create(JOB)
    for number in range(3000):
        (path / f"{number}").touch()
    workspaces.cleanup(JOB)
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
        workspaces.cleanup(JOB)
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
        assert in_a_child(fail_to_remove, root, ordinary=True) == [errno.EACCES, errno.EACCES, True]
        Workspaces(root).cleanup(JOB)
        assert os.listdir(root) == []


def fail_to_remove(root: Path) -> list[object]:
    workspaces = Workspaces(root)
    before = descriptors()
    found: list[object] = []
    for operation in (workspaces.cleanup, workspaces.create):
        with pytest.raises(OSError) as caught:
            operation(JOB)
        found.append(caught.value.errno)
    return [*found, descriptors() == before]


def test_cleaning_up_what_is_not_there_is_no_error(root: Path, workspaces: Workspaces) -> None:
    workspaces.cleanup(JOB)
    workspaces.create(JOB)
    workspaces.cleanup(JOB)
    workspaces.cleanup(JOB)
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


# Hard links


def test_a_root_is_proved_to_have_hard_links_and_nothing_is_left_of_that(root: Path) -> None:
    root.mkdir()
    # What a start that was killed may leave, or a plugin may put there.
    (root / ".proof").symlink_to(root.parent / "outside")
    (root / ".proof-link").write_text("x")
    Workspaces(root).make_root()
    assert (os.listdir(root), (root.parent / "outside").exists()) == ([], False)


def test_a_file_system_without_hard_links_is_refused(root: Path, mount: Callable[..., None]) -> None:
    root.mkdir()
    # That of message queues: it has files and no links.
    mount("mqueue", root)
    with pytest.raises(DuctileError) as caught:
        Workspaces(root).make_root()
    assert (caught.value.lines, caught.value.exit_code) == ((
        f"workspace.path {root} is on a file system without hard links: Operation not permitted; "
        f"set workspace.path elsewhere",), 71)
    assert os.listdir(root) == []


def test_a_full_disk_says_nothing_about_hard_links(root: Path, mount: Callable[..., None]) -> None:
    root.mkdir()
    mount("tmpfs", root, "-o", "nr_inodes=1")
    Workspaces(root).make_root()


# The entries of the root


def test_the_entries_of_the_root_come_in_slices_by_name_without_the_spare_one(
    tmp_path: Path, root: Path, workspaces: Workspaces,
) -> None:
    for number in range(5):
        (root / f"job-{number}").mkdir()
        os.utime(root / f"job-{number}", (number, number))
    (root / "link").symlink_to(tmp_path)
    os.utime(root / "link", (7, 7), follow_symlinks=False)
    (root / ".spare").mkdir()
    slices, last = [], ""
    while found := workspaces.entries(last, 2):
        slices.append([(each.name, each.mtime) for each in found])
        last = found[-1].name
    assert slices == [[("job-0", 0), ("job-1", 1)], [("job-2", 2), ("job-3", 3)], [("job-4", 4), ("link", 7)]]


def test_a_link_in_the_root_is_removed_and_its_target_is_not(
    tmp_path: Path, root: Path, workspaces: Workspaces,
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (root / "planted").symlink_to(tmp_path / "kept")
    workspaces.cleanup("planted")
    assert (os.listdir(root), os.listdir(tmp_path / "kept")) == ([], ["file"])


@pytest.mark.parametrize("name", ["", ".", "..", "../outside", "a/b", "/etc"])
def test_no_name_leads_out_of_the_root(workspaces: Workspaces, name: str) -> None:
    for operation in (workspaces.create, workspaces.open, workspaces.keep, workspaces.cleanup):
        with pytest.raises(ValueError) as caught:
            operation(name)
        assert str(caught.value) == f"not the name of a workspace: {name!r}"


@pytest.mark.parametrize(("there", "found"), [("directory", True), ("file", False), ("link", False), ("none", False)])
def test_a_workspace_is_open_to_who_asks_where_it_is_there(
    tmp_path: Path, root: Path, workspaces: Workspaces, there: str, found: bool,
) -> None:
    match there:
        case "directory":
            (root / JOB).mkdir()
        case "file":
            (root / JOB).touch()
        case "link":
            (root / JOB).symlink_to(tmp_path)
    assert workspaces.open(JOB) == (root / JOB if found else None)
