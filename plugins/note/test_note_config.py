"""The note plugin where its configuration or its request is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import steps
from support.notified import failure
from support.plugin_runs import readme_config

HERE = Path(__file__).resolve().parent

DIRECTORY = "directory: expected an absolute path or one that starts with ~/"
TAGS = "tags: expected a list of strings, each on one line (a number needs quotes)"


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ([], "config: expected a mapping"),
        *(({"directory": wrong}, DIRECTORY) for wrong in (5, "", "notes", "./notes", "a/~", "/a\0b", ["/x"])),
        ({}, "config: directory missing"),
        *(({"directory": "/x", "tags": wrong}, TAGS)
          for wrong in ("video", 5, {"a": 1}, 0, ["a", 5], ["a", ""], ["a\nb"], [" a"], [None])),
        ({"directory": "/x", "tag": "x"}, "config: unknown key 'tag', expected one of directory, tags"),
    ],
)
def test_a_wrong_configuration_is_named_and_not_tried_again(tmp_path, config, error):
    for command in ("handle", "health"):
        given = steps.request(tmp_path, config, command=command)
        assert failure(steps.run(HERE, given, tmp_path)) == (error, False)


def test_a_wrong_configuration_exits_with_78(tmp_path):
    given = steps.request(tmp_path, {"directory": "x"})
    assert failure(steps.run_process(HERE, given, tmp_path, code=78)) == (DIRECTORY, False)


@pytest.mark.parametrize("given", [b"", b'{"config": '])
def test_what_is_no_request_is_refused(tmp_path, given):
    assert failure(steps.run_process(HERE, given, tmp_path)) == ("the request is not a JSON object", False)


@pytest.mark.parametrize("command", ["poll", None, ["handle"]])
def test_another_command_is_refused(tmp_path, command):
    given = json.dumps({"config": {"directory": "/x"}, "command": command}).encode()
    assert failure(steps.run(HERE, given, tmp_path)) == ("note has no such command", False)


def test_the_example_of_the_readme_is_a_good_configuration(tmp_path):
    assert readme_config(HERE, tmp_path)
