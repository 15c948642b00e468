"""`attempt`: one job by hand, without the database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import pytest

from ctl.desk import PATIENCE_SECONDS, Desk, Said, start
from support.gate import line_from

JOB = {"plugin": "echo", "id": "a", "command": "poll", "max_attempts": 3, "submitted_by": "cli"}


def run(desk: Desk, given: Any) -> Said:
    (desk.home / "job.json").write_text(json.dumps(given))
    with open(desk.home / "job.json") as file:
        return desk.process("attempt", str(desk.home / "jobs"), stdin=file)


def test_the_result_is_one_object_and_nothing_but_the_workspace_stays(desk: Desk) -> None:
    desk.plugin("echo", program="#!/bin/sh\necho x >made\necho '{\"status\": \"ok\", \"result\": \"done\"}'\n")
    said = run(desk, {"job": JOB, "state": {}})
    result = json.loads(said.out)
    assert (said.code, said.err) == (0, "")
    assert (result["status"], result["response"]["result"]) == ("succeeded", "done")
    assert [each["path"] for each in result["artifacts"]] == ["made"]
    assert [each.name for each in (desk.home / "jobs").iterdir()] == ["ws"]


def test_a_signal_ends_the_plugin_and_the_result_says_so(desk: Desk) -> None:
    desk.plugin("echo", program='#!/bin/sh\necho up >"$HOME/up"\nexec sleep 60\n')
    os.mkfifo(desk.home / "up")
    program = start("attempt", desk.home / "jobs", home=desk.home, stdin=subprocess.PIPE,
                    env={"HOME": str(desk.home), "PATH": os.defpath})
    program.stdin.write(json.dumps({"job": JOB}))
    program.stdin.close()
    assert line_from(desk.home / "up") == "up\n"
    program.send_signal(signal.SIGTERM)
    result = json.loads(program.communicate(timeout=PATIENCE_SECONDS)[0])
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
    assert (said.code, said.out, said.err) == (code, "", text)
