"""Which files of the directory are read, and what is said about those that cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ductile.pipeline.files import PIPELINES_LIMIT_BYTES, read_pipelines
from support.launch import in_a_child

ONE = b"name: a\nsteps: [uses: echo]\n"


def lines(directory: Path) -> list[str]:
    return [str(problem).replace(str(directory), "DIR") for problem in read_pipelines(directory).problems]


def test_a_directory_that_is_not_there_holds_no_pipelines(tmp_path):
    authored = read_pipelines(tmp_path / "none")
    assert (authored.specs, authored.problems, authored.files, authored.unlisted) == ((), (), (), None)


def test_a_directory_that_is_not_there_and_must_be_is_a_reason(tmp_path):
    authored = read_pipelines(tmp_path / "none", must_exist=True)
    assert authored.unlisted == f"expected a directory that exists, got {tmp_path}/none"


def test_every_yaml_file_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / "b.yaml").write_bytes(ONE)
    (tmp_path / "a.yaml").write_bytes(
        b"pipelines:\n  - {name: z, steps: [uses: echo]}\n  - {name: y, steps: [uses: x]}")
    (tmp_path / "10.yml").write_bytes(b"{name: ten, steps: [uses: echo]}")
    for other in ("a.yaml~", "README", ".hidden.yaml", "yaml"):
        (tmp_path / other).write_bytes(b"not: [read")
    authored = read_pipelines(tmp_path)
    assert authored.problems == ()
    assert [spec.name for spec in authored.specs] == ["ten", "z", "y", "a"]
    assert [name for name, _ in authored.files] == ["10.yml", "a.yaml", "b.yaml"]
    assert authored.files[2] == ("b.yaml", ONE)


def test_two_files_with_one_stem_are_a_fault_that_names_both(tmp_path):
    for name in ("a.yaml", "a.yml", "b.yml"):
        (tmp_path / name).write_bytes(ONE.replace(b"name: a", b"name: " + name.replace(".", "-").encode()))
    assert lines(tmp_path) == ["DIR/a.yml: DIR/a.yaml exists, too; remove or rename one of them"]


def test_what_is_wrong_stays_among_the_files_for_the_digest(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"[")
    assert read_pipelines(tmp_path).files == (("a.yaml", b"["),)


def test_what_is_no_file_is_named_and_the_others_are_read(tmp_path):
    (tmp_path / "a.yaml").mkdir()
    os.mkfifo(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").symlink_to("gone")
    (tmp_path / "d.yaml").write_bytes(ONE)
    (tmp_path / "e.yaml").symlink_to("e.yaml")
    mend = "cannot be read: not a regular file; put a regular file in its place"
    assert lines(tmp_path) == [
        f"DIR/a.yaml: {mend}",
        f"DIR/b.yaml: {mend}",
        "DIR/c.yaml: cannot be read: No such file or directory",
        "DIR/e.yaml: cannot be read: Too many levels of symbolic links",
    ]
    assert [spec.name for spec in read_pipelines(tmp_path).specs] == ["a"]


def test_a_link_to_a_file_is_read(tmp_path):
    (tmp_path / "elsewhere").write_bytes(ONE)
    (tmp_path / "a.yaml").symlink_to("elsewhere")
    assert [spec.name for spec in read_pipelines(tmp_path).specs] == ["a"]


@pytest.mark.parametrize("must_exist", [False, True])
def test_a_file_in_place_of_the_directory_is_a_reason(tmp_path, must_exist):
    (tmp_path / "pipelines").write_bytes(ONE)
    authored = read_pipelines(tmp_path / "pipelines", must_exist=must_exist)
    assert authored.unlisted == f"expected a directory, got {tmp_path}/pipelines: Not a directory"


def test_a_repeated_key_is_told_with_both_places_and_has_its_last_value(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"name: b\nname: a\non: x\nsteps: [{uses: echo}]\n")
    assert lines(tmp_path) == ["DIR/a.yaml:2:1: name: repeated key, also at line 1, column 1"]
    assert [spec.name for spec in read_pipelines(tmp_path).specs] == ["a"]


@pytest.mark.parametrize(("content", "line"), [
    (b"name: a\nsteps: [uses: \xff]\n", "DIR/a.yaml:2:15: expected UTF-8, got the byte 0xff"),
    (b"name: a\x00\n", "DIR/a.yaml:1:8: expected printable text, got the character U+0000"),
    (b"name: *a\n", "DIR/a.yaml:1:7: the alias *a has no anchor before it"),
    (b"#" * (PIPELINES_LIMIT_BYTES + 1), "DIR/a.yaml: cannot be read: larger than 4.0 MB"),
])
def test_what_is_no_text_is_a_fault_at_its_place(tmp_path, content, line):
    (tmp_path / "a.yaml").write_bytes(content)
    assert lines(tmp_path) == [line]


def test_a_file_whose_name_is_no_text_is_read_and_shown_on_one_line(tmp_path):
    (tmp_path / os.fsdecode(b"\xff\n.yaml")).write_bytes(b"name: a\nsteps: [4]\n")
    assert lines(tmp_path) == ["DIR/\\xff\\n.yaml:2:9: steps[0]: expected a mapping, got 4"]


def as_nobody(directory: Path) -> list[str]:
    """Return what an ordinary user is told of the directory."""
    def told() -> list[str]:
        authored = read_pipelines(directory)
        return [str(line) for line in (*authored.problems, authored.unlisted) if line]

    return [line.replace(str(directory), "DIR") for line in in_a_child(told, ordinary=True)]


@pytest.fixture
def open_directory(tmp_path):
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    directory = tmp_path / "pipelines"
    directory.mkdir(mode=0o755)
    yield directory
    directory.chmod(0o755)


def test_a_file_that_may_not_be_read_is_a_fault(open_directory):
    (open_directory / "a.yaml").write_bytes(ONE)
    (open_directory / "a.yaml").chmod(0)
    assert as_nobody(open_directory) == [
        "DIR/a.yaml: cannot be read: Permission denied; give the daemon's user access to it and to its directory"]


def test_a_directory_that_may_not_be_read_is_a_reason(open_directory):
    open_directory.chmod(0)
    assert as_nobody(open_directory) == [
        "expected a directory that the daemon's user can read, got DIR: Permission denied"]
