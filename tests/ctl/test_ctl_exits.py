"""The exit codes that every command shares, and what a terminal, a pipe and an ordinary user see."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ctl.desk import PATIENCE_SECONDS, Desk, Said, job_id, run, start
from support.gate import line_from
from support.ledger import put_ended

READING = (("status",), ("queue",), ("logs",), ("logs", "-f"), ("inspect", "0000"), ("state", "echo"))
CHANGING = (("run", "echo"), ("emit", "made"), ("retry", "0000"), ("cancel", "0000"), ("reset", "echo"), ("reload",),
            ("state", "echo", "--clear"))
NOBODY = 65534
STRANGER = 12345    # a UID that no account has
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes an ordinary user, which takes root")


def nothing_yet(desk: Desk) -> str:
    return f"ductiled has not run yet: there is no database at {desk.database}"


@pytest.mark.parametrize("command", READING)
def test_without_a_database_reading_commands_say_so(desk: Desk, command: tuple[str, ...]) -> None:
    desk.plugin("echo")
    assert desk.call(*command) == Said(code=3 if command == ("status",) else 0, out=f"{nothing_yet(desk)}\n", err="")
    assert desk.call(*command, "--json").json == {"database": None, "message": nothing_yet(desk)}
    assert not desk.database.parent.exists()


@pytest.mark.parametrize("command", CHANGING)
def test_without_a_database_other_commands_are_69(desk: Desk, command: tuple[str, ...]) -> None:
    desk.plugin("echo")
    assert desk.call(*command) == Said(code=69, out="", err=f"{nothing_yet(desk)}\n")
    assert not desk.database.parent.exists()


@pytest.mark.parametrize("command", READING + CHANGING)
def test_a_file_that_is_no_database_is_65(desk: Desk, command: tuple[str, ...]) -> None:
    desk.plugin("echo")
    desk.database.parent.mkdir()
    desk.database.write_bytes(b"x" * 8192)
    said = desk.call(*command)
    assert (said.code, said.out) == (65, "")
    assert said.err == (f"the database {desk.database} is damaged (file is not a database); restore a backup"
                        " with `ductilectl restore FILE`\n")


@pytest.mark.parametrize("command", READING + CHANGING)
def test_a_newer_database_is_65(desk: Desk, command: tuple[str, ...]) -> None:
    desk.plugin("echo")
    with desk.ledger() as conn:
        conn.execute("PRAGMA user_version = 9999")
    said = desk.call(*command)
    assert (said.code, said.out, "newer than this program's" in said.err) == (65, "", True)


def test_damage_found_while_reading_is_65(desk: Desk) -> None:
    with desk.ledger() as conn:
        put_ended(conn, range(2000), at="2026-02-08T10:00:00.000Z")
        page = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'job_log'").fetchone()[0]
    with open(desk.database, "r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\0" * 4096)
    said = desk.call("logs")
    assert (said.code, said.out, "is damaged" in said.err) == (65, "", True)


@pytest.mark.parametrize("command", [each for each in CHANGING if each[0] != "cancel"])
def test_a_configuration_that_is_no_yaml_is_78(desk: Desk, command: tuple[str, ...]) -> None:
    (desk.home / "config.yaml").write_text("a: [\n")
    said = desk.call(*command)
    line = f"{desk.home}/config.yaml:1:4: "
    assert (said.code, said.out, said.err.startswith(line), said.err.count("\n")) == (78, "", True, 1)


@pytest.mark.parametrize("state", ["7", "{path: 7}", "[]"])
def test_a_configuration_that_does_not_say_where_the_database_is_is_78(desk: Desk, state: str) -> None:
    (desk.home / "config.yaml").write_text(f"state: {state}\n")
    said = desk.call("status")
    assert (said.code, said.out, said.err.startswith(f"{desk.home}/config.yaml:1:")) == (78, "", True)


def test_other_faults_of_the_configuration_do_not_hide_the_status(desk: Desk) -> None:
    (desk.home / "config.yaml").write_text("what: 1\n")
    problem = f"{desk.home}/config.yaml:1:1: what: unknown key"
    assert desk.call("status") == Said(
        code=3, out=f"{nothing_yet(desk)}\n", err=f"warning: {problem}; see ductilectl check\n")
    # What is in force would be another answer.
    assert desk.call("schedule") == Said(code=78, out="", err=f"{problem}\n")


def test_without_any_configuration_it_names_the_places(desk: Desk) -> None:
    process = start("status", home=None, env={"HOME": str(desk.home)})
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, out) == (78, "")
    assert err == (
        f"no configuration found (looked at $DUCTILE_CONFIG, {desk.home}/.config/ductile/config.yaml,"
        " /etc/ductile/config.yaml); `ductilectl init` writes a starter configuration\n")


@as_root
def test_a_configuration_that_may_not_be_looked_at_is_77(desk: Desk) -> None:
    for directory in desk.home.parents[:-2]:
        directory.chmod(directory.stat().st_mode | 0o055)
    assert desk.process("status", user=NOBODY) == Said(code=77, out="", err=(
        f"{desk.home}/config.yaml: cannot be read: Permission denied, named by -c; run this as the user that runs"
        " ductiled\n"))


@as_root
def test_a_user_without_a_home_needs_none(desk: Desk) -> None:
    for directory in (desk.home, *desk.home.parents[:-2]):
        directory.chmod(directory.stat().st_mode | 0o055)
    assert desk.process("status", user=STRANGER) == Said(code=3, out=f"{nothing_yet(desk)}\n", err="")
    assert run("status", user=STRANGER, env={}) == Said(code=78, out="", err=(
        "no configuration found (looked at $DUCTILE_CONFIG, /etc/ductile/config.yaml); `ductilectl init` writes"
        " a starter configuration\n"))


@as_root
@pytest.mark.parametrize("command", [("status",), ("queue",), ("cancel", "0000"), ("run", "echo")])
def test_an_ordinary_user_who_may_not_is_77(desk: Desk, command: tuple[str, ...]) -> None:
    desk.plugin("echo")
    for directory in (desk.home, *desk.home.parents[:-2]):
        directory.chmod(directory.stat().st_mode | 0o055)
    with desk.ledger():
        pass
    said = desk.process(*command, user=NOBODY)
    assert said == Said(code=77, out="", err=(
        f"no permission for the database {desk.database}: run this as the user that runs ductiled\n"))


@as_root
@pytest.mark.parametrize("command", [("state", "echo", "--set"), ("test", "echo", "--event"),
                                     ("test", "echo", "--state"), ("test", "echo", "--request")])
def test_a_file_that_may_not_be_read_is_77(desk: Desk, command: tuple[str, ...]) -> None:
    desk.plugin("echo")
    for directory in (desk.home, *desk.home.parents[:-2]):
        directory.chmod(directory.stat().st_mode | 0o055)
    (desk.home / "given.json").touch(mode=0o600)
    said = desk.process(*command, str(desk.home / "given.json"), user=NOBODY)
    assert said == Said(code=77, out="", err=f"{desk.home}/given.json: cannot be read: Permission denied\n")


def test_a_closed_pipe_ends_it_quietly(desk: Desk) -> None:
    with desk.ledger() as conn:
        put_ended(conn, range(3000), at="2026-02-08T10:00:00.000Z")
    ours, theirs = os.pipe()
    os.close(ours)
    process = start("logs", "-n", "3000", home=desk.home, stdout=theirs)
    os.close(theirs)
    assert process.communicate(timeout=PATIENCE_SECONDS) == (None, "")
    assert process.returncode == 0


def test_a_terminal_that_knows_no_such_character_ends_nothing(desk: Desk) -> None:
    desk.plugin("echo", commands=("poll",))
    (desk.home / "plugins" / "echo" / "manifest.yaml").write_text(
        "name: echo\nversion: '1é'\nprotocol: 2\nentrypoint: run\ncommands: [poll]\n")
    said = desk.process("plugins", env={"PYTHONIOENCODING": "ascii"})
    assert (said.code, "1\\xe9" in said.out, said.err) == (0, True, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_plugin_that_is_asked_how_it_is(desk: Desk, number: int, code: int) -> None:
    desk.plugin("slow", commands=("health",), program='#!/bin/sh\necho $$ >"$HOME/up"\nexec sleep 60\n')
    os.mkfifo(desk.home / "up")
    process = start("health", home=desk.home, env={"HOME": str(desk.home), "PATH": os.defpath})
    try:
        plugin = int(line_from(desk.home / "up"))
        process.send_signal(number)
        assert process.communicate(timeout=PATIENCE_SECONDS) == ("", "")
        assert process.returncode == code
        assert not Path("/proc", str(plugin)).exists()
    finally:
        process.kill()
        process.communicate()


def test_no_command_makes_or_migrates_a_database(desk: Desk) -> None:
    desk.plugin("echo")
    desk.database.parent.mkdir()
    with closing(sqlite3.connect(desk.database)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
    before = (desk.database.exists(), desk.database.stat().st_size if desk.database.exists() else None)
    for command in READING + CHANGING:
        assert desk.call(*command).code in (0, 3, 69)
    assert (desk.database.exists(), desk.database.stat().st_size if desk.database.exists() else None) == before


def test_an_id_is_never_taken_for_a_pattern(desk: Desk) -> None:
    with desk.ledger() as conn:
        put_ended(conn, [1], at="2026-02-08T10:00:00.000Z")
    assert desk.call("inspect", job_id(1)[:4].replace("0", "_")).code == 66
