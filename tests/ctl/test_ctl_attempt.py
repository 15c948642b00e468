"""`attempt`: one job by hand, without the database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ctl.desk import Desk
from support.gate import line_from

DUCTILECTL = Path(sys.executable).with_name("ductilectl")
JOB = {"plugin": "echo", "id": "a", "command": "poll", "max_attempts": 3, "submitted_by": "cli"}


def run(desk: Desk, given: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DUCTILECTL, "-c", desk.home, "attempt", desk.home / "jobs"],
                          input=json.dumps(given), text=True, capture_output=True, timeout=30)


def test_the_result_is_one_object_and_nothing_but_the_workspace_stays(desk: Desk) -> None:
    desk.plugin("echo", program="#!/bin/sh\necho x >made\necho '{\"status\": \"ok\", \"result\": \"done\"}'\n")
    said = run(desk, {"job": JOB, "state": {}})
    result = json.loads(said.stdout)
    assert (said.returncode, said.stderr) == (0, "")
    assert (result["status"], result["response"]["result"]) == ("succeeded", "done")
    assert [each["path"] for each in result["artifacts"]] == ["made"]
    assert [each.name for each in (desk.home / "jobs").iterdir()] == ["ws"]


def test_a_signal_ends_the_plugin_and_the_result_says_so(desk: Desk) -> None:
    desk.plugin("echo", program='#!/bin/sh\necho up >"$HOME/up"\nexec sleep 60\n')
    os.mkfifo(desk.home / "up")
    command = [DUCTILECTL, "-c", desk.home, "attempt", desk.home / "jobs"]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env={"HOME": str(desk.home), "PATH": os.defpath}) as program:
        program.stdin.write(json.dumps({"job": JOB}))
        program.stdin.close()
        assert line_from(desk.home / "up") == "up\n"
        program.send_signal(signal.SIGTERM)
        result = json.loads(program.stdout.read())
    assert (program.returncode, result["status"], result["log"]["status"]) == (143, "queued", "interrupted")


@pytest.mark.parametrize(("given", "code", "text"), [
    ([], 65, "standard input: expected one JSON object, got a list\n"),
    ({"job": 1}, 65, "standard input: 'job' is not an object\n"),
    ({"job": {"plugin": "none"}}, 66, "plugin none cannot run here: not configured\n"),
    ({"job": {"plugin": "echo"}}, 65, "not a job: 'id'\n"),
])
def test_what_cannot_be_attempted_is_told(desk: Desk, given: Any, code: int, text: str) -> None:
    desk.plugin("echo")
    said = run(desk, given)
    assert (said.returncode, said.stdout, said.stderr) == (code, "", text)
