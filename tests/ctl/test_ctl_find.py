"""A look at the lines gives the database's place, or none: never another than reading all of it gives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ductile.config import find
from ductile.config.load import load

COMMON = """\
# Everything.
service:
  name: ductile        # as in logs
  log: stdout
state:

  # where it is
  path: ./elsewhere/state.db   # here
workspace: {path: ./data/ws, ttl: "24h"}
plugins_dir:
  - ./plugins
  - "/usr/share/plugins"
plugins:
  echo:
    schedule: {every: 5m, preferred_window: x}
    config:
      url: https://example.org/a:b
      path: ./not/this
routes:
  - {from: echo, event_type: a, to: echo}
  - from: echo
    event_type: "b"
    to: echo
"""


def glance(directory: Path, text: str) -> str | None:
    file = directory / "config.yaml"
    file.write_text(text, newline="")
    found = find.state_path(file)
    return None if found is None else str(found.relative_to(directory))


@pytest.mark.parametrize(("text", "expected"), [
    (COMMON, "elsewhere/state.db"),
    ("", "data/state.db"),
    ("service:\n  name: x\n", "data/state.db"),
    ("state:\n    path: 'a/b c'\n", "a/b c"),
    ('state:\n  path: "a/b#c"\n', "a/b#c"),
    ("plugins:\n  echo:\n    state:\n      path: ./no/no\n", "data/state.db"),
    ("state:\n  other:\n    path: ./no/no\n", "data/state.db"),
])
def test_simple_lines_are_enough(tmp_path: Path, text: str, expected: str) -> None:
    assert glance(tmp_path, text) == expected
    assert load(tmp_path / "config.yaml", {}).config.state_path == tmp_path / expected


@pytest.mark.parametrize("text", [
    "state: {path: ./a/b}\n",
    "{state: {path: ./a/b}}\n",
    "state:\n",
    "state:\n- path: ./a/b\n",
    "state:\n  path: ${HOME}/b\n",
    "state:\n  path: state.db\n",
    "state:\n  path: ./a/b\n  path: ./c/d\n",
    "state:\n  path: ./a/b\nstate:\n  path: ./c/d\n",
    "state:\n  path: ./a/b\n    more\n",
    "state:\n  path: ./a/b\n    - more\n",
    "state:\n  path: &here ./a/b\n",
    "state:\n  path: !!str ./a/b\n",
    "state:\n  path:\n    ./a/b\n",
    'state:\n  path: "./a\\x2fb"\n',
    "'state':\n  path: ./a/b\n",
    "state :\n  path: ./a/b\n",
    "  state:\n    path: ./a/b\n",
    "---\nstate:\n  path: ./a/b\n",
    "name: 'x\nstate:\n  path: ./a/b\nend: y'\n",
    'name: "x\nstate:\n  path: ./a/b\nend: y"\n',
    "a: {b: it's, c: 'x}\nstate:\n  path: ./a/b\nd: y'}\n",
    "a: [b,\nstate:\n  path: ./a/b\n]\n",
    "a: |\nstate:\n  path: ./a/b\n",
    "state:\r\n  path: ./a/b\r\n",
    "state:\n\tpath: ./a/b\n",
    "\ufeffstate:\n  path: ./a/b\n",
    "# a comment\u2028state: {path: ./a/b}\n",
    "# a comment\x85state: {path: ./a/b}\n",
])
def test_what_could_mean_something_else_is_left_to_the_whole_reading(tmp_path: Path, text: str) -> None:
    assert glance(tmp_path, text) is None


def test_what_is_no_text_is_left_to_the_whole_reading(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"state:\n  path: ./\xff/b\n")
    assert find.state_path(tmp_path / "config.yaml") is None
    assert find.state_path(tmp_path / "missing.yaml") is None


def test_what_is_no_file_is_left_to_the_whole_reading(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    assert find.state_path(tmp_path / "config.yaml") is None
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    assert find.state_path(tmp_path / "zero.yaml") is None
