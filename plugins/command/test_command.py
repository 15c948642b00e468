"""The command plugin, which starts real commands: in this process, and as a process with a group and leftovers."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ductile.protocol import Response, decode_response, encode_request
from support import steps
from support.notified import ENVIRON, failure
from support.plugin_runs import readme_config

HERE = Path(__file__).resolve().parent
LIMIT = 64 * 1024
FOR_EVER = "exec sleep 999999999"


def encoded(workspace: Path, argv: object, *, command: str = "handle", payload: object = None,
            **config: object) -> bytes:
    event = {"type": "t", "payload": payload, "source": "cli"} if command == "handle" else None
    return encode_request(
        protocol=2, job_id="j-1", command=command, config={"argv": argv, **config}, state={}, event=event,
        deadline_at="2026-02-08T10:00:00.000Z", context={}, workspace_dir=os.fspath(workspace),
    )


def start(request: bytes, workspace: Path, *, stderr: object = subprocess.PIPE,
          keep_open: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    """Start the plugin with its request in a file, as Ductile does, at the head of a session."""
    (given := workspace.with_name("request")).write_bytes(request)
    with given.open("rb") as stdin:
        return subprocess.Popen(
            [HERE / "run.py"], stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, env=ENVIRON, cwd=workspace,
            start_new_session=True, pass_fds=keep_open)


def run(request: bytes, workspace: Path) -> Response:
    return steps.run(HERE, request, workspace)


def run_process(request: bytes, workspace: Path, *, stderr: bytes | None = b"", keep_open: tuple[int, ...] = (),
                code: int = 0) -> Response:
    """Run the plugin; `stderr` is what it must write there, None for anything."""
    complaints = workspace.with_name("stderr")
    with complaints.open("wb") as file, start(request, workspace, stderr=file, keep_open=keep_open) as process:
        try:
            printed, _ = process.communicate(timeout=60)
            assert process.returncode == code
        finally:
            end_group(process.pid)
    assert stderr is None or complaints.read_bytes() == stderr
    return decode_response(printed)


def end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    return made


def do(workspace: Path, *argv: str, payload: object = None, command: str = "handle", **config: object) -> Response:
    return run(encoded(workspace, list(argv), payload=payload, command=command, **config), workspace)


def do_as_process(workspace: Path, *argv: str, payload: object = None, stderr: bytes | None = b"") -> Response:
    return run_process(encoded(workspace, list(argv), payload=payload), workspace, stderr=stderr)


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_the_output_is_the_result_and_an_event(workspace):
    response = do_as_process(workspace, "printf", "%s|", "a b", "$HOME", "*", "; exit 3", "é")
    output = "a b|$HOME|*|; exit 3|é|"
    (event,) = response.events
    assert (response.status, response.result) == ("ok", output)
    assert (event.type, event.payload) == ("command.done", {"exit_code": 0, "output": output, "truncated": False})


@pytest.mark.parametrize("payload", [{"a": [1, "é\n\"", None]}, {}, [1], "words", 5, None])
def test_handle_gives_the_payload_as_one_line_of_json(workspace, payload):
    output = do(workspace, "cat", payload=payload).result
    assert (json.loads(output), output.count("\n")) == (payload, 1)


def test_poll_gives_an_empty_object(workspace):
    assert do(workspace, "cat", command="poll").result == "{}\n"


def test_an_event_without_a_payload_gives_an_empty_object(workspace):
    request = {"command": "handle", "config": {"argv": ["cat"]}, "event": {"type": "t"}}
    assert run(json.dumps(request).encode(), workspace).result == "{}\n"


def test_the_command_runs_in_the_workspace(workspace, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    assert run(encoded(other, ["pwd"]), workspace).result == f"{other}\n"


def test_a_workspace_that_is_gone_is_tried_again(workspace, tmp_path):
    assert failure(run(encoded(tmp_path / "gone", ["pwd"]), workspace)) == ("workspace_dir: cannot be entered", True)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo out; exit 1", "sh exited 1"), ("echo out; exit 78", "sh exited 78"),
        ("echo out; kill -9 $$", "sh was ended by signal 9"), ("echo out; kill -15 $$", "sh was ended by signal 15"),
    ],
)
@pytest.mark.parametrize(
    ("config", "retry"), [({}, True), ({"retry": None}, True), ({"retry": True}, True), ({"retry": False}, False)])
def test_a_failure_is_named_and_keeps_the_output(workspace, script, error, config, retry):
    response = do(workspace, "sh", "-c", script, **config)
    assert failure(response) == (error, retry)
    assert response.result == "out\n"


def test_what_the_command_complains_of_is_passed_on(workspace):
    script = "echo to you; echo to me >&2"
    assert do_as_process(workspace, "sh", "-c", script, stderr=b"to me\n").result == "to you\n"


@pytest.mark.parametrize(("script", "error"), [
    ("echo no >&2; echo 'the disk is full' >&2; echo >&2; exit 1", "sh exited 1: the disk is full"),
    ("printf 'a\\033[1m\\377b' >&2; kill -9 $$", "sh was ended by signal 9: a [1m\ufffdb"),
    ("head -c 200000 /dev/zero | tr '\\0' x >&2; echo >&2; echo last >&2; exit 3", "sh exited 3: last")])
def test_a_failure_says_the_last_line_of_complaint(workspace, script, error):
    assert failure(do(workspace, "sh", "-c", script)) == (error, True)


# Large, strange and unread

@pytest.mark.parametrize(("size", "truncated"), [(0, False), (LIMIT, False), (LIMIT + 1, True), (20_000_000, True)])
def test_output_past_64_kib_is_cut(workspace, size, truncated):
    (event,) = do(workspace, "head", "-c", str(size), "/dev/zero", payload={}).events
    assert event.payload == {"exit_code": 0, "output": "", "truncated": truncated}
    (event,) = do(workspace, "sh", "-c", f"head -c {size} /dev/zero | tr '\\0' x").events
    assert event.payload == {"exit_code": 0, "output": "x" * min(size, LIMIT), "truncated": truncated}


def test_no_character_is_cut_in_two(workspace):
    (event,) = do(workspace, *python(f"import sys; sys.stdout.buffer.write(b'x' + 'é'.encode() * {LIMIT})")).events
    assert event.payload["output"] == "x" + "é" * (LIMIT // 2 - 1)


@pytest.mark.parametrize(
    ("printed", "output"),
    [
        (b"a\xffb", "a\ufffdb"), (b"a\x00b\x00", "ab"), (b"ends in \xc3", "ends in \ufffd"),
        (b"\xed\xa0\x80", "\ufffd" * 3), (b"\x1b[1m\r\n", "\x1b[1m\r\n"),
    ],
)
def test_output_becomes_text_that_json_can_hold(workspace, printed, output):
    assert do(workspace, *python(f"import sys; sys.stdout.buffer.write({printed!r})")).result == output


def test_a_large_payload_that_nobody_reads_is_no_error(workspace):
    assert do(workspace, "true", payload={"a": "x" * 4_000_000}).status == "ok"


def test_a_large_payload_and_a_large_output_do_not_wait_for_each_other(workspace):
    script = "import sys; sys.stdout.write('x' * 4_000_000); print(len(sys.stdin.read()), file=sys.stderr)"
    response = do_as_process(workspace, *python(script), payload="y" * 4_000_000, stderr=b"4000003\n")
    assert response.status == "ok"


def test_a_command_that_closes_its_output_is_waited_for(workspace):
    response = do_as_process(workspace, "sh", "-c", "exec >&-; cat >/dev/null; exit 4")
    assert failure(response) == ("sh exited 4", True)


@pytest.mark.parametrize("left", ["sleep 999999999", "yes", "yes >&2"])
def test_what_is_left_in_the_background_is_not_waited_for(workspace, left):
    response = do_as_process(workspace, "sh", "-c", f"echo done; {left} & exit 0", stderr=None)
    assert (response.status, response.result[:5]) == ("ok", "done\n")


# What cannot be started

def test_a_missing_executable_is_not_tried_again(workspace):
    missing = os.strerror(errno.ENOENT)
    assert failure(do(workspace, "no-such-command")) == (f"no-such-command: {missing}", False)
    assert failure(do(workspace, "./none", retry=True)) == (f"./none: {missing}", False)


@pytest.mark.parametrize(
    ("content", "mode", "number"),
    [
        ("#!/bin/sh\n", 0o644, errno.EACCES), ("#!/no/such/interpreter\n", 0o755, errno.ENOENT),
        ("not a program", 0o755, errno.ENOEXEC),
    ],
)
def test_a_file_that_cannot_be_run_is_not_tried_again(workspace, content, mode, number):
    program = workspace / "program"
    program.write_text(content)
    program.chmod(mode)
    assert failure(do(workspace, "./program")) == (f"./program: {os.strerror(number)}", False)


def test_a_file_that_is_just_being_written_is_tried_again(workspace):
    program = workspace / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with program.open("a"):
        assert failure(do(workspace, "./program", retry=False)) == (f"./program: {os.strerror(errno.ETXTBSY)}", True)


def test_an_argument_beyond_what_the_system_takes_is_not_tried_again(workspace):
    assert failure(do(workspace, "true", "x" * 1_000_000)) == (f"true: {os.strerror(errno.E2BIG)}", False)


# Its end

def test_the_command_is_in_the_group_of_the_plugin(workspace):
    with start(encoded(workspace, list(python("import os; print(os.getpgrp())"))), workspace) as process:
        response = decode_response(process.communicate(timeout=60)[0])
    assert int(response.result) == process.pid


def test_the_lock_of_the_run_goes_on_to_the_command(workspace):
    reader, writer = os.pipe()
    try:
        script = f"test -p /proc/self/fd/{writer} && ls /proc/$$/fd"
        response = run_process(encoded(workspace, ["sh", "-c", script]), workspace, keep_open=(writer,))
    finally:
        os.close(reader)
        os.close(writer)
    assert set(response.result.split()) == {"0", "1", "2", str(writer)}


def stopped(workspace: Path, script: str) -> tuple[int, bytes, bool]:
    """Send SIGTERM to the plugin alone; return how it ended, what it printed, and whether the script ended too."""
    with start(encoded(workspace, ["sh", "-c", script]), workspace) as process:
        try:
            # The script tells its PID once it is ready to be ended.
            assert select.select([process.stderr], [], [], 60)[0]
            pidfd = os.pidfd_open(int(process.stderr.readline()))
            process.send_signal(signal.SIGTERM)
            ended = process.wait(timeout=60)
            gone = bool(select.select([pidfd], [], [], 10)[0])
            os.close(pidfd)
        finally:
            end_group(process.pid)
        return ended, process.stdout.read(), gone


def test_the_command_ends_with_the_plugin(workspace):
    assert stopped(workspace, f"echo $$ >&2; {FOR_EVER}") == (-signal.SIGTERM, b"", True)


def test_the_command_may_clean_up_first(workspace):
    script = "trap 'echo clean >state; exit' TERM; echo $$ >&2; while :; do sleep 0.05; done"
    assert stopped(workspace, script) == (-signal.SIGTERM, b"", True)
    assert (workspace / "state").read_text() == "clean\n"


def test_a_command_that_is_deaf_is_killed(workspace):
    assert stopped(workspace, f"trap '' TERM; echo $$ >&2; {FOR_EVER}") == (-signal.SIGTERM, b"", True)


def test_a_command_without_output_ends_with_the_plugin_too(workspace):
    assert stopped(workspace, f"exec >&-; echo $$ >&2; {FOR_EVER}") == (-signal.SIGTERM, b"", True)


# What is configured wrongly

NO_ARGV = "argv: expected a list of strings, the command and its arguments (a number needs quotes)"


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ([], "config: expected a mapping"),
        ({}, "config: argv missing"), ({"argv": None}, "config: argv missing"),
        ({"argv": "ls -l"}, NO_ARGV), ({"argv": []}, NO_ARGV),
        ({"argv": {"ls": 1}}, NO_ARGV),
        ({"argv": ["sleep", 5]}, NO_ARGV),
        ({"argv": [""]}, NO_ARGV),
        ({"argv": [["ls"]]}, NO_ARGV),
        ({"argv": ["true"], "retry": 0}, "retry: expected true or false"),
        ({"argv": ["true"], "retry": "no"}, "retry: expected true or false"),
        ({"argv": ["true"], "retry": []}, "retry: expected true or false"),
        ({"argv": ["true"], "shell": True}, "config: unknown key 'shell', expected one of argv, retry"),
    ],
)
def test_a_wrong_configuration_is_named_and_not_tried_again(workspace, config, error):
    for command in ("poll", "health"):
        assert failure(run(json.dumps({"config": config, "command": command}).encode(), workspace)) == (error, False)


def test_a_wrong_configuration_exits_with_78(workspace):
    given = json.dumps({"config": {"argv": 1}, "command": "poll"}).encode()
    assert failure(run_process(given, workspace, code=78)) == (NO_ARGV, False)


@pytest.mark.parametrize(
    ("word", "refusal"),
    [
        ("a\0b", NO_ARGV),
        ("\ud800", "echo: not a string that a command line can hold"),
    ],
)
def test_a_string_that_no_command_line_can_hold_is_refused(workspace, word, refusal):
    request = json.dumps({"config": {"argv": ["echo", word]}, "command": "poll"}).encode()
    assert failure(run(request, workspace)) == (refusal, False)


def test_health_says_whether_the_command_is_there_and_runs_nothing(workspace):
    response = do(workspace, "touch", "made", command="health")
    assert (response.status, response.result) == ("ok", "would run touch")
    assert failure(do(workspace, "no-such-command", command="health")) == ("no-such-command: not found in PATH", False)
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    "request_", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_what_is_no_request_is_refused(workspace, request_):
    assert failure(run(request_, workspace)) == ("the request is not a JSON object", False)


def test_a_process_without_a_request_refuses(workspace):
    assert failure(run_process(b"", workspace)) == ("the request is not a JSON object", False)


@pytest.mark.parametrize("command", ["init", None, ["poll"]])
def test_another_command_is_refused(workspace, command):
    request = json.dumps({"config": {"argv": ["true"]}, "command": command}).encode()
    assert failure(run(request, workspace)) == ("command has no such command", False)


def test_the_example_of_the_readme_is_a_good_configuration(tmp_path):
    assert readme_config(HERE, tmp_path)
