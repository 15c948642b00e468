from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ductile import runtime_config
from ductile.config import load_table
from ductile.errors import EXIT_CONFIG, DuctileError
from support.clock import START
from support.launch import in_a_child
from support.ledger import opened
from support.plugins_on_disk import make, write

ENVIRON = {"TZ": "UTC", "TOKEN": "a secret that is long enough"}
ONE = "plugins:\n  echo: {}\n"
MANIFEST = "name: echo\nversion: {version}\nprotocol: 2\nentrypoint: run.sh\ncommands: [{commands}]\n"


@pytest.fixture
def directory(tmp_path):
    """A directory with a configuration of one plugin, and that plugin."""
    (tmp_path / "config.yaml").write_text(ONE)
    make(tmp_path / "plugins", "echo")
    return tmp_path


def read(directory: Path, text: str | None = None, environ=ENVIRON, **options) -> runtime_config.LoadResult:
    if text is not None:
        (directory / "config.yaml").write_text(text)
    return runtime_config.read(directory / "config.yaml", environ, **options)


def problems(directory: Path, text: str) -> list[str]:
    return [line.replace(f"{directory}/", "") for line in read(directory, text).problems]


def test_a_good_configuration_becomes_a_world(directory):
    reading = runtime_config.build(directory / "config.yaml", ENVIRON)
    assert (reading.problems, reading.faults, reading.warnings) == ((), (), ())
    assert (reading.runtime.runnable, reading.runtime.enabled) == (("echo",), ("echo",))
    assert reading.runtime.plugins["echo"].version == "0.1.0"
    assert reading.runtime.environ == ENVIRON


def test_the_path_is_absolute(directory, monkeypatch):
    monkeypatch.chdir(directory)
    assert runtime_config.read(Path("config.yaml"), ENVIRON).path == directory / "config.yaml"


def test_plugins_that_are_off_or_not_loaded_do_not_run(directory):
    make(directory / "plugins", "off")
    found = read(directory, "plugins: {echo: {}, off: {enabled: false}, gone: {}}\n").runtime
    assert (found.runnable, found.enabled) == (("echo",), ("echo", "gone"))


def test_a_plugin_that_is_not_loaded_is_a_fault_and_no_problem(directory):
    reading = read(directory, "plugins: {echo: {}, gone: {}, off: {enabled: false}}\n")
    assert reading.problems == ()
    assert reading.faults == (f"{directory}/config.yaml:1:21: plugin gone is not loaded: no plugin named 'gone' was"
                              f" found in {directory}/plugins",)


def test_every_fault_of_a_plugin_is_told_with_its_place(directory):
    manifest = directory / "plugins/echo/manifest.yaml"
    write(manifest, "name: echo\nverison: 1\nprotocol: 3\nentrypoint: gone\ncommands: [a b]\n")
    found = [line.replace(f"{directory}/", "") for line in read(directory).faults]
    assert [line.removeprefix("plugin echo is not loaded: plugins/echo/") for line in found] == [
        "manifest.yaml:2:1: verison: unknown key; the key 'version' is missing",
        "manifest.yaml:3:11: protocol: expected 1 or 2, got 3",
        "manifest.yaml:5:12: commands[0]: expected a name of 1 to 64 letters, digits, '-' and '_', the first a letter"
        " or digit, got 'a b'",
        "gone: the entrypoint is missing; put it there, or mend 'entrypoint' in plugins/echo/manifest.yaml",
    ]
    assert read(directory).runtime.plugins["echo"].reason.endswith(
        "unknown key; the key 'version' is missing (and 3 more: `ductilectl check` shows all)")


def test_what_others_may_write_beside_an_entrypoint_is_a_warning(directory):
    for name in ("shared", "lib"):
        (directory / "plugins" / ("echo" if name == "shared" else "") / name).mkdir(mode=0o755)
    for path in ("echo/shared/deep.py", "lib/common.py", "echo/data.py"):
        write(directory / "plugins" / path, "")
        (directory / "plugins" / path).chmod(0o666)
    assert read(directory).warnings == (
        f"plugin echo: {directory}/plugins/echo/data.py and 1 more: writable by others, which the next release refuses:"
        f" chmod o-w {directory}/plugins/echo/data.py {directory}/plugins/lib/common.py",)


