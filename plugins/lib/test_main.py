"""The library's way from a request to a response: what a plugin returns, raises, logs and prints by mistake."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.in_process import LIBRARY, library

lib = library()
PLUGIN = """#!/usr/bin/env python3
from ductile_plugin import ConfigError, Permanent, Retry, log, main

def respond(request):
    do = request["config"]["do"]
    log("began")
    print("for people")
    if do == "config":
        raise ConfigError("url: expected a string")
    if do == "bug":
        raise KeyError("oops")
    return {"status": "ok", "result": do}

main(respond)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    made = tmp_path / "plugin"
    made.mkdir()
    (made / "run.py").write_text(PLUGIN, encoding="utf-8")
    shutil.copy(LIBRARY, made)
    return made / "run.py"


def run(plugin: Path, given: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, plugin], input=given, env={"PATH": os.environ["PATH"]}, capture_output=True,
                          check=False, timeout=60)


def do(plugin: Path, what: str) -> subprocess.CompletedProcess[bytes]:
    return run(plugin, json.dumps({"config": {"do": what}}).encode())


# As a process

def test_the_response_alone_is_on_standard_output(plugin):
    done = do(plugin, "é\n")
    assert (done.returncode, done.stderr) == (0, b"for people\n")
    assert done.stdout.count(b"\n") == 1
    assert json.loads(done.stdout) == {
        "status": "ok", "result": "é\n", "logs": [{"level": "info", "message": "began"}]}


def test_an_error_of_configuration_exits_with_78_and_says_why(plugin):
    done = do(plugin, "config")
    assert done.returncode == 78
    assert json.loads(done.stdout) == {"status": "error", "error": "url: expected a string", "retry": False,
                                       "logs": [{"level": "info", "message": "began"}]}


def test_a_bug_keeps_its_traceback_and_prints_no_response(plugin):
    done = do(plugin, "bug")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"oops" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("given", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_what_is_no_request_is_an_error(plugin, given):
    done = run(plugin, given)
    assert (done.returncode, json.loads(done.stdout)) == (
        0, {"status": "error", "error": "the request is not a JSON object", "retry": False})


def test_half_a_character_is_replaced(plugin):
    assert json.loads(run(plugin, b'{"config": {"do": "a\\ud800b"}}').stdout)["result"] == "a?b"


# In process

@pytest.mark.parametrize(("text", "printed"), [
    ("a\0b\0", b'"ab"'), ("\\u0000\0", rb'"\\u0000"'), ("\\\0\"", rb'"\\\""'), ("\ud800é", '"?é"'.encode())])
def test_what_ductile_refuses_in_a_text_is_left_out(text, printed):
    assert lib._encoded({"x": text}) == b'{"x": ' + printed + b"}"


def test_a_file_is_replaced_and_never_changed(tmp_path):
    (old := tmp_path / "a").write_bytes(b"old")
    (other := tmp_path / "b").hardlink_to(old)
    old.chmod(0o400)
    lib.write_file(old, b"new")
    assert (old.read_bytes(), other.read_bytes(), sorted(tmp_path.iterdir())) == (b"new", b"old", [old, other])


def test_what_takes_too_long_is_given_up():
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(lib.Permanent, match=r"^rule 1 took more than 0.05 s$"), lib.within(0.05, "rule 1"):
        re.search("(a+)+$", "a" * 40 + "b")
    with pytest.raises(lib.Retry), lib.within(0, "this", lib.Retry):
        raise AssertionError("there was no time left")
    with lib.within(30, "this"):
        pass
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)) == (before, (0.0, 0.0))


@pytest.mark.parametrize(
    ("error", "retry"),
    [(lib.Retry("x"), True), (lib.Permanent("x"), False), (lib.ConfigError("x"), False), (lib.Failed("x"), False),
     (lib.Failed("x", retry=True), True), (lib.Failed("x", retry=False), False)])
def test_an_error_says_whether_another_attempt_makes_sense(error, retry):
    def respond(request: dict) -> dict:
        raise error

    assert lib.answer(respond, {}) == {"status": "error", "error": "x", "retry": retry}


def test_log_lines_of_one_request_are_not_those_of_the_next():
    def respond(request: dict) -> dict:
        lib.log("one", "warn")
        return {"status": "ok", "logs": [{"level": "info", "message": "own"}]}

    for _ in range(2):
        assert lib.answer(respond, {})["logs"] == [
            {"level": "info", "message": "own"}, {"level": "warn", "message": "one"}]


def test_what_is_nested_too_deeply_is_an_error():
    def respond(request: dict) -> dict:
        return respond(request)

    assert lib.answer(respond, {}) == {
        "status": "error", "error": "the request is nested too deeply", "retry": False}


KEYS = {"name": (lib.is_line, "one line"), "size": (lib.is_number(1, 9), "1 to 9", 5), "kind": (("a", 1), None, "a"),
        "free": (lambda value: False, "nothing", None)}


@pytest.mark.parametrize(
    ("config", "found"),
    [({"name": "x"}, {"name": "x", "size": 5, "kind": "a", "free": None}),
     ({"name": "x", "size": 1.5, "kind": 1, "free": None}, {"name": "x", "size": 1.5, "kind": 1, "free": None}),
     ({"name": "x", "size": None}, {"name": "x", "size": 5, "kind": "a", "free": None})])
def test_settings_are_the_configuration_with_its_defaults(config, found):
    assert lib.settings({"config": config}, KEYS) == found


@pytest.mark.parametrize(
    ("config", "error"),
    [(None, "config: expected a mapping"), ({}, "config: name missing"), ({"name": None}, "config: name missing"),
     ({"name": ""}, "name: expected one line"), ({"name": "a\nb"}, "name: expected one line"),
     ({"name": "x", "size": 10}, "size: expected 1 to 9"), ({"name": "x", "size": True}, "size: expected 1 to 9"),
     ({"name": "x", "kind": True}, "kind: expected one of a, 1"), ({"name": "x", "free": 1}, "free: expected nothing"),
     ({"nam": "x"}, "config: unknown key 'nam', expected one of name, size, kind, free")])
def test_a_wrong_setting_is_named_with_what_is_expected(config, error):
    with pytest.raises(lib.ConfigError) as caught:
        lib.settings({"config": config}, KEYS)
    assert str(caught.value) == error


def test_the_deadline_leaves_time_to_answer():
    at = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
    assert 27 < lib.seconds_left({"deadline_at": at}, spare=2.0) <= 28
    assert lib.seconds_left({"deadline_at": "2026-02-08T10:00:00.000Z"}) < 0
    for request in ({}, {"deadline_at": "soon"}, {"deadline_at": 5}):
        assert lib.seconds_left(request, default=7.0) == 7.0


def test_a_stranger_s_words_become_one_line_without_secrets():
    assert lib.one_line(" a\nb\x1b[1m\u202e  k3y c", secrets=("k3y", "")) == "a b [1m *** c"
    assert lib.one_line("x" * 500, 5) == "xxxxx"
