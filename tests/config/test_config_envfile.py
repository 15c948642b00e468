"""The file of secrets: what its lines mean, and when it is refused."""

from __future__ import annotations

import os

import pytest

from config.config_files import ECHO, lines, load_text
from ductile.config.load import read_env_file

OTHERS = "cannot be read: others can read it, or its group can write it"


@pytest.fixture
def env_file(tmp_path):
    path = tmp_path / "secrets.env"
    path.touch(mode=0o640)
    return path


@pytest.mark.parametrize(
    ("content", "variables"),
    [
        (b"", {}), (b"# a comment\n\n   \n  # another\n", {}),
        (b"A=1\nB_2=two words\n", {"A": "1", "B_2": "two words"}),
        (b"A=1", {"A": "1"}), (b"  A=1  \r\nB=2\r\n", {"A": "1", "B": "2"}), (b"\xef\xbb\xbfA=1\n", {"A": "1"}),
        (b"export A=1\nexport\tB=2\nexport=3\n", {"A": "1", "B": "2", "export": "3"}),
        (b"A='x y'\nB=\" z \"\nC=''\nD=\n", {"A": "x y", "B": " z ", "C": "", "D": ""}),
        (b"A=it's\nB=x\"y\nC='a'b'\n", {"A": "it's", "B": 'x"y', "C": "a'b"}),
        (b"A=x#y\nB=$A${A}\\n\nC='x # y'\n", {"A": "x#y", "B": "$A${A}\\n", "C": "x # y"}),
        (b"A=a=b==\nA=2\n", {"A": "2"}), ("A=ü€\n".encode(), {"A": "ü€"}),
        (b"A=x\xc2\x85y\xe2\x80\xa8z\n", {"A": "x\x85y\u2028z"}),
    ],
)
def test_each_line_gives_one_variable(env_file, content, variables):
    env_file.write_bytes(content)
    assert read_env_file(env_file) == (variables, [], [])


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"hunter2", "expected KEY=VALUE"), (b"=hunter2", "expected KEY=VALUE"), (b"A-B=hunter2", "expected KEY=VALUE"),
        (b"1A=hunter2", "expected KEY=VALUE"), (b"A =hunter2", "expected KEY=VALUE"),
        (b"A=hun\0ter2", "expected KEY=VALUE"),
        (b"A='hunter2", "expected a closing quote at the end of the line"),
        (b"A=\"hunter2'", "expected a closing quote at the end of the line"),
        (b"A='", "expected a closing quote at the end of the line"), (b"A=hunter2\xff", "expected UTF-8"),
    ],
)
def test_a_bad_line_is_named_without_showing_it(env_file, line, fault):
    env_file.write_bytes(b"# first\n" + line + b"\nGOOD=1\n")
    assert read_env_file(env_file) == ({"GOOD": "1"}, [f"{env_file}:2: {fault}"], [])


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440, 0o700])
def test_owner_and_group_may_read_it(env_file, mode):
    env_file.write_text("A=1\n")
    env_file.chmod(mode)
    assert read_env_file(env_file) == ({"A": "1"}, [], [])


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o660, 0o620, 0o666, 0o777])
def test_a_file_open_to_others_is_refused(env_file, mode):
    env_file.write_text("A=1\n")
    env_file.chmod(mode)
    assert read_env_file(env_file) == ({}, [f"{env_file}: {OTHERS} (mode {mode:04o}); chmod 640 {env_file}"], [])


def test_only_a_regular_file_is_read(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "directory").mkdir(mode=0o700)
    for path in (tmp_path / "fifo", tmp_path / "directory"):
        assert read_env_file(path) == ({}, [f"{path}: cannot be read: not a regular file; put a regular file in "
                                            f"its place"], [])


def test_a_file_beyond_a_megabyte_is_refused(env_file):
    env_file.write_bytes(b"A=" + b"x" * 1024**2)
    assert read_env_file(env_file) == ({}, [f"{env_file}: cannot be read: larger than 1.0 MB"], [])


def test_a_missing_file_is_a_problem_where_it_is_named(tmp_path):
    assert lines(load_text(tmp_path, "service:\n  env_file: ./none.env\n")) == [
        "2:13: service.env_file: DIR/none.env: cannot be read: No such file or directory",
    ]


def test_a_name_that_no_terminal_can_show_stays_on_one_line(tmp_path):
    path, shown = tmp_path / "a\nb\x1b[31m", f"{tmp_path}/a\\nb\\x1b[31m"
    assert read_env_file(path) == ({}, [f"{shown}: cannot be read: No such file or directory"], [])
    path.write_text("A\n")
    path.chmod(0o644)
    assert read_env_file(path) == ({}, [f"{shown}: {OTHERS} (mode 0644); chmod 640 '{shown}'"], [])
    path.chmod(0o600)
    assert read_env_file(path) == ({}, [f"{shown}:1: expected KEY=VALUE"], [])
    path.write_bytes(b"A=" + b"x" * 1024**2)
    assert read_env_file(path) == ({}, [f"{shown}: cannot be read: larger than 1.0 MB"], [])


def test_the_file_wins_over_the_environment(tmp_path, env_file):
    env_file.write_text("A=file\n")
    text = "service: {env_file: secrets.env}\n" + ECHO + "config: {a: '${A}', b: '${B}'}\n"
    loaded = load_text(tmp_path, text, {"A": "environment", "B": "environment"})
    assert (lines(loaded), loaded.config.plugins["echo"].config) == ([], {"a": "file", "b": "environment"})
    assert loaded.config.service.env_file == env_file


def test_the_file_is_not_among_those_of_the_digest(tmp_path, env_file):
    text = "service: {env_file: secrets.env}\n"
    assert load_text(tmp_path, text).files == (("config.yaml", text.encode()),)


def test_its_own_path_holds_no_variable(tmp_path, env_file):
    text = "service: {env_file: '${DIR}/secrets.env'}\n"
    expected = "1:21: service.env_file: expected a path without variables, which are known only when it is read"
    assert lines(load_text(tmp_path, text, {"DIR": str(tmp_path)})) == [expected]
    assert lines(load_text(tmp_path, text, {})) == [expected]


def test_what_looks_like_a_comment_behind_a_value_is_part_of_it_with_a_warning(env_file):
    env_file.write_bytes(b"A=x # note\nB=y\t#z\nC='x # y'\n")
    variables, faults, warnings = read_env_file(env_file)
    assert (variables, faults) == ({"A": "x # note", "B": "y\t#z", "C": "x # y"}, [])
    told = "what is behind ' #' is part of the value; put a comment on a line of its own, or the value in quotes"
    assert warnings == [f"{env_file}:1: A: {told}", f"{env_file}:2: B: {told}"]
