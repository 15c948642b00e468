"""Completion in a real bash: commands, options, plugins, pipelines, jobs; never a word on the terminal."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctl.desk import DUCTILECTL, PATIENCE_SECONDS, Desk, Said, call, job_id
from ductile.ctl import commandline
from ductile.main import _parser as ductiled_parser
from ductile.queue.job import Status
from support.ledger import put_ended, put_job

SCRIPTS = Path(__file__).resolve().parents[2] / "contrib" / "completion"
# As in an interactive bash: an equals sign is a word by itself.
PROGRAM = """
source "$1"; function=$2; shift 2
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
"$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


# In place of ductilectl: says with what it was called, or what is in the file beside it.
CALLED = "#!/bin/sh\nprintf '%s\\n' \"$@\"\n"
SAYS = "#!/bin/sh\ncat \"$0.says\"\n"


def complete(*words: str, home: Path | None = None) -> list[str]:
    """Return what the last word may become, or what bash has to look for."""
    said = call("complete", *words, environ=environment(home))
    assert said.code in (0, 78)
    return [line.partition("\t")[0] for line in said.out.splitlines()]


def program(directory: Path, text: str) -> Path:
    """Make a program in place of ductilectl."""
    (directory / "ductilectl").write_text(text)
    (directory / "ductilectl").chmod(0o755)
    return directory / "ductilectl"


