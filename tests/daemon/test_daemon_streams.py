"""The exit code of `ductiled` tells the truth, whatever standard output and standard error take of its lines."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from support import hooks
from support.daemon import RealDaemon
from support.unwritable import BUFFERINGS, KINDS, unwritable

FULL = "cannot write standard output: No space left on device\n"
LINES, UNBUFFERED = BUFFERINGS
EVERY_ANSWER = [(("-t",), LINES), (("--help",), LINES), (("--version",), LINES), (("-t",), UNBUFFERED)]


def exit_code(daemon: RealDaemon, *options: str, kind: str, buffering: Mapping[str, str]) -> int:
    """Run the daemon with a standard error that takes nothing."""
    with unwritable(kind) as fd:
        run = daemon.run(*options, env={**daemon.environ, **buffering}, stdout=fd, stderr=fd)
    return run.returncode


@pytest.mark.parametrize(("kind", "buffering"), [*((kind, LINES) for kind in KINDS), ("full", UNBUFFERED)])
def test_a_line_that_nobody_can_read_does_not_change_why_it_ends(daemon: RealDaemon, kind: str,
                                                                 buffering: Mapping[str, str]) -> None:
    assert exit_code(daemon, "-c", "/nonexist", kind=kind, buffering=buffering) == 78


@pytest.mark.parametrize(("options", "code"), [
    (("-t", "-c", "/nonexist"), 78), (("-d", "-c", "/nonexist"), 78), (("--nonsense",), 64),
])
def test_whatever_it_is_asked_for_the_code_is_the_same(daemon: RealDaemon, options: tuple[str, ...], code: int) -> None:
    assert exit_code(daemon, *options, kind="full", buffering=LINES) == code


def test_problems_that_nobody_can_read_are_problems(daemon: RealDaemon) -> None:
    daemon.configure(what={"is": "this"})
    assert exit_code(daemon, "-t", "-c", str(daemon.home), kind="full", buffering=LINES) == 78


@pytest.mark.parametrize("kind", KINDS)
def test_an_address_that_is_taken_is_71_all_the_same(daemon: RealDaemon, kind: str) -> None:
    hooks.install_hook(daemon)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        hooks.listen(daemon, port=taken.getsockname()[1])
        assert exit_code(daemon, "-c", str(daemon.home), kind=kind, buffering=LINES) == 71


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_that_detaches_has_the_daemons_code(daemon: RealDaemon, kind: str) -> None:
    daemon.configure(service={"log": "./missing/ductile.log"})
    assert exit_code(daemon, "-d", "-c", str(daemon.home), kind=kind, buffering=LINES) == 71


def test_without_standard_error_the_code_is_the_same(daemon: RealDaemon) -> None:
    daemon.forked["closed"] = [2]
    run = daemon.run("-c", "/nonexist")
    assert (run.returncode, run.stdout, run.stderr) == (78, "", "")


@pytest.mark.parametrize(("options", "buffering"), EVERY_ANSWER)
def test_an_answer_that_cannot_be_written_is_71(daemon: RealDaemon, options: tuple[str, ...],
                                                buffering: Mapping[str, str]) -> None:
    daemon.install("ok")
    daemon.environ["DUCTILE_CONFIG"] = str(daemon.home)
    # Executed and not forked: this is Python's own way to write.
    daemon.become = ("env",) if buffering == UNBUFFERED else ()
    with unwritable("full") as fd:
        run = daemon.run(*options, env={**daemon.environ, **buffering}, stdout=fd, stderr=-1)
    assert (run.returncode, run.stderr) == (71, FULL)


@pytest.mark.parametrize(("options", "buffering"), EVERY_ANSWER)
def test_a_reader_that_has_seen_enough_is_no_error(daemon: RealDaemon, options: tuple[str, ...],
                                                   buffering: Mapping[str, str]) -> None:
    daemon.install("ok")
    daemon.environ["DUCTILE_CONFIG"] = str(daemon.home)
    with unwritable("closed pipe") as fd:
        run = daemon.run(*options, env={**daemon.environ, **buffering}, stdout=fd, stderr=-1)
    assert (run.returncode, run.stderr) == (0, "")


def test_a_path_that_no_terminal_can_show_stays_on_one_line(daemon: RealDaemon) -> None:
    directory = os.fsencode(daemon.home) + b"/a\nb\x1b[31mc"
    os.mkdir(directory)
    daemon.install("ok")
    plugins = f"plugins_dir: {daemon.home}/plugins\nplugins: {{ok: {{}}}}\n"
    (Path(os.fsdecode(directory)) / "config.yaml").write_text(plugins)
    shown = f"{daemon.home}/a\\nb\\x1b[31mc/config.yaml"
    run = daemon.run("-t", "-c", os.fsdecode(directory))
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{shown}: ok, 1 plugin configured\n", "")
    (Path(os.fsdecode(directory)) / "config.yaml").write_text(f"what: 1\n{plugins}")
    for options in (("-t",), ()):
        run = daemon.run(*options, "-c", os.fsdecode(directory))
        assert run.returncode == 78
        assert f"{shown}:1:1: what: unknown key" in run.stderr.splitlines()
        assert [line for line in run.stderr.splitlines() if not line.startswith(shown)] == []
