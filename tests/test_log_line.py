"""The two forms of a line of the log."""

from __future__ import annotations

import json
import os
import pty
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ductile import log
from ductile.log_line import as_dated_text, as_json, as_text
from support import logs

NOW = datetime(2026, 12, 1, 6, 30, 1, 250_000, tzinfo=UTC)
JOB = "4f2a9c01-5a43-4c83-a2d0-0f4d51a3b6a1"


@pytest.fixture(autouse=True)
def _an_hour_east_of_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "<+01>-1")
        time.tzset()
        yield
    time.tzset()


class Raises:
    """A value whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(("fields", "expected"), [
    ({"job_id": JOB, "plugin": "echo", "command": "poll"}, "  echo poll  4f2a9c01"),
    ({"job_id": JOB, "plugin": "echo", "command": "poll", "attempt": 1, "seconds": 0.5},
     "  echo poll  4f2a9c01  attempt=1 seconds=0.5"),
    ({"plugin": "echo", "reason": "no route to host"}, '  echo  reason="no route to host"'),
    ({}, ""),
    ({"plugin": None, "job_id": None, "error": "", "ok": True, "at": ["a", 1]}, '  error="" ok=true at=["a", 1]'),
    ({"stderr": 'one\ntwo "three"\x1b[31m\u202e'}, '  stderr="one\\ntwo \\"three\\"\\x1b[31m\\u202e"'),
    ({"plugin": "e\ncho", "name": "caf\u00e9 \ud800"}, '  e\\ncho  name="caf\u00e9 \\ud800"'),
    ({"a": 1, "b": Raises()}, '  fields_not_written="RuntimeError in one of a, b"'),
])
def test_text_is_a_line_that_people_read(fields: dict[str, Any], expected: str) -> None:
    line = as_text(NOW, "info", "dispatch", "job started", fields).decode()
    assert line == f"07:30:01 INFO  dispatch  job started{expected}\n"


def test_a_file_has_the_date_besides() -> None:
    assert as_dated_text(NOW, "error", "config", "a\nb", {}) == b"2026-12-01 07:30:01 +0100 ERROR config    a\\nb\n"


def test_json_is_one_object_of_the_same() -> None:
    line = as_json(NOW, "warn", "dispatch", "job ended", {"error": "one\ntwo \u00e9"})
    assert line.isascii()
    assert json.loads(line) == {"timestamp": "2026-12-01T06:30:01.250Z", "level": "warn", "component": "dispatch",
                                "message": "job ended", "error": "one\ntwo \u00e9"}


@pytest.mark.parametrize(("format", "is_text"), [("auto", False), ("json", False), ("text", True)])
def test_a_file_has_text_only_if_that_is_asked_for(format: str, is_text: bool, tmp_path: Path) -> None:
    with logs.as_it_was():
        log.set_up(tmp_path / "log", "info", format=format)
        log.Component("daemon").info("ready", pid=1)
        log.close()
    assert (b"INFO  daemon    ready  pid=1\n" in (tmp_path / "log").read_bytes()) is is_text


@pytest.mark.parametrize(("format", "is_text"), [("auto", True), ("json", False), ("text", True)])
def test_a_terminal_has_text_unless_json_is_asked_for(format: str, is_text: bool,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pty.openpty()
    with logs.as_it_was(), open(writer, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", terminal)
        log.set_up("stdout", "info", format=format)
        log.Component("daemon").info("ready", pid=1)
        line = os.read(reader, 1000)
        log.close()
    os.close(reader)
    assert (b"INFO  daemon    ready  pid=1" in line) is is_text