def test_a_key_of_a_manifest_that_looks_misspelt_is_a_warning(directory):
    manifest = directory / "plugins/echo/manifest.yaml"
    write(manifest, MANIFEST.format(version="0.1.0", commands="poll") + "private_sate: [session]\ncapabilities: []\n")
    assert read(directory).warnings == (
        f"plugin echo: {manifest}:6:1: private_sate: unknown key, which is ignored (did you mean 'private_state'?)",)


def test_all_problems_are_found_at_once_and_stop_a_start(directory):
    text = "plugins_dir: nowhere\nservice: {tick_interval: soon}\nplugins:\n  echo: {schedul: 5m}\n"
    expected = [
        "config.yaml:1:14: plugins_dir: expected a directory that exists, got nowhere",
        "config.yaml:2:26: service.tick_interval: expected a duration such as 30s, got 'soon'",
        "config.yaml:4:10: plugins.echo.schedul: unknown key (did you mean 'schedule'?)",
    ]
    assert problems(directory, text) == expected
    with pytest.raises(DuctileError) as caught:
        runtime_config.build(directory / "config.yaml", ENVIRON)
    assert (caught.value.exit_code, len(caught.value.lines)) == (EXIT_CONFIG, 3)


@pytest.mark.parametrize("text, line", [
    ("plugins:\n  echo:\n    schedule: {every: 5m, command: sync}\n",
     "config.yaml:3:36: plugins.echo.schedule.command: plugin echo has no command 'sync' (it has poll)"),
    ("plugins:\n  echo:\n    schedule: {every: 5m, command: pol}\n",
     "config.yaml:3:36: plugins.echo.schedule.command: plugin echo has no command 'pol' (did you mean 'poll'?)"),
    ("plugins:\n  echo:\n    schedule:\n      - {id: a, every: 5m}\n      - {id: b, every: 5m, command: sync}\n",
     "config.yaml:5:37: plugins.echo.schedule[1].command: plugin echo has no command 'sync' (it has poll)"),
    ("plugins:\n  echo:\n    schedule: [{id: a, every: 5m, command: sync}]\n",
     "config.yaml:3:44: plugins.echo.schedule[0].command: plugin echo has no command 'sync' (it has poll)"),
    ("plugins: {echo: {}, other: {}}\nroutes:\n  - {from: other, event_type: x, to: echo}\n",
     "config.yaml:3:38: routes[0].to: plugin echo has no command 'handle' (it has poll)"),
    ("plugins:\n  echo:\n    timeouts: {pol: 5s, handle: 5s, init: 5s}\n",
     "config.yaml:3:16: plugins.echo.timeouts.pol: plugin echo has no command 'pol' (did you mean 'poll'?)"),
    ("plugins:\n  echo:\n    timeouts: {zzz: 5s}\n",
     "config.yaml:3:16: plugins.echo.timeouts.zzz: plugin echo has no command 'zzz'"),
])
def test_a_command_that_the_plugin_does_not_have_is_placed(directory, text, line):
    assert problems(directory, text) == [line]


def test_a_timeout_may_be_for_any_command_of_the_plugin(directory):
    write(directory / "plugins/echo/manifest.yaml", MANIFEST.format(version="0.1.0", commands="sync"))
    assert problems(directory, "plugins: {echo: {timeouts: {sync: 5s, poll: 5s}}, gone: {timeouts: {any: 5s}}}\n") == []


def test_what_is_wrong_otherwise_does_not_move_or_hide_what_is_asked_for(directory):
    text = """\
plugins:
  other: {}
  echo:
    schedule:
      - {id: x, every: 0s, command: snyc}
      - {id: y, every: daily}
      - 5m
      - {id: y, every: daily, command: pol}
      - {id: z, every: daily, command: hndle}
routes:
  - from
  - {from: echo, event_type: x, to: echo, tto: echo}
  - {from: other, event_type: y, to: echo}
"""
    assert problems(directory, text) == [
        "config.yaml:5:24: plugins.echo.schedule[0].every: expected an interval from 1s to 366d, got '0s'",
        "config.yaml:5:37: plugins.echo.schedule[0].command: plugin echo has no command 'snyc' (it has poll)",
        "config.yaml:7:9: plugins.echo.schedule[2]: expected a mapping, got '5m'",
        "config.yaml:8:14: plugins.echo.schedule[3].id: expected an id that no other schedule of the plugin has"
        ", got 'y'",
        "config.yaml:8:40: plugins.echo.schedule[3].command: plugin echo has no command 'pol' (did you mean 'poll'?)",
        "config.yaml:9:40: plugins.echo.schedule[4].command: plugin echo has no command 'hndle' (it has poll)",
        "config.yaml:11:5: routes[0]: expected a mapping, got 'from'",
        "config.yaml:12:37: routes[1].to: plugin echo has no command 'handle' (it has poll)",
        "config.yaml:12:43: routes[1].tto: unknown key (did you mean 'to'?)",
        "config.yaml:13:38: routes[2].to: plugin echo has no command 'handle' (it has poll)",
    ]


