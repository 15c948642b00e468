"""Commands that only need the database find it while the configuration on disk is broken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ctl.desk import Desk, load
from ductile.config import find

BROKEN = "routes: [\n"


def look(directory: Path, text: str) -> str | None:
    file = directory / "config.yaml"
    file.write_text(text, newline="")
    found = find.state_path(file)
    return None if found is None else str(found.relative_to(directory))


@pytest.mark.parametrize(("text", "expected"), [
    ("", "data/state.db"),
    ("service:\n  name: x\n", "data/state.db"),
    ("state:\n  path: state.db\n", "state.db"),
    ("state:   # where\n\n  # it is\n  path: ./elsewhere/state.db   # here\n", "elsewhere/state.db"),
    ("state:\n    path: 'a/b c'\n", "a/b c"),
    ('state:\n  path: "a/b#c"\n', "a/b#c"),
    ("state:\n  path: a/b#c d\n", "a/b#c d"),
    ("state:\r\n  path: ./a/b\r\nx: 1\r\n", "a/b"),
    ("plugins:\n  echo:\n    state:\n      path: ./no/no\n", "data/state.db"),
])
def test_a_path_on_a_line_of_its_own_is_found(tmp_path: Path, text: str, expected: str) -> None:
    assert look(tmp_path, text) == expected
    assert look(tmp_path, f"{text}{BROKEN}") == expected


@pytest.mark.parametrize("text", [
    "state: {path: ./a/b}\n",
    '"state": {"path": "./a/b"}\n',
    "state:\n",
    "state:\n- path: ./a/b\n",
    "state:\n  path: ${HOME}/b\n",
    "state:\n  path: &here ./a/b\n",
    "state:\n  path: |\n    ./a/b\n",
    "state:\n  path:\n    ./a/b\n",
    'state:\n  path: "./a\\x2fb"\n',
    "state:\n  path: ./a/\n",
    "state :\n  path: ./a/b\n",
])
def test_a_path_written_otherwise_is_not_guessed(tmp_path: Path, text: str) -> None:
    assert look(tmp_path, text) is None


def test_bytes_that_are_not_utf_8_do_not_hide_the_path(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"# \xff\nstate:\n  path: ./a/b\n")
    assert find.state_path(tmp_path / "config.yaml") == tmp_path / "a" / "b"


def test_what_is_not_a_regular_file_is_not_read(tmp_path: Path) -> None:
    assert find.state_path(tmp_path / "config.yaml") is None
    os.mkfifo(tmp_path / "config.yaml")
    assert find.state_path(tmp_path / "config.yaml") is None
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    assert find.state_path(tmp_path / "zero.yaml") is None


@pytest.mark.parametrize("command", [("status",), ("queue",), ("logs",), ("logs", "echo"), ("backup", "copy.db")])
def test_commands_that_only_need_the_database_warn_once_and_go_on(desk: Desk, monkeypatch: pytest.MonkeyPatch,
                                                                  command: tuple[str, ...]) -> None:
    monkeypatch.chdir(desk.home)
    with desk.ledger() as conn:
        desk.loaded(conn, load("echo"))
        conn.execute(
            "INSERT INTO job_queue (id, plugin, command, status, attempt, max_attempts, submitted_by, created_at,"
            " completed_at, root_job_id) VALUES ('j', 'echo', 'poll', 'dead', 1, 1, 'cli', 'x', 'x', 'j')")
        conn.execute(
            "INSERT INTO job_log (id, job_id, attempt, plugin, command, status, submitted_by, created_at, completed_at)"
            " VALUES ('x', 'j', 1, 'echo', 'poll', 'failed', 'cli', '2026-02-08T10:00:00.000Z',"
            " '2026-02-08T10:01:00.000Z')")
    (desk.home / "config.yaml").write_text(f"state:\n  path: ./data/state.db\n{BROKEN}")
    said = desk.call(*command)
    # `status` exits with 3 where the daemon is down.
    assert said.code == (3 if command == ("status",) else 0)
    assert said.err.startswith(f"warning: {desk.home}/config.yaml:")
    assert said.err.endswith(f"; using the database {desk.database}\n")
    assert said.err.count("\n") == 1


def test_a_broken_configuration_that_hides_the_path_is_78(desk: Desk) -> None:
    (desk.home / "config.yaml").write_text(f"state: {{path: ./a/b}}\n{BROKEN}")
    said = desk.call("status")
    assert (said.code, said.out, said.err.count("\n")) == (78, "", 1)
