from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.clock import START
from support.ledger import opened
from support.plugins_on_disk import make, write

from ductile import world
from ductile.config import rows as config_rows
from ductile.errors import EXIT_CONFIG, DuctileError

ENVIRON = {"TZ": "UTC", "TOKEN": "a secret that is long enough"}
ONE = "plugins:\n  echo: {}\n"
MANIFEST = "name: echo\nversion: {version}\nprotocol: 2\nentrypoint: run.sh\ncommands: [{commands}]\n"


@pytest.fixture
def directory(tmp_path):
    """A directory with a configuration of one plugin, and that plugin."""
    (tmp_path / "config.yaml").write_text(ONE)
    make(tmp_path / "plugins", "echo")
    return tmp_path


def read(directory: Path, text: str | None = None, environ=ENVIRON, **options) -> world.Reading:
    if text is not None:
        (directory / "config.yaml").write_text(text)
    return world.read(directory / "config.yaml", environ, **options)


def problems(directory: Path, text: str) -> list[str]:
    return [line.replace(f"{directory}/", "") for line in read(directory, text).problems]


def test_a_good_configuration_becomes_a_world(directory):
    reading = world.build(directory / "config.yaml", ENVIRON)
    assert (reading.problems, reading.faults, reading.warnings) == ((), (), ())
    assert (reading.world.runnable, reading.world.enabled) == (("echo",), ("echo",))
    assert reading.world.plugins["echo"].version == "0.1.0"
    assert reading.world.environ == ENVIRON


def test_the_path_is_absolute(directory, monkeypatch):
    monkeypatch.chdir(directory)
    assert world.read(Path("config.yaml"), ENVIRON).path == directory / "config.yaml"


def test_plugins_that_are_off_or_not_loaded_do_not_run(directory):
    make(directory / "plugins", "off")
    found = read(directory, "plugins: {echo: {}, off: {enabled: false}, gone: {}}\n").world
    assert (found.runnable, found.enabled) == (("echo",), ("echo", "gone"))


def test_a_plugin_that_is_not_loaded_is_a_fault_and_no_problem(directory):
    reading = read(directory, "plugins: {echo: {}, gone: {}, off: {enabled: false}}\n")
    assert reading.problems == ()
    assert reading.faults == ("plugin gone is not loaded: no plugin named 'gone' was found in plugins_dir",)


def test_all_problems_are_found_at_once_and_stop_a_start(directory):
    text = "plugins_dir: nowhere\nservice: {tick_interval: soon}\nplugins:\n  echo: {schedul: 5m}\n"
    expected = [
        "config.yaml:2:26: service.tick_interval: expected a duration such as 30s, got 'soon'",
        "config.yaml:4:10: plugins.echo.schedul: unknown key (did you mean 'schedule'?)",
        "config.yaml:1:14: plugins_dir: the directory nowhere does not exist",
    ]
    assert sorted(problems(directory, text)) == sorted(expected)
    with pytest.raises(DuctileError) as caught:
        world.build(directory / "config.yaml", ENVIRON)
    assert (caught.value.exit_code, len(caught.value.lines)) == (EXIT_CONFIG, 3)


@pytest.mark.parametrize("text, line", [
    ("plugins:\n  echo:\n    schedule: {every: 5m, command: sync}\n",
     "config.yaml:3:36: plugins.echo.schedule.command: plugin echo has no command 'sync' (it has poll)"),
    ("plugins:\n  echo:\n    schedule: {every: 5m, command: pol}\n",
     "config.yaml:3:36: plugins.echo.schedule.command: plugin echo has no command 'pol' (did you mean 'poll'?)"),
    ("plugins:\n  echo:\n    schedule:\n      - {id: a, every: 5m}\n      - {id: b, every: 5m, command: sync}\n",
     "config.yaml:5:37: plugins.echo.schedule[1].command: plugin echo has no command 'sync' (it has poll)"),
    ("plugins: {echo: {}, other: {}}\nroutes:\n  - {from: other, event_type: x, to: echo}\n",
     "config.yaml:3:38: routes[0].to: plugin echo has no command 'handle' (it has poll)"),
])
def test_a_command_that_the_plugin_does_not_have_is_placed(directory, text, line):
    assert problems(directory, text) == [line]


def test_a_command_of_a_plugin_that_is_not_loaded_is_not_judged(directory):
    assert problems(directory, "plugins:\n  gone:\n    schedule: {every: 5m, command: sync}\n") == []


def test_one_of_several_plugin_directories_that_is_missing_is_placed(directory):
    found = problems(directory, f"plugins_dir: [plugins, nowhere]\n{ONE}")
    assert found == ["config.yaml:1:24: plugins_dir[1]: the directory nowhere does not exist"]


def test_what_is_not_yaml_raises(directory):
    with pytest.raises(DuctileError) as caught:
        read(directory, "plugins: [")
    assert caught.value.exit_code == EXIT_CONFIG