def test_a_command_that_no_plugin_could_be_scheduled_with_is_not_looked_for(directory):
    write(directory / "plugins/echo/manifest.yaml", MANIFEST.format(version="0.1.0", commands="sync"))
    assert problems(directory, "plugins:\n  echo:\n    schedule: {every: 5m, command: init}\n") == [
        "config.yaml:3:36: plugins.echo.schedule.command: expected a command that can be scheduled, got 'init'"]


def test_a_repeated_key_is_told_with_both_places_and_its_last_value_is_examined(directory):
    text = """\
service: {tick_interval: soon}
plugins: {echo: {schedule: {every: 5m, command: snyc}}}
service: {log_level: info, log_level: loud}
plugins: {echo: {timeouts: {poll: 5, poll: 6s, pol: 5s}}}
"""
    assert problems(directory, text) == [
        "config.yaml:3:1: service: repeated key, also at line 1, column 1",
        "config.yaml:3:28: service.log_level: repeated key, also at line 3, column 11",
        "config.yaml:3:39: service.log_level: expected one of debug, info, warn, error, got 'loud'",
        "config.yaml:4:1: plugins: repeated key, also at line 2, column 1",
        "config.yaml:4:38: plugins.echo.timeouts.poll: repeated key, also at line 4, column 29",
        "config.yaml:4:48: plugins.echo.timeouts.pol: plugin echo has no command 'pol' (did you mean 'poll'?)",
    ]


def test_a_command_of_a_plugin_that_is_not_loaded_is_not_judged(directory):
    assert problems(directory, "plugins:\n  gone:\n    schedule: {every: 5m, command: sync}\n") == []


def test_one_of_several_plugin_directories_that_is_missing_is_placed(directory):
    found = problems(directory, f"plugins_dir: [5, plugins, nowhere]\n{ONE}")
    assert found == ["config.yaml:1:15: plugins_dir[0]: expected a string, got 5",
                     "config.yaml:1:27: plugins_dir[2]: expected a directory that exists, got nowhere"]


def test_a_list_of_one_directory_that_is_missing_is_placed(directory):
    assert problems(directory, "plugins_dir: [nowhere]\n") == [
        "config.yaml:1:15: plugins_dir[0]: expected a directory that exists, got nowhere"]


@pytest.mark.parametrize(("text", "line"), [
    ("plugins_dir: config.yaml\n",
     "config.yaml:1:14: plugins_dir: expected a directory, got config.yaml: Not a directory"),
    ("plugins_dir: \"a\\nb\\e[31m\"\n",
     "config.yaml:1:14: plugins_dir: expected a directory that exists, got a\\nb\\x1b[31m"),
    ("pipelines_dir: nowhere\n", "config.yaml:1:16: pipelines_dir: expected a directory that exists, got nowhere"),
    ("pipelines_dir: ./pipelines\n",
     "config.yaml:1:16: pipelines_dir: expected a directory that exists, got pipelines"),
    ("pipelines_dir: config.yaml\n",
     "config.yaml:1:16: pipelines_dir: expected a directory, got config.yaml: Not a directory"),
])
def test_a_directory_that_cannot_be_listed_is_placed_with_the_reason(directory, text, line):
    assert problems(directory, text) == [line]


