"""The README: its commands print what it shows, and its other claims are true."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ductile.scheduler import schedule_table
from ductile.scheduler.breaker import CLOSED, Breaker
from manuals.readme import blocks
from support.clock import START
from support.ledger import opened
from support.manuals import section
from support.newcomer import NOT_ISOLATED, ROOT, Shell, make_clone
from support.wheels import make_wheels

# The marks after `sh` in the README, and what runs their blocks.
RUN_BY = {
    "quickstart": "tests/test_contrib.py",
    "suite": "whoever runs this test, and .ci/run",
    "install": "test_each_fence_pasted_in_turn_prints_what_the_readme_shows",
    "tour": "test_each_fence_pasted_in_turn_prints_what_the_readme_shows",
}
ID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{8}\b")
NUMBER = re.compile(r"\d+")
ANOTHER_PORT = re.compile(r"port 8081 is taken: webhooks.listen is 127\.0\.0\.1:\d+\n")


def masked(text: str) -> list[str]:
    """Return the lines without ids, numbers and column widths, which differ from run to run."""
    return [" ".join(NUMBER.sub("N", ID.sub("ID", line)).split()) for line in text.splitlines()]


def test_every_command_of_the_readme_is_marked_with_who_runs_it() -> None:
    assert {mark for language, mark, _ in blocks() if language == "sh"} == set(RUN_BY)


def test_the_commands_of_the_first_screen_are_there() -> None:
    commands = [text.strip() for language, mark, text in blocks() if mark in ("quickstart", "suite")]
    assert commands == ["contrib/quickstart", "contrib/run-tests"]
    assert all(os.access(ROOT / command, os.X_OK) for command in commands)


def test_each_fence_pasted_in_turn_prints_what_the_readme_shows(tmp_path: Path, python_that_copies: Path) -> None:
    clone, wheels = make_clone(tmp_path / "clone"), tmp_path / "wheels"
    wheels.mkdir()
    path = f"{python_that_copies.parent}:{os.environ['PATH']}"
    shell = Shell(clone, PATH=path, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(make_wheels(wheels)),
                  PIP_CONFIG_FILE=os.devnull,
                  PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_CACHE_DIR="1", **NOT_ISOLATED)
    printed: list[tuple[str, list[str]]] = []
    shown: list[tuple[str, list[str]]] = []
    try:
        for language, mark, text in blocks():
            if mark in ("install", "tour"):
                said = shell.paste(text).replace(str(clone), "/home/you")
                printed.append((text, masked(said) if mark == "tour" else []))
                shown.append((text, []))
            elif language == "text":
                shown[-1] = (shown[-1][0], masked(text))
    finally:
        errors = shell.close()
    assert printed == shown
    assert ANOTHER_PORT.sub("", errors) == ""


def test_the_readme_lists_the_plugins_that_there_are() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("## The plugins\n")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert listed == sorted(path.parent.name for path in ROOT.glob("plugins/*/manifest.yaml"))


def test_plugins_with_an_open_breaker_are_counted_and_not_breakers(tmp_path: Path) -> None:
    entries = section("ductile.yaml.5", "REQUESTS AND ANSWERS", "/healthz").entries
    [entry] = [each for each in entries if each.tag == "plugins_circuit_open"]
    assert entry.text == "The number of plugins with a circuit breaker that is not closed; null if it cannot be read."
    with opened(tmp_path) as conn:
        for plugin, command, state in (("a", "poll", "open"), ("a", "handle", "half_open"), ("b", "poll", "closed")):
            breaker = CLOSED if state == "closed" else Breaker(state=state, failure_count=3, opened_at=START)
            schedule_table.put_breaker(conn, plugin, command, breaker, START)
        assert schedule_table.count_open_breakers(conn) == 1


@pytest.mark.parametrize("file", ["etc/ductile/config.yaml", "contrib/man/ductile.yaml.5"])
def test_past_the_depth_of_the_queue_a_scheduled_run_is_not_lost(file: str) -> None:
    text = " ".join((ROOT / file).read_text(encoding="utf-8").replace("#", " ").split())
    assert "webhooks are answered with 503, and scheduled runs are blocked and stay due." in text
