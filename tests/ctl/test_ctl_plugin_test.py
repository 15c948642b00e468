"""`test`: a plugin is run beside the queue, and everything that can be said of the run is said."""

from __future__ import annotations

import errno
import json
import os
import signal
import tempfile
from pathlib import Path

import pytest

from ctl.desk import PATIENCE_SECONDS, Desk, Said, run, start
from ductile.state import state_table
from support import processes
from support.clock import START
from support.gate import line_from

SHOWS = """#!/bin/sh
cat >"$HOME/request"
env >"$HOME/environment"
pwd >"$HOME/where"
echo kept >file; mkdir -p below/it; echo 12345 >below/it/other; ln -s file link; mkfifo pipe; chmod 0 below
echo 'said aside' >&2
printf '{"status":"ok","result":"fine","events":[{"type":"made","payload":{"a":1}}],"state_updates":{"n":2}}'
"""
WRONG = """#!/bin/sh
printf '{"status":"good","retry":1,"events":[{"type":"x"},{"type":"ductile.job.x","dedupe_key":2},7],'
printf '"logs":[{"level":"x"}],'
printf '"state_update":{},"results":0}'
"""
SAYS = "#!/bin/sh\nprintf '%s'\n"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a call whose plugin tells what it was given."""
    return {"PATH": os.defpath, "HOME": str(tmp_path)}


def given(home: dict[str, str]) -> dict:
    return json.loads(Path(home["HOME"], "request").read_text())


def write(desk: Desk, name: str, value: object) -> str:
    (desk.home / name).write_text(json.dumps(value))
    return str(desk.home / name)


def test_everything_about_a_run_is_shown(desk: Desk, home: dict[str, str]) -> None:
    desk.plugin("echo", program=SHOWS)
    said = desk.call("test", "echo", environ=home)
    request = given(home)
    lines = said.out.splitlines()
    assert (said.code, said.err) == (0, "")
    assert lines[:5] == ["request:", "    {", '      "protocol": 2,', f'      "job_id": "{request["job_id"]}",',
                         '      "command": "poll",']
    after = lines[lines.index("response:") + 1:]
    assert json.loads("\n".join(after[:after.index("    }") + 1])) == {
        "status": "ok", "result": "fine", "events": [{"type": "made", "payload": {"a": 1}}], "state_updates": {"n": 2}}
    *rest, last = after[after.index("    }") + 1:]
    assert rest == ["stderr:", "    said aside", "left in the workspace:", "    below/it/other  6 B", "    file  5 B",
                    "    link  (link)", "    pipe  (not a file: a job does not keep it)"]
    assert last.startswith("echo poll: succeeded after ") and last.endswith(" s, exit code 0")


def test_the_document_has_what_the_text_has(desk: Desk, home: dict[str, str]) -> None:
    desk.plugin("echo", program=SHOWS)
    found = desk.call("test", "echo", "--json", environ=home).json
    assert 0 < found.pop("seconds") < PATIENCE_SECONDS
    assert found == {
        "plugin": "echo", "command": "poll", "outcome": "succeeded", "retried": False, "error": None, "exit_code": 0,
        "signal": None, "request": given(home), "printed": None, "faults": [], "ignored": [],
        "response": {"status": "ok", "result": "fine", "events": [{"type": "made", "payload": {"a": 1}}],
                     "state_updates": {"n": 2}},
        "stderr": "said aside\n", "files": [
            {"path": "below/it/other", "kind": "file", "size": 6}, {"path": "file", "kind": "file", "size": 5},
            {"path": "link", "kind": "link", "size": None}, {"path": "pipe", "kind": "other", "size": None}],
    }


def test_the_workspace_is_gone_afterwards_and_nothing_is_stored(desk: Desk, home: dict[str, str]) -> None:
    desk.plugin("echo", program=SHOWS)
    with desk.ledger() as conn:
        state_table.put(conn, "echo", {"stored": 1}, START)
    before = desk.dump()
    assert desk.call("test", "echo", environ=home).code == 0
    where = Path(home["HOME"], "where").read_text().strip()
    assert (given(home)["workspace_dir"], given(home)["state"], Path(where).exists()) == (where, {}, False)
    assert desk.dump() == before


def test_without_a_database_it_makes_none(desk: Desk) -> None:
    desk.plugin("echo")
    assert desk.call("test", "echo").code == 0
    assert not desk.database.parent.exists()


def test_the_plugin_gets_the_secret_and_the_operator_its_name(desk: Desk, home: dict[str, str]) -> None:
    desk.plugin("echo", program=SHOWS, config={"token": "${TOKEN}", "list": ["x ${TOKEN}", "$${PLAIN}", 1]})
    said = desk.call("test", "echo", environ={**home, "TOKEN": "s3cret"})
    shown = desk.call("test", "echo", "--json", environ={**home, "TOKEN": "s3cret"}).json["request"]["config"]
    assert given(home)["config"] == {"token": "s3cret", "list": ["x s3cret", "${PLAIN}", 1]}
    assert shown == {"token": "${TOKEN}", "list": ["x ${TOKEN}", "$${PLAIN}", 1]}
    assert "s3cret" not in said.out + said.err
    environment = Path(home["HOME"], "environment").read_text()
    assert "s3cret" not in environment and "DUCTILE_PLUGIN=echo\n" in environment


def test_it_names_the_variable_that_is_missing(desk: Desk) -> None:
    desk.plugin("echo", config={"token": "${TOKEN_OF_ECHO}"})
    said = desk.call("test", "echo")
    assert (said.code, said.out) == (78, "")
    assert said.err.endswith("plugins.echo.config.token: the variable TOKEN_OF_ECHO is not set\n")


def test_every_fault_of_the_protocol_is_named(desk: Desk) -> None:
    desk.plugin("echo", program=WRONG)
    said = desk.call("test", "echo")
    after = said.out.splitlines()
    assert said.code == 1
    assert after[after.index("protocol faults:"):-1] == [
        "protocol faults:", "    retry: expected true or false, got 1",
        "    logs[0].level: expected one of debug, info, warn, error, got 'x'",
        "    logs[0]: the key 'message' is missing",
        "    status: expected one of ok, error, got 'good'",
        "    events[1].type: 'ductile.job.x' is refused, types that start with 'ductile.job.' are reserved",
        "    events[1].dedupe_key: expected a string, got 2", "    events[2]: expected a mapping, got 7",
        "ignored:", "    the key 'state_update' is not known and was ignored (did you mean 'state_updates'?)",
        "    the key 'results' is not known and was ignored (did you mean 'result'?)"]
    assert after[-1].endswith(" s, exit code 0: protocol error: retry: expected true or false, got 1"
                              " (the daemon would retry)")


@pytest.mark.parametrize(("program", "outcome", "exit_code", "number", "retried", "error"), [
    ("#!/bin/sh\necho no json\n", "failed", 0, None, True,
     "protocol error: not one strict JSON object: line 1, column 1: expected a value;"
     " standard output must hold the JSON alone, print to standard error"),
    ("#!/bin/sh\necho oops >&2\nexit 1\n", "failed", 1, None, True, "exited 1: oops"),
    ("#!/bin/sh\n", "failed", 0, None, True, "protocol error: printed nothing"),
    ("#!/bin/sh\nkill -KILL $$\n", "failed", None, 9, True, "killed by SIGKILL"),
    (SAYS % '{"status":"error","error":"no","retry":false}', "failed", 0, None, False, "no"),
    (SAYS % '{"status":"ok"}' + "exit 3\n", "failed", 3, None, True, "said ok but exited 3"),
    (SAYS % '{"status":"ok"}' + "exit 78\n", "failed", 78, None, False, "exited 78 (configuration error)"),
    ("echo\n", "failed", None, None, True, f"could not be started: {os.strerror(errno.ENOEXEC)}: {{program}}"),
    ("#!/bin/sh\nexec sleep 60\n", "timed_out", None, 15, True, "timed out after 1s"),
])
def test_any_other_end_than_success_is_1(desk: Desk, program: str, outcome: str, exit_code: int | None,
                                         number: int | None, retried: bool, error: str) -> None:
    directory = desk.plugin("echo", program=program, timeouts={"poll": "1s"})
    said = desk.call("test", "echo", "--json")
    found = said.json
    assert said.code == 1
    assert (found["outcome"], found["exit_code"], found["signal"], found["retried"], found["error"]) == (
        outcome, exit_code, number, retried, error.format(program=directory / "run"))


def test_what_is_no_response_is_shown_as_it_was_printed(desk: Desk) -> None:
    desk.plugin("echo", program="#!/bin/sh\nprintf 'one\\033\\ntwo'\n")
    said = desk.call("test", "echo")
    lines = said.out.splitlines()
    assert lines[lines.index("printed:"):-1] == [
        "printed:", "    one\\x1b", "    two", "protocol faults:",
        "    not one strict JSON object: line 1, column 1: expected a value;"
        " standard output must hold the JSON alone, print to standard error"]


def test_a_state_that_would_be_too_large_is_no_success(desk: Desk) -> None:
    desk.plugin("echo", program="#!/bin/sh\nprintf '{\"status\":\"ok\",\"state_updates\":{\"a\":\"%01048600d\"}}' 0\n")
    said = desk.call("test", "echo", "--json")
    assert (said.code, said.json["outcome"], said.json["retried"], said.json["error"]) == (
        1, "failed", False, "its state would be 1,048,608 bytes, at most 1,048,576 are allowed")


@pytest.mark.parametrize(("value", "event"), [
    ({"type": "made.up", "payload": [1], "dedupe_key": "k"}, {"type": "made.up", "payload": [1], "dedupe_key": "k"}),
    ({"type": "ductile.job.dead"}, {"type": "ductile.job.dead", "payload": {}}),
    ({"kg": 81}, {"type": "manual", "payload": {"kg": 81}}),
    ([1], {"type": "manual", "payload": [1]}), ("text", {"type": "manual", "payload": "text"}),
    ({"type": "x", "source": "webhook:/x", "event_id": "e", "timestamp": "t", "http": {"method": "POST"}},
     {"type": "x", "payload": {}, "source": "webhook:/x", "event_id": "e", "timestamp": "t",
      "http": {"method": "POST"}}),
])
def test_an_event_is_one_or_the_payload_of_one(desk: Desk, home: dict[str, str], value: object, event: dict) -> None:
    desk.plugin("echo", program=SHOWS)
    assert desk.call("test", "echo", "--event", write(desk, "event", value), environ=home).code == 0
    seen = given(home)
    assert seen["command"] == "handle"
    assert {key: seen["event"][key] for key in event} == event
    assert seen["event"].keys() == event.keys() | {"type", "payload", "source", "timestamp", "event_id"}
    assert event.get("source", "cli") == seen["event"]["source"]


def test_a_state_and_a_command_are_taken(desk: Desk, home: dict[str, str]) -> None:
    desk.plugin("echo", program=SHOWS)
    state = write(desk, "state", {"a": "workspace://file"})
    assert desk.call("test", "echo", "health", "--state", state, environ=home).code == 0
    seen = given(home)
    assert (seen["command"], seen["state"], "event" in seen) == (
        "health", {"a": f"{seen['workspace_dir']}/file"}, False)


def test_a_request_that_was_shown_is_made_again(desk: Desk, home: dict[str, str]) -> None:
    desk.plugin("echo", program=SHOWS)
    event, state = write(desk, "event", {"type": "x", "payload": {"a": 1}}), write(desk, "state", {"b": 2})
    first = desk.call("test", "echo", "--event", event, "--state", state, "--json", environ=home).json
    for captured in (first, {**first["request"], "context": {"c": 3}}):
        file = write(desk, "captured", captured)
        again = desk.call("test", "echo", "--request", file, "--json", environ=home).json["request"]
        assert (again["command"], again["event"], again["state"], again["context"]) == (
            "handle", first["request"]["event"], {"b": 2}, captured.get("context", {}))
        assert again["job_id"] != first["request"]["job_id"]
    assert desk.call("test", "echo", "poll", "--request", file, "--state", write(desk, "s", {}), environ=home).code == 0
    assert (given(home)["command"], given(home)["state"], given(home)["context"]) == ("poll", {}, {"c": 3})


@pytest.mark.parametrize(("option", "content", "expected"), [
    ("--event", "{", "{file}: not strict JSON: line 1, column 2: expected a key in double quotes"),
    ("--event", '{"type": "video", "url": "x"}',
     "{file}: an object with a 'type' is read as an event, and an event has no key 'url'; give a payload as"
     ' {{"type": "manual", "payload": …}}'),
    ("--event", '{"type": ""}', "{file}: type: expected a string, because an object with a 'type' is read as an event"),
    ("--event", '{"type": 7}', "{file}: type: expected a string, because an object with a 'type' is read as an event"),
    ("--state", "[]", "{file}: expected one JSON object, got a list"),
    ("--state", "x", "{file}: not strict JSON: line 1, column 1: expected a value"),
    ("--request", "7", "{file}: expected one JSON object, got 7"),
    ("--request", '{"request": 7}', "{file}: request: expected one JSON object, got 7"),
    ("--request", "{}", "{file}: not a request: the key 'command' is missing or is not a string"),
    ("--request", '{"command": "poll", "state": 7}', "{file}: state: expected one JSON object, got 7"),
    ("--request", '{"command": "poll", "context": []}', "{file}: context: expected one JSON object, got a list"),
    ("--request", '{"command": "poll", "event": []}', "{file}: event: expected one JSON object, got a list"),
    ("--request", '{"command": "poll", "event": {}}', "{file}: event: the key 'type' is missing"),
])
def test_a_file_that_is_not_what_it_should_be_is_65(desk: Desk, option: str, content: str, expected: str) -> None:
    desk.plugin("echo")
    file = desk.home / "given"
    file.write_text(content)
    assert desk.call("test", "echo", option, str(file)) == Said(
        code=65, out="", err=expected.format(file=file) + "\n")


def test_a_file_that_is_not_there_is_74(desk: Desk) -> None:
    desk.plugin("echo")
    assert desk.call("test", "echo", "--event", "/no/such") == Said(
        code=74, out="", err="/no/such: cannot be read: No such file or directory\n")


def test_one_of_them_may_come_from_standard_input(desk: Desk, home: dict[str, str]) -> None:
    desk.plugin("echo", program=SHOWS)
    with tempfile.TemporaryFile() as stdin:
        stdin.write(b'{"kg": 81}')
        stdin.seek(0)
        assert desk.process("test", "echo", "--event", "-", stdin=stdin, env=home).code == 0
    assert given(home)["event"]["payload"] == {"kg": 81}
    assert desk.call("test", "echo", "--event", "-", "--state", "-") == Said(
        code=64, out="",
        err="ductilectl test: only one of --request, --event and --state can be standard input (-)\n")


def test_what_is_not_there_to_be_tested_is_66(desk: Desk) -> None:
    desk.plugin("echo")
    assert desk.call("test", "ecko") == Said(
        code=66, out="", err="no plugin 'ecko' is configured (did you mean 'echo'?)\n")
    assert desk.call("test", "echo", "handel") == Said(
        code=66, out="", err="plugin echo has no command 'handel' (did you mean 'handle'?)\n")
    assert desk.call("test", f"{desk.home}/plugins") == Said(
        code=66, out="", err=f"no plugin in {desk.home}/plugins: there is no manifest.yaml\n")


def test_one_that_is_configured_but_not_loaded_says_why(desk: Desk) -> None:
    directory = desk.plugin("echo")
    (directory / "run").chmod(0o644)
    assert desk.call("test", "echo") == Said(
        code=1, out="", err=f"plugin echo is not loaded: {directory}/run: the entrypoint is not executable:"
                            f" chmod a+rx {directory}/run\n")


def test_a_disabled_plugin_can_be_tested(desk: Desk) -> None:
    desk.plugin("echo", enabled=False)
    assert desk.call("test", "echo").code == 0


@pytest.mark.parametrize("place", ["{home}/plugins/echo", "plugins/echo", "./plugins/echo/"])
def test_a_directory_needs_no_configuration(desk: Desk, place: str) -> None:
    desk.plugin("echo", config={"a": 1})
    (desk.home / "config.yaml").unlink()
    said = run("test", place.format(home=desk.home), "--json", cwd=desk.home)
    assert (said.code, said.err) == (0, "")
    found = said.json
    assert (found["plugin"], found["request"]["config"]) == ("echo", {})


def test_the_directory_one_stands_in_is_one_too(desk: Desk) -> None:
    directory = desk.plugin("echo")
    said = desk.process("test", ".", cwd=directory)
    assert (said.code, said.err) == (0, "")


def test_a_directory_whose_plugin_cannot_be_loaded_says_why(desk: Desk) -> None:
    directory = desk.plugin("echo")
    with open(directory / "manifest.yaml", "a") as manifest:
        manifest.write("config_keys: {required: [token]}\n")
    assert desk.call("test", str(directory)) == Said(
        code=1, out="", err="plugin echo is not loaded: plugins.echo.config lacks token, which the plugin requires\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_plugin_and_clears_the_workspace_away(desk: Desk, number: int, code: int) -> None:
    desk.plugin("slow", program='#!/bin/sh\nmkdir -m 0 shut\necho "$$ $PWD" >"$HOME/up"\nexec sleep 60\n')
    os.mkfifo(desk.home / "up")
    process = start("test", "slow", home=desk.home, env={"HOME": str(desk.home), "PATH": os.defpath})
    try:
        pid, workspace = line_from(desk.home / "up").split()
        process.send_signal(number)
        assert process.communicate(timeout=PATIENCE_SECONDS) == ("", "")
        assert process.returncode == code
        assert (Path("/proc", pid).exists(), Path(workspace).exists()) == (False, False)
    finally:
        process.kill()
        process.communicate()


def test_what_the_shell_has_started_before_lives_on(desk: Desk) -> None:
    desk.plugin("echo", program="#!/bin/sh\nsetsid sleep 60 >/dev/null 2>&1 &\necho $! >\"$HOME/stray\"\n"
                                "printf '{\"status\":\"ok\"}'\n")
    shell = 'sleep 60 >/dev/null 2>&1 & echo $! >"$HOME/before"; exec "$@"'
    said = desk.process("test", "echo", become=("sh", "-c", shell, "sh"),
                        env={"HOME": str(desk.home), "PATH": os.defpath})
    before, stray = (int((desk.home / name).read_text()) for name in ("before", "stray"))
    try:
        assert (said.code, said.err) == (0, "")
        assert (Path("/proc", str(before)).exists(), Path("/proc", str(stray)).exists()) == (True, False)
    finally:
        os.kill(before, signal.SIGKILL)
        processes.await_end(before, PATIENCE_SECONDS)


def test_a_closed_pipe_ends_it_quietly(desk: Desk) -> None:
    desk.plugin("echo", program=SAYS % ('{"status":"ok","result":"' + "x" * 100_000 + '"}'))
    ours, theirs = os.pipe()
    os.close(ours)
    said = start("test", "echo", home=desk.home, stdout=theirs)
    os.close(theirs)
    assert said.communicate(timeout=PATIENCE_SECONDS) == (None, "")
    assert said.returncode == 0


def test_the_help_says_what_is_shown_of_secrets() -> None:
    said = run("test", "--help")
    assert "config is shown as in the file, with ${NAME} for variables" in said.out
    assert (said.code, said.err) == (0, "")