def test_the_default_directory_of_pipelines_need_not_be_there_but_must_be_one(directory):
    assert problems(directory, ONE) == []
    (directory / "pipelines").touch()
    assert problems(directory, ONE) == [
        "config.yaml:1:1: pipelines_dir: expected a directory, got pipelines: Not a directory"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_directories_that_another_user_may_not_list_are_placed_with_the_reason(directory):
    for parent in (directory, directory.parent, directory.parent.parent):
        parent.chmod(0o755)
    (directory / "pipelines").mkdir(mode=0)
    (directory / "plugins").chmod(0)
    problems = in_a_child(
        lambda: list(map(str, runtime_config.read(directory / "config.yaml", {"TZ": "UTC"}).problems)), ordinary=True)
    (directory / "plugins").chmod(0o755)
    expected = "expected a directory that the daemon's user can read, got"
    assert [problem.replace(f"{directory}/", "") for problem in problems] == [
        f"config.yaml:1:1: plugins_dir: {expected} plugins: Permission denied",
        f"config.yaml:1:1: pipelines_dir: {expected} pipelines: Permission denied",
    ]


def test_what_is_not_yaml_raises(directory):
    with pytest.raises(DuctileError) as caught:
        read(directory, "plugins: [")
    assert caught.value.exit_code == EXIT_CONFIG


def test_an_unset_variable_may_be_kept_for_those_who_need_no_secrets(directory):
    text = "plugins:\n  echo:\n    config: {token: \"${NOT_SET}\"}\n"
    assert len(read(directory, text).problems) == 1
    kept = read(directory, text, keep_unset=True)
    assert (kept.problems, kept.runtime.plugins["echo"].settings.config) == ((), {"token": "${NOT_SET}"})


def test_nothing_is_said_of_what_an_unset_variable_leaves_open(directory):
    text = """\
plugins_dir: "${NOT_SET}/plugins"
pipelines_dir: "${NOT_SET}/pipelines"
plugins: {echo: {schedule: {every: 5m, command: "${NOT_SET}"}}}
webhooks:
  listen: 127.0.0.1:8081
  endpoints:
    - {path: /hook, secret: "${TOKEN}", signature_header: X-Signature, event: "${NOT_SET}"}
"""
    assert problems(directory, text) == [
        "config.yaml:1:14: plugins_dir: the variable NOT_SET is not set",
        "config.yaml:2:16: pipelines_dir: the variable NOT_SET is not set",
        "config.yaml:3:49: plugins.echo.schedule.command: the variable NOT_SET is not set",
        "config.yaml:7:79: webhooks.endpoints[0].event: the variable NOT_SET is not set",
    ]
    assert read(directory, text, keep_unset=True).problems == ()


# The digest


def digest(directory: Path, text: str | None = None, environ=ENVIRON) -> str:
    return read(directory, text, environ).runtime.digest


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
        assert load_table.last_id(conn) == 0
        for number in range(150):
            load_table.add(conn, digest=f"digest-{number}", errors=(), now=START)
        kept = conn.execute("SELECT min(hash), count(*) FROM config_loads WHERE id <= 51 OR id > 51").fetchone()
        assert kept == ("digest-100", 100)
        assert conn.execute("SELECT hash FROM config_loads ORDER BY id LIMIT 1").fetchone() == ("digest-50",)


def test_the_last_load_says_whether_it_was_taken(tmp_path):
    with opened(tmp_path) as conn:
        load_table.add(conn, digest="d", errors=(), changes=("one changed", "two changed"), now=START)
        load_table.add(conn, digest="e", errors=("one is wrong", "two is wrong"), now=START)
        taken, refused = load_table.after(conn, 0), load_table.after(conn, 1)
        assert (taken.ok, taken.errors, taken.changes) == (True, (), ("one changed", "two changed"))
        assert (refused.ok, refused.errors, refused.changes) == (False, ("one is wrong", "two is wrong"), ())
        assert (load_table.after(conn, 2), load_table.digest_in_force(conn)) == (None, "d")


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
        "config.yaml:5:79: webhooks.endpoints[0].event: no pipeline subscribes to the event 'note.received'"]


