"""Which file is taken, what is said when there is none, and that everything wrong is said at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from config.config_files import ECHO, lines, load_text

from ductile.check import Problem
from ductile.config.load import load
from ductile.config.place import find
from ductile.errors import EXIT_CONFIG, DuctileError


@pytest.fixture
def home(tmp_path):
    path = tmp_path / "home"
    path.mkdir()
    return path


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def refusal(call) -> tuple[str, ...]:
    with pytest.raises(DuctileError) as caught:
        call()
    assert caught.value.exit_code == EXIT_CONFIG
    return caught.value.lines


def test_the_argument_comes_before_everything(tmp_path, home):
    named, other = touch(tmp_path / "a.yaml"), touch(tmp_path / "b.yaml")
    assert find(str(named), {"DUCTILE_CONFIG": str(other)}, home=home, system=other) == named


def test_the_variable_comes_before_the_usual_places(tmp_path, home):
    named, other = touch(tmp_path / "a.yaml"), touch(home / ".config/ductile/config.yaml")
    assert find(None, {"DUCTILE_CONFIG": str(named)}, home=home, system=other) == named


def test_the_users_own_comes_before_the_systems(tmp_path, home):
    own, system = touch(home / ".config/ductile/config.yaml"), touch(tmp_path / "etc/config.yaml")
    assert find(None, {}, home=home, system=system) == own


@pytest.mark.parametrize("environ", [{}, {"DUCTILE_CONFIG": ""}])
def test_the_systems_comes_last(tmp_path, home, environ):
    system = touch(tmp_path / "etc/config.yaml")
    assert find(None, environ, home=home, system=system) == system


def test_a_directory_means_its_config_yaml(tmp_path, home):
    path = touch(tmp_path / "d/config.yaml")
    assert find(str(path.parent), {}, home=home) == path
    assert find(None, {"DUCTILE_CONFIG": str(path.parent)}, home=home) == path


def test_without_any_the_places_looked_at_are_named(tmp_path, home):
    system = tmp_path / "etc/config.yaml"
    assert refusal(lambda: find(None, {}, home=home, system=system)) == (
        f"no configuration found (looked at $DUCTILE_CONFIG, {home}/.config/ductile/config.yaml, {system}); "
        "`ductilectl init` makes a starter configuration",
    )


@pytest.mark.parametrize(
    ("argument", "environ", "line"),
    [
        ("none.yaml", {}, "none.yaml: no such file or directory, named by -c"),
        ("", {}, "'': no such file or directory, named by -c"),
        (None, {"DUCTILE_CONFIG": "gone/x"}, "gone/x: no such file or directory, named by $DUCTILE_CONFIG"),
    ],
)
def test_a_named_file_that_does_not_exist_is_not_passed_over(tmp_path, home, argument, environ, line):
    system = touch(tmp_path / "etc/config.yaml")
    assert refusal(lambda: find(argument, environ, home=home, system=system)) == (line,)


def test_a_named_directory_without_a_configuration_is_not_passed_over(home):
    assert refusal(lambda: find(str(home), {}, home=home)) == (
        f"{home}: no config.yaml in this directory, named by -c",
    )


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    assert refusal(lambda: load(tmp_path, {})) == (f"{tmp_path}: cannot be read: Is a directory",)


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
        "4:13: service.env_file: cannot read DIR/none.env: No such file or directory",
        "5:1: stat: unknown key (did you mean 'state'?)",
        "8:22: plugins.echo.timeouts.poll: expected a duration such as 30s, got 'soon'",
        "9:35: plugins.echo.schedule.jitter: expected no more than the interval in 'every', got '1h'",
        "10:21: plugins.echo.config.token: the variable TOKEN is not set",
        "11:3: plugins.1: expected a text as key, got 1",
        "13:11: webhooks.listen: expected HOST:PORT such as 127.0.0.1:8081 or [::1]:8081, got 'here'",
        "15:7: webhooks.endpoints[0]: the key 'signature_header' is missing",
        "15:14: webhooks.endpoints[0].path: expected a path that starts with '/', in ASCII without spaces, got 'hook'",
        "15:28: webhooks.endpoints[0].plugin: expected a configured plugin, got 'ecko' (did you mean 'echo'?)",
        "15:42: webhooks.endpoints[0].secret: expected one ${NAME} and nothing else, got a literal",
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
