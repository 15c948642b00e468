"""The echo plugin, run as Ductile runs it: one line of JSON in, one strict JSON object out."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parent / "run.sh"
JOB = "0f5a2c1e-7f7a-4a53-9d0c-3a1c8c8d2b11"

AWKWARD = [
    'say "hi"',
    '"',
    '\\',
    'ends in \\',
    'ends in \\"',
    '\\\\" \\" \\\\\\"',
    "$HOME ${PATH} $(id) `id`",
    "it's",
    "a\nb\tc\r\x01",
    "é ☃ 😀",
    "%s %d %n %%",
    "} ] { [ , :",
    '","mode":"fail","x":"',
    '{"mode":"fail"}',
    '},"state":{',
    "*?[a-z]~",
    "-n -e",
    " spaces ",
    "x" * 5000,
]


def request(command: str, *, config: dict, event: dict | None = None, state: dict | None = None) -> bytes:
    """Return a request in the order and form of the core."""
    whole = {"protocol": 2, "job_id": JOB, "command": command, "config": config, "state": state or {}}
    if event is not None:
        whole["event"] = event
    whole |= {"deadline_at": "2026-02-08T10:00:00.000Z", "context": {}, "workspace_dir": "ws"}
    return json.dumps(whole, separators=(",", ":")).encode() + b"\n"


def run(given: bytes) -> bytes:
    done = subprocess.run([RUN], input=given, capture_output=True, check=True, timeout=30)
    assert done.stderr == b""
    return done.stdout


def strict(printed: bytes) -> dict:
    """Return the one JSON object on one line, refusing what is not strict JSON."""
    assert printed.endswith(b"\n") and printed.count(b"\n") == 1
    return json.loads(printed.decode("utf-8"), object_pairs_hook=without_repeats, parse_constant=refuse)


def without_repeats(pairs: list) -> dict:
    assert len({key for key, _ in pairs}) == len(pairs)
    return dict(pairs)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@pytest.mark.parametrize("command", ["poll", "handle"])
def test_poll_and_handle_emit_an_event_and_note_the_time(command):
    answer = strict(run(request(command, config={"message": "Hello"})))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer["state_updates"].pop("last_run"))
    assert answer == {
        "status": "ok",
        "result": "Hello",
        "events": [{"type": f"echo.{command}", "payload": {"message": "Hello"}}],
        "state_updates": {},
        "logs": [{"level": "info", "message": f"{command} done"}],
    }


@pytest.mark.parametrize(("command", "log"), [("health", "all is well"), ("init", "nothing to set up")])
def test_health_and_init_change_nothing(command, log):
    answer = strict(run(request(command, config={"message": "Hello"})))
    assert answer == {"status": "ok", "result": "Hello", "logs": [{"level": "info", "message": log}]}


@pytest.mark.parametrize("config", [{}, {"message": ""}, {"message": None}, {"mode": "ok"}])
def test_without_a_message_it_says_echo(config):
    assert strict(run(request("poll", config=config)))["result"] == "echo"


@pytest.mark.parametrize(
    ("command", "message"),
    [*(("poll", message) for message in AWKWARD), *((other, "".join(AWKWARD)) for other in ("handle", "health",
                                                                                            "init"))],
)
def test_a_message_comes_back_as_it_was(command, message):
    answer = strict(run(request(command, config={"message": message, "mode": "ok"})))
    assert (answer["status"], answer["result"]) == ("ok", message)


def test_no_string_of_a_stranger_is_taken_for_configuration():
    hostile = [{"mode": "fail", "message": message, "command": "poll", "config": {"mode": "fail", "message": message}}
               for message in AWKWARD]
    hostile = dict(zip(AWKWARD, hostile, strict=True)) | hostile[0]
    given = request("handle", config={}, event={"type": "x", "payload": hostile}, state=hostile)
    answer = strict(run(given))
    assert (answer["result"], answer["events"][0]["type"]) == ("echo", "echo.handle")


@pytest.mark.parametrize("order", [("message", "mode"), ("mode", "message")])
def test_the_order_of_the_keys_does_not_matter(order):
    values = {"message": "Hello", "mode": "ok"}
    assert strict(run(request("poll", config={key: values[key] for key in order})))["result"] == "Hello"


@pytest.mark.parametrize("key", ['x"mode', 'x,"mode', "xmode", "mode "])
def test_a_key_that_only_looks_like_one_is_ignored(key):
    assert strict(run(request("poll", config={key: "fail", key.replace("mode", "message"): "x"})))["result"] == "echo"


@pytest.mark.parametrize("command", ["poll", "handle"])
def test_mode_fail_answers_an_error(command):
    assert strict(run(request(command, config={"mode": "fail"}))) == {
        "status": "error", "error": "the configuration asks for a failure (mode: fail)", "retry": True,
    }


def test_an_unknown_mode_is_named_and_not_tried_again():
    assert strict(run(request("poll", config={"mode": 'bro"ken\\'}))) == {
        "status": "error", "error": 'expected one of ok, fail, hang, garbage as mode, got bro"ken\\', "retry": False,
    }


def test_an_unknown_command_is_an_error():
    assert strict(run(request("dance", config={}))) == {
        "status": "error", "error": "echo has no such command", "retry": False,
    }


@pytest.mark.parametrize("command", ["poll", "handle"])
def test_mode_garbage_prints_what_is_not_json(command):
    printed = run(request(command, config={"mode": "garbage"}))
    with pytest.raises(ValueError):
        json.loads(printed)


@pytest.mark.parametrize("command", ["poll", "handle"])
def test_mode_hang_lives_until_it_is_ended(command):
    with subprocess.Popen([RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(request(command, config={"mode": "hang"}))
        process.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == -signal.SIGTERM
        assert process.stdout.read() == b""


@pytest.mark.parametrize("command", ["health", "init"])
@pytest.mark.parametrize("mode", ["fail", "hang", "garbage"])
def test_mode_leaves_health_and_init_alone(command, mode):
    assert strict(run(request(command, config={"mode": mode})))["status"] == "ok"


def test_a_request_without_a_newline_at_its_end_is_read():
    assert strict(run(request("poll", config={"message": "Hello"}).rstrip(b"\n")))["result"] == "Hello"


def test_a_large_payload_is_no_burden():
    given = request("handle", config={}, event={"type": "x", "payload": {"text": '"' * 500_000}})
    assert strict(run(given))["result"] == "echo"