@pytest.mark.parametrize("listen", ["  listen: 127.0.0.1:8081\n", ""])
def test_every_endpoint_is_checked_whatever_else_is_wrong_with_it_and_without_a_listener(directory, listen):
    common = "secret: \"${TOKEN}\", signature_header: X-Signature"
    endpoints = [f"    - {{path: {path}, {asked}, {common}}}\n" for path, asked in (
        ("/a", "event: a.b"), ("/a", "event: c.d"), ("hook", "plugin: echo"), ("/a", "plugin: ehco"),
        ("/b", "event: e.f"))]
    text = f"plugins: {{echo: {{}}}}\nwebhooks:\n{listen}  endpoints:\n{''.join(endpoints)}"
    first = len(listen.splitlines()) + 4
    taken = "expected a path that no other endpoint has"
    assert problems(directory, text) == [
        f"config.yaml:{first}:25: webhooks.endpoints[0].event: no pipeline subscribes to the event 'a.b'",
        f"config.yaml:{first + 1}:14: webhooks.endpoints[1].path: {taken}, got '/a'",
        f"config.yaml:{first + 1}:25: webhooks.endpoints[1].event: no pipeline subscribes to the event 'c.d'",
        f"config.yaml:{first + 2}:14: webhooks.endpoints[2].path: expected a path that starts with '/', in ASCII"
        " without spaces, got 'hook'",
        f"config.yaml:{first + 2}:28: webhooks.endpoints[2].plugin: plugin echo has no command 'handle' (it has poll)",
        f"config.yaml:{first + 3}:14: webhooks.endpoints[3].path: {taken}, got '/a'",
        f"config.yaml:{first + 3}:26: webhooks.endpoints[3].plugin: expected a configured plugin, got 'ehco'"
        " (did you mean 'echo'?)",
        f"config.yaml:{first + 4}:25: webhooks.endpoints[4].event: no pipeline subscribes to the event 'e.f'",
    ]
    warned = [line.replace(f"{directory}/", "") for line in read(directory).warnings]
    unserved = ("config.yaml:3:3: webhooks.endpoints: nothing is served, as webhooks.listen is absent, unless systemd"
                " passes a socket")
    assert warned == ([] if listen else [unserved.replace("3:3", "4:5")])


# Everything of a configuration that is a string, with a variable in its place.
OF_A_VARIABLE = """\
service: {name: "${V}", tick_interval: "${V}", log_level: "${V}", log: "${V}/", dedupe_ttl: "${V}", env_file: "${V}"}
state: {path: "${V}/"}
workspace: {path: "${V}", ttl: "${V}"}
plugins_dir: ["plugins", "${V}"]
pipelines_dir: "${V}"
plugins:
  echo: {timeouts: {poll: "${V}"}, env: ["${V}"], schedule: {every: "${V}", at: "${V}", timezone: "${V}"}}
  uses: {uses: "${V}"}
  command: {uses: echo, schedule: {every: 5m, command: "${V}"}}
webhooks:
  listen: "${V}"
  endpoints:
    - {path: "/a", event: "${V}", secret: "${S}", signature_header: X-A}
    - {path: "${V}", plugin: "${V}", secret: "${S}", signature_header: "${V}:", max_body_size: "${V}"}
routes:
  - {from: "${V}", event_type: "ductile.${V}", to: "${V}"}
"""


@pytest.mark.parametrize("value", ["oh-secret-one", "no/such/directory", "bad name", "true", "command", "plugins/echo"])
def test_no_message_shows_the_value_of_a_variable(directory, value):
    make(directory / "lost", "other").rename(directory / "plugins" / "other")
    reading = read(directory, OF_A_VARIABLE, {**ENVIRON, "V": value, "S": "s" * 20})
    lines = (*reading.problems, *reading.faults, *reading.warnings)
    assert len(reading.problems) > 12
    words = ["expected", "unknown", "key"]
    assert [line for line in lines if value in line.replace(str(directory), "") and value not in ("command", "true")
            and not any(value in word for word in words)] == []
    assert [line for line in lines if repr(value) in line] == []


@pytest.mark.parametrize("setting", ["plugins_dir", "pipelines_dir"])
def test_a_reason_shows_a_directory_of_a_variable_as_it_is_written(directory, setting):
    write(directory / "plugins/echo/manifest.yaml", "name: echo\n")
    (directory / "pipelines").mkdir()
    write(directory / "pipelines/a.yaml", "name: 5\nsteps: [{uses: echo}]\n")
    where = directory / setting.removesuffix("_dir")
    reading = read(directory, f"plugins: {{echo: {{}}}}\n{setting}: ${{HERE}}\n", {**ENVIRON, "HERE": str(where)})
    [line, *_] = reading.faults if setting == "plugins_dir" else reading.problems
    assert "${HERE}/" in line and str(where) not in line
    assert str(where) not in str(reading.runtime.plugins["echo"].reason if setting == "plugins_dir" else "")


@pytest.mark.parametrize("text", ["plugins: {}\n", "plugins: {echo: {enabled: false}}\n", "service: {}\n"])
def test_a_configuration_without_an_enabled_plugin_is_a_warning(directory, text):
    reading = read(directory, text)
    assert (reading.problems, reading.warnings) == (
        (), (f"{directory}/config.yaml: no plugin is enabled: nothing runs, and queued jobs wait",))