def completed(program: Path, *words: str, cwd: Path, home: Path | None = None) -> list[str]:
    """Return what the script for a program makes of the last word, calling this very program."""
    script = (SCRIPTS / f"{program.name}.bash", f"_{program.name}", program)
    done = subprocess.run(["bash", "-c", PROGRAM, "bash", *script, *words], cwd=cwd, env=environment(home),
                          capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.removesuffix("\n").split("\n") if done.stdout.strip() else []


def environment(home: Path | None) -> dict[str, str]:
    return {"PATH": os.defpath} if home is None else {"PATH": os.defpath, "HOME": str(home)}


@pytest.fixture
def filled(desk: Desk) -> Iterator[Desk]:
    """Two plugins, two pipelines, and a job of each status."""
    desk.plugin("echo")
    desk.plugin("ebb")
    (desk.home / "pipelines").mkdir()
    for name in ("video", "voice"):
        text = f"name: {name}\non: {name}.made\nsteps: [{{uses: echo}}]\n"
        (desk.home / "pipelines" / f"{name}.yaml").write_text(text)
    with desk.ledger() as conn:
        for number, status in enumerate((Status.QUEUED, Status.RUNNING, Status.DEAD, Status.SUCCEEDED), start=0xabc0):
            put_job(conn, job_id(number), status)
        yield desk


QUEUED, RUNNING, DEAD, SUCCEEDED = (job_id(number) for number in range(0xabc0, 0xabc4))


@pytest.mark.parametrize(("words", "expected"), [
    (["st"], ["status", "state"]),
    (["--json", "re"], ["retry", "replay", "resume", "reset", "reload", "restore", "report"]),
    (["-c", "x", "pl"], ["plugins"]), (["--config", "=", "x", "pl"], ["plugins"]), (["new"], ["new-plugin"]),
    (["--v"], ["--version"]), (["run", "echo", "--p"], ["--payload"]),
    (["wait", "--"], ["--help", "--config", "--json", "--utc", "--timeout"]),
    (["run", "echo", "h"], ["handle", "health"]), (["run", "echo", "--payload", "x", "h"], ["handle", "health"]),
    (["new-plugin", "--lang", "p"], ["python"]), (["new-plugin", "--lang", "=", "n"], ["node"]),
    (["queue", "-n", "1"], []), (["reload", ""], []), (["what", ""], []),
])
def test_what_needs_no_configuration(words: list[str], expected: list[str]) -> None:
    assert complete(*words) == expected


@pytest.mark.parametrize(("words", "expected"), [
    (["run", ""], ["ebb", "echo"]), (["run", "ec"], ["echo"]), (["test", "x"], []), (["health", "eb"], ["ebb"]),
    (["emit", "x", "--source", "e"], ["ebb", "echo"]), (["emit", "x", "--source", "=", ""], ["ebb", "echo"]),
    (["pipelines", "v"], ["video", "voice"]), (["pipelines", "vo"], ["voice"]),
    (["inspect", ""], [RUNNING, QUEUED, SUCCEEDED, DEAD]), (["inspect", "0000abc0"], [QUEUED]),
    (["inspect", "0000ABC0"], [QUEUED]), (["inspect", "1"], []),
    (["retry", "00"], [DEAD]), (["cancel", ""], [RUNNING, QUEUED]), (["replay", "0000"], [SUCCEEDED, DEAD]),
])
def test_what_is_configured_and_stored(filled: Desk, words: list[str], expected: list[str]) -> None:
    assert complete("-c", str(filled.home), *words) == expected


def test_the_program_itself_is_asked(filled: Desk) -> None:
    assert completed(DUCTILECTL, "-c", str(filled.home), "run", "e", cwd=Path("/")) == ["ebb", "echo"]


@pytest.mark.parametrize("fault", ["no configuration", "no YAML"])
def test_what_the_program_complains_about_is_not_shown(desk: Desk, fault: str) -> None:
    (desk.home / "config.yaml").write_text("a: [\n")
    place = "/no/such" if fault == "no configuration" else str(desk.home)
    assert completed(DUCTILECTL, "-c", place, "run", "", cwd=Path("/")) == []


@pytest.mark.parametrize("words", [("--config={}",), ("--config", "=", "{}"), ("--config", "{}")])
def test_a_configuration_may_stand_behind_an_equals_sign(filled: Desk, words: tuple[str, ...]) -> None:
    named = [word.format(filled.home) for word in words]
    assert complete(*named, "run", "ec") == ["echo"]
    assert complete(*named, "run", "echo", "h") == ["handle", "health"]
    assert complete("pipelines", *named, "vo") == ["voice"]


def test_an_old_job_is_found_by_four_characters(filled: Desk) -> None:
    with filled.ledger() as conn:
        put_ended(conn, range(99_000_000, 99_000_300), at="2026-02-09T10:00:00.000Z")
    assert complete("-c", str(filled.home), "inspect", "0000abc3") == [SUCCEEDED]
    assert SUCCEEDED not in complete("-c", str(filled.home), "inspect", "")


def test_a_configuration_at_home_is_found(filled: Desk) -> None:
    assert complete("-c", f"~/{filled.home.name}", "run", "ec", home=filled.home.parent) == ["echo"]


@pytest.mark.parametrize(("words", "expected"), [
    (["-c", "pl"], ["plugins"]), (["--config", "=", "con"], ["config.yaml"]), (["backup", "da"], ["data"]),
    (["state", "echo", "--set", "con"], ["config.yaml"]), (["new-plugin", "x", "--dir", "c"], []),
    (["init", ""], ["data", "pipelines", "plugins"]), (["test", "./plugins/ec"], ["./plugins/echo"]),
])
def test_files_and_directories(filled: Desk, tmp_path_factory: pytest.TempPathFactory, words: list[str],
                               expected: list[str]) -> None:
    says = program(tmp_path_factory.mktemp("says"), SAYS)
    says.with_name("ductilectl.says").write_text("\n".join(complete(*words)))
    assert sorted(completed(says, *words, cwd=filled.home)) == expected


@pytest.mark.parametrize("words", [
    ("",), ("re",), ("--config", "=", "/a b", "run", ""), ("run", "$(touch made)"), ("-c", "~/x", "state", "*", "=")])
def test_bash_hands_on_every_word_as_it_stands(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert completed(program(tmp_path, CALLED), *words, cwd=tmp_path) == ["complete", *words]


@pytest.mark.parametrize("words", [("run", ""), ("inspect", ""), ("pipelines", "")])
@pytest.mark.parametrize("fault", ["no configuration", "no YAML", "no database"])
def test_what_is_wrong_is_no_word_on_the_terminal(desk: Desk, fault: str, words: tuple[str, ...]) -> None:
    place = {"no configuration": "/no/such"}.get(fault, str(desk.home))
    if fault == "no YAML":
        (desk.home / "config.yaml").write_text("a: [\n")
    assert complete("-c", place, *words) == []


def test_a_hostile_name_is_never_run(desk: Desk) -> None:
    desk.configure(plugins={"$(touch made)": {}, "echo": {}})
    for words in (("run", ""), ("run", "$(touch made)")):
        says = program(desk.home, SAYS)
        (desk.home / "ductilectl.says").write_text("\n".join(complete("-c", str(desk.home), *words)))
        completed(says, "-c", str(desk.home), *words, cwd=desk.home)
    assert not (desk.home / "made").exists()


def test_the_hidden_command_is_named_nowhere(desk: Desk) -> None:
    assert " complete " not in desk.process("--help").out
    assert "complete" not in desk.process("what").err
    assert desk.call("complete", "jobs", "") == Said(code=0, out="", err="")


# What the scripts say by themselves has to be what the programs say.


def parsers() -> dict[str, argparse.ArgumentParser]:
    top = commandline._parser([])
    (commands,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    return {"": top, **commands.choices}


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Return the options of a parser that its help names."""
    return {text for action in parser._actions if action.help != argparse.SUPPRESS for text in action.option_strings}


def test_every_command_is_completed() -> None:
    assert complete("") == [name for name in parsers() if name]


@pytest.mark.parametrize("command", parsers())
def test_every_option_is_completed(command: str) -> None:
    assert set(complete(*([command] if command else []), "-")) == options(parsers()[command])


def test_candidates_have_a_meaning(filled: Desk) -> None:
    assert desk_lines(filled, "pipelines", "vi") == ["video\ton video.made"]
    assert desk_lines(filled, "cance")[0].startswith("cancel\tend ")
    [line] = desk_lines(filled, "retry", "0000abc2")
    assert re.fullmatch(rf"{DEAD}\techo poll dead \d+[a-z] ago", line)
    assert desk_lines(filled, "run", "echo", "po") == ["poll"]
    filled.configure(plugins={"echo": {"enabled": False}})
    assert desk_lines(filled, "run", "e") == ["echo\tdisabled"]


def desk_lines(desk: Desk, *words: str) -> list[str]:
    return desk.call("complete", *words).out.splitlines()


def test_an_option_and_its_value_in_one_word_come_back_as_one(filled: Desk) -> None:
    assert desk_lines(filled, "emit", "x", "--source=ec") == ["--source=echo"]
    assert desk_lines(filled, "jobs", "--status=de") == ["--status=dead", "--status=deduped"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(desk: Desk, shell: str) -> None:
    assert desk.call("completion", shell).out == (SCRIPTS / f"ductilectl.{shell}").read_text()


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish here")
def test_fish_completes_with_meanings(filled: Desk) -> None:
    program = 'source $argv[1]; complete -C "$argv[2]"'
    line = f"{DUCTILECTL} -c {filled.home} pipelines vi"
    done = subprocess.run(["fish", "-N", "-c", f"function ductilectl; {DUCTILECTL} $argv; end; {program}",
                           SCRIPTS / "ductilectl.fish", line.replace(str(DUCTILECTL), "ductilectl")],
                          env={"PATH": f"{DUCTILECTL.parent}:{os.defpath}", "HOME": str(filled.home)}, cwd="/",
                          capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.stdout == "video\ton video.made\n"


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here")
def test_zsh_completes_with_meanings(filled: Desk) -> None:
    program = """
compdef() { :; }
_describe() { print -rl -- $described; }
source $1; shift
words=("$@"); CURRENT=$#
_ductilectl
"""
    done = subprocess.run(["zsh", "-fc", program, "zsh", SCRIPTS / "ductilectl.zsh", DUCTILECTL, "-c", filled.home,
                           "pipelines", "v"], env={"PATH": os.defpath}, cwd="/", capture_output=True, text=True,
                          timeout=PATIENCE_SECONDS)
    assert (done.stdout, done.stderr) == ("video:on video.made\nvoice:on voice.made\n", "")


def test_the_daemon_s_options_are_completed(filled: Desk) -> None:
    def found(*words: str) -> list[str]:
        return completed(DUCTILECTL.with_name("ductiled"), *words, cwd=filled.home)

    assert set(found("-")) == options(ductiled_parser())
    assert found("--ch") == ["--check"]
    assert found("-c", "con") == found("--config", "=", "con") == ["config.yaml"]


@pytest.mark.parametrize("program", ["ductilectl", "ductiled"])
def test_bash_knows_for_which_command_it_is(program: str) -> None:
    done = subprocess.run(["bash", "-c", 'source "$1"; complete -p "$2"', "bash", SCRIPTS / f"{program}.bash", program],
                          env={}, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert (done.returncode, done.stdout) == (0, f"complete -F _{program} {program}\n")


@pytest.mark.parametrize("program", ["ductilectl", "ductiled"])
def test_no_line_of_a_script_is_too_long(program: str) -> None:
    lines = (SCRIPTS / f"{program}.bash").read_text(encoding="utf-8").splitlines()
    assert [number for number, line in enumerate(lines, start=1) if len(line) > 120] == []
