"""What `ductilectl` does and ends with does not depend on whether its lines can be written; if not, it says so."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ctl.desk import Desk
from support.unwritable import BUFFERINGS, KINDS, unwritable

FULL = "cannot write standard output: No space left on device"
DOUBT = "; the command may have taken effect"
UNBUFFERED = BUFFERINGS[1]
every_buffering = pytest.mark.parametrize("buffering", BUFFERINGS, ids=("lines", "unbuffered"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("command", "code"), [
    (("queue", "-n", "x"), 64), (("nonsense",), 64), (("state", "nosuch"), 66), (("inspect", "0000"), 66),
    (("reload",), 69), (("check",), 78),
])
def test_a_line_that_nobody_can_read_does_not_change_how_it_ends(
        desk: Desk, command: tuple[str, ...], code: int, kind: str) -> None:
    desk.plugin("echo")
    if code == 78:
        desk.configure(what=1)
    with desk.ledger(), unwritable(kind) as fd:
        said = desk.process(*command, stderr=fd)
    assert (said.code, said.out) == (code, "")


@every_buffering
@pytest.mark.parametrize("kind", KINDS)
def test_lines_and_output_to_one_closed_pipe_end_with_the_code_of_the_error(desk: Desk, kind: str,
                                                                            buffering: Mapping[str, str]) -> None:
    with desk.ledger(), unwritable(kind) as fd:
        assert desk.process("inspect", "0000", stdout=fd, stderr=fd, env=buffering).code == 66


@pytest.mark.parametrize("kind", KINDS)
def test_a_warning_that_nobody_can_read_does_not_hide_the_job_that_was_queued(desk: Desk, kind: str) -> None:
    desk.plugin("echo")
    with desk.ledger() as conn, unwritable(kind) as fd:
        said = desk.process("run", "echo", stderr=fd)
        [(job_id,)] = conn.execute("SELECT id FROM job_queue").fetchall()
    assert (said.code, said.out) == (0, f"{job_id}\n")


@pytest.mark.parametrize(("command", "line"), [
    (("status", "--json"), FULL), (("queue",), FULL), (("logs",), FULL), (("plugins",), FULL), (("check",), FULL),
    (("--help",), FULL), (("--version",), FULL), (("run", "--help"), FULL),
    (("run", "echo"), FULL + DOUBT), (("health", "echo"), FULL + DOUBT), (("state", "echo", "--clear"), FULL + DOUBT),
])
def test_an_output_that_is_full_is_74(desk: Desk, command: tuple[str, ...], line: str) -> None:
    ends_with_74(desk, command, line, {})


@pytest.mark.parametrize(("command", "line"), [
    (("queue",), FULL), (("--help",), FULL), (("run", "echo"), FULL + DOUBT),
])
def test_an_output_that_is_full_is_74_without_a_buffer_too(desk: Desk, command: tuple[str, ...], line: str) -> None:
    # Executed and not forked: this is Python's own way to write.
    ends_with_74(desk, command, line, UNBUFFERED, become=("env",))


def ends_with_74(desk: Desk, command: tuple[str, ...], line: str, buffering: Mapping[str, str],
                 become: tuple[str, ...] = ()) -> None:
    desk.plugin("echo")
    with desk.ledger(), unwritable("full") as fd:
        said = desk.process(*command, stdout=fd, env=buffering, become=become)
    assert (said.code, said.err.splitlines()[-1:]) == (74, [line])
    assert said.err.count("cannot write") == 1


@every_buffering
def test_help_that_nobody_reads_to_its_end_is_no_error(desk: Desk, buffering: Mapping[str, str]) -> None:
    with unwritable("closed pipe") as fd:
        said = desk.process("--help", stdout=fd, env=buffering)
    assert (said.code, said.err) == (0, "")


def test_a_wrong_argument_stays_on_one_line(desk: Desk) -> None:
    said = desk.process("status", "--a\nb\x1b[31m")
    assert (said.code, said.out, said.err) == (
        64, "", "ductilectl: unrecognized arguments: --a\\nb\\x1b[31m; see ductilectl --help\n")