def test_what_others_may_write_of_the_configuration_plugins_and_pipelines_is_a_warning(directory):
    for name in ("open", "sticky", "shared"):
        (directory / name / "plugins").mkdir(parents=True)
        (directory / name / "pipelines").mkdir()
        (directory / name).chmod(0o1777 if name == "sticky" else 0o777)
    make(directory / "open" / "plugins", "one")
    pipelines = directory / "shared" / "pipelines"
    for name, mode in (("a.yaml", 0o666), ("b.yaml", 0o664), ("notes.txt", 0o666)):
        (pipelines / name).write_text("pipelines: []\n")
        (pipelines / name).chmod(mode)
    pipelines.chmod(0o777)
    (directory / "config.yaml").write_text(
        "plugins: {one: {}}\nplugins_dir: [sticky/plugins, open/plugins]\npipelines_dir: shared/pipelines\n")
    (directory / "config.yaml").chmod(0o646)
    refuses = "writable by others, which the next release refuses: chmod o-w"
    assert read(directory).warnings == tuple(
        f"{path}: {refuses} {path}" for path in (
            directory / "config.yaml", directory / "open", pipelines, directory / "shared", pipelines / "a.yaml"))


def test_more_problems_than_anybody_reads_are_counted(directory):
    text = "plugins: {echo: {}}\nservice:\n" + "".join(f"  tick_intervl{number}: 1\n" for number in range(10_000))
    found = problems(directory, text)
    assert (len(found), found[-1]) == (501, "and 9,500 more problems")
    assert found[0] == "config.yaml:3:3: service.tick_intervl0: unknown key (did you mean 'tick_interval'?)"


# Pipelines in the configuration, and files that it includes


def test_pipelines_stand_in_the_configuration_and_in_what_it_includes_and_in_files(directory: Path) -> None:
    write(directory / "plugins" / "echo" / "manifest.yaml", MANIFEST.format(version="1", commands="handle"))
    (directory / "more.yaml").write_text(
        "pipelines:\n  - {name: second, on: go, steps: [{uses: echo, with: {price: '${price} or ${NOT_SET}'}}]}\n")
    (directory / "pipelines").mkdir()
    (directory / "pipelines" / "a.yaml").write_text("name: third\non: go\nsteps: [call: second]\n")
    result = read(directory, "include: [more.yaml]\npipelines:\n  - {name: first, on: go, steps: [uses: echo]}\n" + ONE)
    assert result.problems == ()
    found = result.runtime.router.pipelines
    assert list(found) == ["first", "second", "third"]
    assert found["second"].nodes["echo.1"].template == {"price": "${price} or ${NOT_SET}"}
    before = result.runtime.digest
    (directory / "more.yaml").write_text("service: {name: other}\n")
    assert read(directory).runtime.digest != before


def test_a_problem_of_a_pipeline_is_where_the_pipeline_is(directory: Path) -> None:
    write(directory / "plugins" / "echo" / "manifest.yaml", MANIFEST.format(version="1", commands="handle"))
    (directory / "more.yaml").write_text("pipelines:\n  - {name: a, on: b, steps: [uses: ecko]}\n")
    (directory / "pipelines").mkdir()
    (directory / "pipelines" / "a.yaml").write_text("name: a\non: c\nsteps: [uses: echo]\n")
    text = "include: [more.yaml]\n" + ONE + "pipelines:\n  - {name: x, on: 'a.*', steps: []}\n"
    assert problems(directory, text) == [
        "config.yaml:5:19: pipelines[0].on: expected one event type, as types match exactly and not by patterns, got"
        " 'a.*'",
        "config.yaml:5:33: pipelines[0].steps: expected at least one step, got an empty list",
        "more.yaml:2:36: pipelines[1].steps[0].uses: expected a configured plugin, got 'ecko' (did you mean 'echo'?)",
        "pipelines/a.yaml:1:7: name: expected a name of its own, got 'a', which the pipeline at more.yaml:2:12 has",
    ]


@pytest.mark.parametrize(("text", "expected"), [
    ("pipelines: {name: a}\n", "3:12: pipelines: expected a list, got a mapping"),
    ("pipelines: []\n", "3:12: pipelines: expected at least one pipeline, got an empty list"),
    ("pipelines: [a]\n", "3:13: pipelines[0]: expected a mapping, got 'a'"),
])
def test_pipelines_of_the_configuration_are_a_list(directory: Path, text: str, expected: str) -> None:
    assert problems(directory, ONE + text) == [f"config.yaml:{expected}"]