def test_an_unset_variable_may_be_kept_for_those_who_need_no_secrets(directory):
    text = "plugins:\n  echo:\n    config: {token: \"${NOT_SET}\"}\n"
    assert len(read(directory, text).problems) == 1
    kept = read(directory, text, keep_unset=True)
    assert (kept.problems, kept.world.plugins["echo"].settings.config) == ((), {"token": "${NOT_SET}"})


# The digest


def digest(directory: Path, text: str | None = None, environ=ENVIRON) -> str:
    return read(directory, text, environ).world.digest


def test_the_same_files_have_the_same_digest_wherever_they_are(directory, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "config.yaml").write_text(ONE)
    before = digest(directory)
    assert len(before) == 64
    assert before == digest(directory)
    assert before == digest(Path(shutil.copytree(directory, other / "moved")))
    assert digest(other, environ=ENVIRON) != before    # one plugin fewer


def test_a_changed_configuration_has_another_digest(directory):
    assert digest(directory) != digest(directory, ONE + "# a comment\n")


def test_a_changed_manifest_has_another_digest(directory):
    before = digest(directory)
    write(directory / "plugins" / "echo" / "manifest.yaml", MANIFEST.format(version="0.2.0", commands="poll"))
    assert digest(directory) != before


def test_a_changed_variable_has_the_same_digest(directory):
    text = "plugins:\n  echo:\n    config: {token: \"${TOKEN}\"}\n"
    assert digest(directory, text) == digest(directory, text, ENVIRON | {"TOKEN": "another one that is long enough"})


def test_a_changed_program_has_the_same_digest(directory):
    before = digest(directory)
    program = directory / "plugins" / "echo" / "run.sh"
    program.write_text("#!/bin/sh\nexit 1\n")
    os.chmod(program, 0o755)
    assert digest(directory) == before


# What the ledger keeps of it


def test_each_load_is_recorded_and_the_last_hundred_are_kept(tmp_path):
    with opened(tmp_path) as conn:
        assert config_rows.last_id(conn) == 0
        for number in range(150):
            config_rows.add(conn, digest=f"digest-{number}", errors=(), now=START)
        kept = conn.execute("SELECT min(hash), count(*) FROM config_loads WHERE id <= 51 OR id > 51").fetchone()
        assert kept == ("digest-100", 100)
        assert conn.execute("SELECT hash FROM config_loads ORDER BY id LIMIT 1").fetchone() == ("digest-50",)


def test_the_last_load_says_whether_it_was_taken(tmp_path):
    with opened(tmp_path) as conn:
        config_rows.add(conn, digest="d", errors=(), changes=("one changed", "two changed"), now=START)
        config_rows.add(conn, digest="e", errors=("one is wrong", "two is wrong"), now=START)
        taken, refused = config_rows.after(conn, 0), config_rows.after(conn, 1)
        assert (taken.ok, taken.errors, taken.changes) == (True, (), ("one changed", "two changed"))
        assert (refused.ok, refused.errors, refused.changes) == (False, ("one is wrong", "two is wrong"), ())
        assert (config_rows.after(conn, 2), config_rows.digest_in_force(conn)) == (None, "d")


HOOKS = """\
plugins: {{echo: {echo}}}
webhooks:
  listen: 127.0.0.1:{port}
  endpoints:
    - {{path: /hook, secret: "${{TOKEN}}", signature_header: X-Signature, {target}}}
routes:
  - {{from: echo, event_type: {event}, to: echo}}
"""


def test_an_endpoints_event_that_nothing_takes_is_a_problem(directory):
    text = HOOKS.format(echo="{}", port=8081, target="event: note.received", event="note.received")
    (directory / "plugins/echo/manifest.yaml").write_text(MANIFEST.format(version="0.1.0", commands="poll, handle"))
    assert problems(directory, text) == [
        "config.yaml:5:79: webhooks.endpoints[0].event: no pipeline takes the event 'note.received'"]


def test_two_worlds_are_compared_line_by_line(directory):
    make(directory / "plugins", "other")
    before = read(directory, HOOKS.format(echo="{}", port=8081, target="plugin: echo", event="a.b")).world
    text = HOOKS.format(echo="{config: {message: hi}}", port=8082, target="plugin: echo, max_body_size: 2MB", event="a.c")
    after = read(directory, text.replace("plugins: {", "plugins: {other: {}, ")).world
    assert world.compare(before, before) == ()
    assert world.compare(before, after) == (
        "plugin echo changed", "plugin other added", "endpoint /hook changed", "route echo a.b echo removed",
        "route echo a.c echo added", "setting webhooks.listen changed",
    )
    assert "plugin other removed" in world.compare(after, before)


def test_a_new_version_of_the_code_is_a_change(directory):
    before = read(directory).world
    (directory / "plugins/echo/manifest.yaml").write_text(MANIFEST.format(version="0.2.0", commands="poll, handle"))
    assert world.compare(before, read(directory).world) == ("plugin echo changed",)
