from __future__ import annotations

import os
from pathlib import Path

import pytest

from ductile.workspace.artifact import InputLost
from ductile.workspace.manager import ClonedWorkspace, Workspaces
from support.launch import in_a_child, writable_by_all
from workspace.trees import JOB, NOT_UTF8, PARENT, made, mode, never, tree


def spoil(path: Path, how: str) -> None:
    match how:
        case "gone":
            path.unlink()
        case "truncated":
            os.truncate(path, 0)
        case "longer":
            path.write_text("xy")
        case "other content of the same size":
            path.write_text("y")
        case "replaced by another":
            path.unlink()
            path.write_text("y")
        case "a link":
            path.rename(path.with_name("elsewhere"))
            path.symlink_to("elsewhere")
        case "a directory":
            path.unlink()
            path.mkdir()
        case "a fifo":
            path.unlink()
            os.mkfifo(path)


SPOILED = [
    ("gone", "gone"), ("truncated", "changed"), ("longer", "changed"), ("other content of the same size", "changed"),
    ("replaced by another", "changed"), ("a link", "no longer a regular file"),
    ("a directory", "no longer a regular file"), ("a fifo", "no longer a regular file"),
]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(("how", "what"), SPOILED)
def test_a_file_that_is_not_what_the_ledger_says_is_named(
    root: Path, workspaces: Workspaces, how: str, what: str, deep: bool,
) -> None:
    artifacts = made(workspaces, {"kept": "x", "a/file": "x"})
    (root / PARENT / "a" / "file").chmod(0o644)
    spoil(root / PARENT / "a" / "file", how)
    with pytest.raises(InputLost) as caught:
        workspaces.clone(JOB, PARENT, artifacts, deep=deep, abort=never)
    assert str(caught.value) == (f"files of job {PARENT}'s workspace have changed: a/file ({what}); "
                                 f"replay job {PARENT} to create them again")
    assert workspaces.verify(PARENT, artifacts) == ("a/file",)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("how", ["touched", "replaced by the same"])
def test_a_file_with_the_content_that_it_had_is_good(
    root: Path, workspaces: Workspaces, how: str, deep: bool,
) -> None:
    artifacts = made(workspaces, {"file": "x"})
    path = root / PARENT / "file"
    if how == "touched":
        path.touch()
    else:
        path.unlink()
        path.write_text("x")
    assert workspaces.clone(JOB, PARENT, artifacts, deep=deep, abort=never).warnings == ()
    assert (root / JOB / "file").read_text() == "x"
    assert workspaces.verify(PARENT, artifacts) == ()


def test_of_many_lost_files_a_few_are_named_on_one_line(root: Path, workspaces: Workspaces) -> None:
    names = ["a\n1", f"b{NOT_UTF8}", "c\x1b[2J", *(f"d{number}" for number in range(100))]
    artifacts = made(workspaces, dict.fromkeys(names, "x"))
    for name in names:
        (root / PARENT / name).unlink()
    with pytest.raises(InputLost) as caught:
        workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=never)
    assert str(caught.value) == (
        f"files of job {PARENT}'s workspace have changed: a\\n1 (gone), b\\udcff\\udcfe (gone), "
        f"c\\x1b[2J (gone) and 100 more; replay job {PARENT} to create them again")


@pytest.mark.parametrize("instead", ["nothing", "a file", "a link"])
def test_a_parents_workspace_that_is_gone_matters_where_it_had_files(
    tmp_path: Path, root: Path, workspaces: Workspaces, instead: str,
) -> None:
    artifacts = made(workspaces, {"file": "x"})
    (root / PARENT).rename(tmp_path / "elsewhere")
    if instead == "a file":
        (root / PARENT).touch()
    elif instead == "a link":
        (root / PARENT).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputLost) as caught:
        workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=never)
    assert str(caught.value) == (f"files of job {PARENT}'s workspace have changed: file (gone); "
                                 f"replay job {PARENT} to create them again")
    assert workspaces.verify(PARENT, artifacts) == ("file",)
    assert workspaces.clone(JOB, PARENT, {}, deep=False, abort=never) == ClonedWorkspace(path=root / JOB)
    assert os.listdir(root / JOB) == []


def test_a_file_that_a_failed_attempt_has_opened_up_is_sealed_again(root: Path, workspaces: Workspaces) -> None:
    artifacts = made(workspaces, {"file": "x"})
    workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=never)
    (root / JOB / "file").chmod(0o666)
    workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=never)
    assert mode(root / PARENT / "file") == mode(root / JOB / "file") == 0o444


def test_an_ordinary_user_clones_what_the_parent_has_closed_to_itself() -> None:
    with writable_by_all() as directory:
        assert in_a_child(clone_closed, directory, ordinary=True) == {
            "a": "directory 0700", "a/b": "directory 0711", "a/b/file": "file 0400 x"}


def clone_closed(directory: Path) -> dict[str, str]:
    workspaces = Workspaces(directory / "ws")
    workspaces.make_root()
    artifacts = made(workspaces, {"a/b/file": "x"})
    top = directory / "ws" / PARENT
    # Its time is another, so that it must be read.
    (top / "a" / "b" / "file").touch()
    for place, closed in ((top / "a" / "b" / "file", 0o000), (top / "a" / "b", 0o011), (top / "a", 0), (top, 0)):
        place.chmod(closed)
    cloned = workspaces.clone(JOB, PARENT, artifacts, deep=False, abort=never)
    return tree(cloned.path)
