"""Which file is taken, what is said when there is none, and that everything wrong is said at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from config.config_files import ECHO, lines, load_text
from ductile.config.find import CONFIG_LIMIT_BYTES, find
from ductile.config.load import load
from ductile.errors import EXIT_CONFIG, DuctileError
from ductile.validation import Problem


def refusal(call) -> tuple[str, ...]:
    with pytest.raises(DuctileError) as caught:
        call()
    assert caught.value.exit_code == EXIT_CONFIG
    return caught.value.lines


def test_a_variable_that_is_empty_names_no_file(tmp_path):
    system = tmp_path / "config.yaml"
    system.touch()
    environ = {"DUCTILE_CONFIG": "", "HOME": str(tmp_path / "home")}
    assert find(None, environ, denied=EXIT_CONFIG, system=system) == system


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    assert refusal(lambda: load(tmp_path / "none.yaml", {})) == (
        f"{tmp_path}/none.yaml: cannot be read: No such file or directory",
    )


def to_fifo(path: Path) -> None:
    os.mkfifo(path)


def to_endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [to_fifo, to_endless_device, Path.mkdir])
def test_what_is_no_file_is_refused_at_once(tmp_path, make):
    make(tmp_path / "config.yaml")
    assert refusal(lambda: load(tmp_path / "config.yaml", {})) == (
        f"{tmp_path}/config.yaml: cannot be read: not a regular file; put a regular file in its place",
    )


EMPTY = "expected a configuration, got an empty file; `ductilectl init` writes one"


def test_a_file_larger_than_any_configuration_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"#" * CONFIG_LIMIT_BYTES)
    assert [str(problem) for problem in load(tmp_path / "config.yaml", {}).problems] == [EMPTY]
    (tmp_path / "config.yaml").write_bytes(b"#" * (CONFIG_LIMIT_BYTES + 1))
    assert refusal(lambda: load(tmp_path / "config.yaml", {})) == (
        f"{tmp_path}/config.yaml: cannot be read: larger than 4.0 MB",
    )


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "{}\n", "null\n"])
def test_a_file_that_says_nothing_is_refused(tmp_path, text):
    [line] = lines(load_text(tmp_path, text))
    assert line.split(": ", 1)[1] == EMPTY


def test_an_odd_name_of_the_file_stays_on_one_line(tmp_path):
    file = tmp_path / "a\nb\x1b.yaml"
    shown = f"{tmp_path}/a\\nb\\x1b.yaml"
    assert refusal(lambda: load(file, {})) == (f"{shown}: cannot be read: No such file or directory",)
    file.write_text("servce: {}\nwebhooks: {endpoints: []}\n")
    loaded = load(file, {})
    assert [loaded.locate(problem) for problem in loaded.problems] == [
        f"{shown}:1:1: servce: unknown key (did you mean 'service'?)",
    ]
    file.write_text("a: *b\n")
    assert refusal(lambda: load(file, {})) == (f"{shown}:1:4: the alias *b has no anchor before it",)


def test_a_file_that_is_not_yaml_is_one_line(tmp_path):
    assert refusal(lambda: load_text(tmp_path, "a: *b\n")) == (
        f"{tmp_path}/config.yaml:1:4: the alias *b has no anchor before it",
    )


def test_the_file_is_named_as_it_was_given(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text("servce: {}\n")
    monkeypatch.chdir(tmp_path)
    loaded = load(Path("config.yaml"), {})
    assert [loaded.locate(problem) for problem in loaded.problems] == [
        "config.yaml:1:1: servce: unknown key (did you mean 'service'?)",
    ]
    assert loaded.config.state_path == tmp_path / "data/state.db"


def test_everything_wrong_is_said_at_once_in_the_order_of_the_file(tmp_path):
    text = """service:
  tick_interval: soon
  tick_interval: 60
  env_file: ./none.env
stat: {}
plugins:
  echo:
    timeouts: {poll: soon}
    schedule: {every: 5m, jitter: 1h}
    config: {token: "${TOKEN}"}
  1: {}
webhooks:
  listen: here
  endpoints:
    - {path: hook, plugin: ecko, secret: abc}
routes:
  - {from: echo, event_type: a}
"""
    assert lines(load_text(tmp_path, text)) == [
        "3:3: service.tick_interval: repeated key, also at line 2, column 3",
        "3:18: service.tick_interval: expected a duration such as 30s, got 60",
        "4:13: service.env_file: DIR/none.env: cannot be read: No such file or directory",
        "5:1: stat: unknown key (did you mean 'state'?)",
        "8:22: plugins.echo.timeouts.poll: expected a duration such as 30s, got 'soon'",
        "9:35: plugins.echo.schedule.jitter: expected no more than the interval in 'every', got '1h'",
        "10:21: plugins.echo.config.token: the variable TOKEN is not set",
        "11:3: plugins.1: expected a string as key, got 1",
        "13:11: webhooks.listen: expected HOST:PORT such as 127.0.0.1:8081 or [::1]:8081, or unix:PATH, got 'here'",
        "15:7: webhooks.endpoints[0]: the key 'signature_header' is missing",
        "15:14: webhooks.endpoints[0].path: expected a path that starts with '/', in ASCII without spaces, got 'hook'",
        "15:28: webhooks.endpoints[0].plugin: expected a configured plugin, got 'ecko' (did you mean 'echo'?)",
        "15:42: webhooks.endpoints[0].secret: expected one ${NAME} and nothing else, got a literal; put the "
        "secret into service.env_file or the environment",
        "17:5: routes[0]: the key 'to' is missing",
    ]


def test_what_was_right_is_there_beside_what_was_wrong(tmp_path):
    loaded = load_text(tmp_path, "service: {max_hops: 0, name: mine}\n" + ECHO + "schedule: {every: 5m, jitter: x}\n")
    assert len(loaded.problems) == 2
    assert (loaded.config.service.max_hops, loaded.config.service.name) == (20, "mine")
    [schedule] = loaded.config.plugins["echo"].schedules
    assert (schedule.every.seconds, schedule.jitter) == (300, 0)


def test_what_is_nowhere_in_the_file_stands_at_its_deepest_ancestor(tmp_path):
    loaded = load_text(tmp_path, "plugins:\n  echo:\n    enabled: true\n")
    problem = Problem(("plugins", "echo", "config", "message"), "missing")
    assert loaded.locate(problem) == f"{loaded.path}:3:5: plugins.echo.config.message: missing"


def test_two_loads_of_the_same_file_are_equal(tmp_path):
    text = ECHO + "schedule: {every: 1h, timezone: Australia/Sydney}\n"
    environ = {"TZ": "Europe/Berlin"}
    assert load_text(tmp_path, text, environ).config == load_text(tmp_path, text, environ).config


def test_a_time_zone_of_the_environment_that_cannot_be_used_is_a_warning(tmp_path):
    assert load_text(tmp_path, "", {"TZ": "Mars/Olympus"}).warnings == (
        "TZ: expected a time zone such as Australia/Sydney, got 'Mars/Olympus'; it is ignored",
    )


def test_a_plugin_may_announce_success_and_be_watched_for_silence(tmp_path):
    loaded = load_text(tmp_path, ECHO + "announce: [success]\n    schedule: {every: daily, alert_after: 26h}\n"
                                        "  other: {schedule: {every: daily}, announce: []}\n")
    assert loaded.problems == ()
    echo, other = loaded.config.plugins.values()
    assert (echo.announces_success, echo.schedules[0].alert_after) == (True, 26 * 3600)
    assert (other.announces_success, other.schedules[0].alert_after) == (False, None)
