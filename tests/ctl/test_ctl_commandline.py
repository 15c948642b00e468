"""The command line: help with an example, exit 64, and options before and after the command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pytest

from ctl.desk import Desk
from ctl.json_keys import WITHOUT
from ductile.ctl import commandline
from ductile.validation import nearest

COMMANDS = ("init", "check", "status", "plugins", "pipelines", "queue", "run", "emit", "logs", "inspect", "retry",
            "replay", "cancel", "reset", "health", "test", "reload", "wait", "state", "backup",
            "restore", "new-plugin", "report", "monitor")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    return commandline.parse(arguments, nearest)


def wrong(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 64
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse([command, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: ductilectl {command} [-h]")
    assert f"\nexample:\n  ductilectl {command}" in out
    assert max(map(len, out.splitlines())) <= 79


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_without_a_document_does_not_offer_one(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([command, "--help"])
    assert ("--json" in capsys.readouterr().out.partition("\nexample:")[0]) is (command not in WITHOUT)


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    out = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n    {name} " not in out] == []


@pytest.mark.parametrize(("arguments", "expected"), [
    ((), "ductilectl: the following arguments are required: COMMAND; see ductilectl --help\n"),
    (("statsu",), "ductilectl: unknown command 'statsu' (did you mean 'status'?); see ductilectl --help\n"),
    (("--config=x", "rtry", "1234"), "ductilectl: unknown command 'rtry' (did you mean 'retry'?);"
                                     " see ductilectl --help\n"),
    (("xyzzy\x1b",), "ductilectl: unknown command 'xyzzy\\x1b'; see ductilectl --help\n"),
    (("xomplete",), "ductilectl: unknown command 'xomplete'; see ductilectl --help\n"),
    (("--what", "status"), "ductilectl: unrecognized arguments: --what; see ductilectl --help\n"),
    (("reset",), "ductilectl reset: the following arguments are required: PLUGIN; see ductilectl reset --help\n"),
    (("queue", "-n", "-1"), "ductilectl queue: argument -n: expected a number from 0 to 999999999, got '-1';"
                            " see ductilectl queue --help\n"),
    (("queue", "-n", "x"), "ductilectl queue: argument -n: expected a number from 0 to 999999999, got 'x';"
                           " see ductilectl queue --help\n"),
    (("inspect", "a\x1bb"), "ductilectl inspect: argument JOB: expected printable text, got 'a\\x1bb';"
                            " see ductilectl inspect --help\n"),
    (("state", "echo", "--clear", "--set", "x"), "ductilectl state: argument --set: not allowed with argument --clear;"
                                                 " see ductilectl state --help\n"),
])
def test_a_wrong_command_line_is_one_line_and_64(arguments: tuple[str, ...], expected: str,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    assert wrong(capsys, *arguments) == expected


@pytest.mark.parametrize("arguments", [
    ["-c", "x", "--json", "queue"], ["queue", "-c", "x", "--json"], ["--json", "queue", "--config", "x"],
    ["--config=x", "queue", "--json"],
])
def test_common_options_stand_before_the_command_or_after_it(arguments: list[str]) -> None:
    options = parse(arguments)
    assert (options.name, options.config, options.json, options.limit) == ("queue", "x", True, 100)


def test_the_version_is_shown(desk: Desk) -> None:
    said = desk.process("--version")
    assert (said.code, said.out, said.err) == (0, "ductilectl 0.1.0\n", "")
