"""What a reload says of a change: key by key, and never the value of a secret."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ductile import runtime_config
from ductile.changes import compare
from ductile.runtime_config import RuntimeConfig
from support.plugins_on_disk import make

SECRET, ANOTHER = "a secret that is long enough", "another one that is as long"
ENVIRON = {"TZ": "UTC", "TOKEN": SECRET, "OTHER": ANOTHER}
MANIFEST = "name: echo\nversion: 0.1.0\nprotocol: 2\nentrypoint: run.sh\ncommands: [poll, handle]\n"
HOOK = {"path": "/hook", "plugin": "echo", "secret": "${TOKEN}", "signature_header": "X-Signature"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make(tmp_path / "plugins", "echo")
    (tmp_path / "plugins/echo/manifest.yaml").write_text(MANIFEST)
    return tmp_path


def read(directory: Path, plugins: Mapping[str, Any], environ: Mapping[str, str] = ENVIRON,
         **sections: Any) -> RuntimeConfig:
    # JSON is YAML.
    (directory / "config.yaml").write_text(json.dumps({"plugins": plugins, **sections}))
    return runtime_config.build(directory / "config.yaml", environ).runtime


def changes(directory: Path, before: Mapping[str, Any], after: Mapping[str, Any], **ended: int) -> tuple[str, ...]:
    """What is said of a change of `echo`."""
    return compare(read(directory, {"echo": before}), read(directory, {"echo": after}), ended)


@pytest.mark.parametrize(("before", "after", "expected"), [
    ({}, None, []),
    ({"schedule": {"every": "5m"}}, {"schedule": {"every": "10m"}}, ["schedule.every 5m -> 10m"]),
    ({"schedule": [{"id": "a", "every": "5m"}]},
     {"schedule": [{"id": "a", "every": "5m", "jitter": "1m"}, {"id": "b", "every": "1h"}]},
     ["schedule[0].jitter (not set) -> 1m", "schedule[1].id (not set) -> b", "schedule[1].every (not set) -> 1h"]),
    ({"schedule": {"every": "5m"}}, {"schedule": [{"id": "a", "every": "5m"}]}, ["schedule changed"]),
    ({}, {"timeouts": {"poll": "10s"}}, ["timeouts.poll (not set) -> 10s"]),
    ({"env": ["LANG"]}, {"env": ["LANG", "TZ"]}, ["env [LANG] -> [LANG, TZ]"]),
    ({"config": {"a": 1, "b": None}}, {"config": {"a": True}}, ["config.a 1 -> true"]),
    ({"config": {"a": {"b": "x"}}}, {"config": {"a": {"b": "two\nlines"}}}, ["config.a.b x -> two\\nlines"]),
    ({"config": {"a": "x"}}, {"config": {"a": ""}}, ["config.a x -> ''"]),
    ({"config": {"a": "x"}}, {"config": {"a": "y" * 500}}, [f"config.a x -> {'y' * 59}…"]),
    ({"config": {"a": "x"}}, {"config": {"a": {"b": 1}}}, ["config.a changed"]),
    ({"enabled": False}, {"enabled": True}, ["enabled false -> true"]),
    ({"enabled": True}, {}, []),
])
def test_a_plugin_is_told_key_by_key(directory: Path, before: dict, after: dict | None, expected: list[str]) -> None:
    assert changes(directory, before, after) == tuple(f"plugin echo changed: {line}" for line in expected)


@pytest.mark.parametrize(("before", "after"), [
    ("${TOKEN}", "${OTHER}"), ("open", "${TOKEN}"), ("${TOKEN}", "open"), ("x ${TOKEN}", "y ${TOKEN}"),
    (["a", "${TOKEN}"], ["b", "${TOKEN}"]), ({"in": "${TOKEN}"}, "open"),
])
def test_the_value_of_a_variable_is_never_shown(directory: Path, before: Any, after: Any) -> None:
    assert changes(directory, {"config": {"url": before}}, {"config": {"url": after}}) == (
        "plugin echo changed: config.url changed",)


def test_nor_is_what_has_the_name_of_a_credential(directory: Path) -> None:
    assert changes(directory, {"config": {"api_key": "one", "auth": {"userPassword": 1}}},
                   {"config": {"api_key": "two", "auth": {"userPassword": 2}}}) == (
        "plugin echo changed: config.api_key changed", "plugin echo changed: config.auth.userPassword changed")


def test_a_variable_with_another_value_is_a_change_of_what_uses_it(directory: Path) -> None:
    plugins = {"echo": {"config": {"url": "${TOKEN}"}, "env": ["TOKEN"]}}
    webhooks = {"listen": "127.0.0.1:8081", "endpoints": [HOOK]}
    before = read(directory, plugins, webhooks=webhooks)
    after = read(directory, plugins, ENVIRON | {"TOKEN": ANOTHER}, webhooks=webhooks)
    assert compare(before, after, {}) == (
        "plugin echo changed: config.url changed", "plugin echo changed: environment variable TOKEN changed",
        "endpoint /hook changed: secret changed")


@pytest.mark.parametrize(("old", "new", "expected"), [
    ("poll, ", "", ["command poll removed"]),
    ("poll, ", "poll, extra, more, ", ["command extra added", "command more added"]),
    ("[poll, handle]", "[{name: poll, type: read}, handle]", ["command poll changed"]),
    ("0.1.0", "0.2.0", ["version 0.1.0 -> 0.2.0"]),
    ("protocol: 2", "protocol: 1", ["protocol 2 -> 1"]),
    ("commands", "description: Says it back\ncommands", ["description '' -> Says it back"]),
    ("commands", "config_keys: {required: [a]}\ncommands", ["config_keys.required [] -> [a]"]),
    ("commands", "private_state: [session]\ncommands", ["private_state [] -> [session]"]),
])
def test_a_manifest_is_told_key_by_key(directory: Path, old: str, new: str, expected: list[str]) -> None:
    before = read(directory, {"echo": {"config": {"a": 1}}})
    (directory / "plugins/echo/manifest.yaml").write_text(MANIFEST.replace(old, new))
    after = read(directory, {"echo": {"config": {"a": 1}}})
    assert compare(before, after, {}) == tuple(f"plugin echo changed: {line}" for line in expected)


def test_a_plugin_that_cannot_be_loaded_any_more_is_told_with_the_reason(directory: Path) -> None:
    before = read(directory, {"echo": {}})
    (directory / "plugins/echo/run.sh").chmod(0o644)
    after = read(directory, {"echo": {}, "gone": {}})
    reason = after.plugins["echo"].reason
    assert "not executable" in reason
    assert compare(before, after, {}) == (
        f"plugin echo changed: not loaded, its jobs wait: {reason}", "plugin gone added",
        f"plugin gone added: not loaded, its jobs wait: {after.plugins['gone'].reason}")
    assert compare(after, before, {}) == ("plugin echo changed: loaded again", "plugin gone removed")
    assert compare(after, after, {}) == ()


def test_a_program_that_was_replaced_is_told(directory: Path) -> None:
    before = read(directory, {"echo": {}})
    program = directory / "plugins/echo/run.sh"
    program.rename(directory / "old.sh")
    program.write_bytes((directory / "old.sh").read_bytes())
    program.chmod(0o755)
    assert compare(before, read(directory, {"echo": {}}), {}) == ("plugin echo changed: program replaced",)


def test_jobs_that_end_are_counted(directory: Path) -> None:
    before = read(directory, {"echo": {}, "gone": {}, "off": {"enabled": False}})
    after = read(directory, {"echo": {"enabled": False}, "off": {"enabled": False}})
    assert compare(before, after, {"echo": 1, "gone": 1234, "off": 2, "ghost": 1}) == (
        "plugin echo changed: enabled true -> false: 1 queued job failed",
        "plugin gone removed: 1,234 queued jobs failed", "plugin off is disabled: 2 queued jobs failed",
        "plugin ghost is not configured: 1 queued job failed")


def test_endpoints_routes_pipelines_and_settings_are_told_too(directory: Path) -> None:
    (directory / "pipelines").mkdir()
    file = directory / "pipelines" / "a.yaml"
    file.write_text("name: a\non: x.y\nsteps: [{id: one, uses: echo}]\n")
    before = read(directory, {"echo": {}}, webhooks={"listen": "127.0.0.1:8081", "endpoints": [HOOK]},
                  routes=[{"from": "echo", "event_type": "a.b", "to": "echo"}], service={"log_level": "info"})
    file.write_text("name: a\non: x.z\nsteps: [{id: one, uses: echo, command: poll}, {id: two, uses: echo}]\n")
    hook = {**HOOK, "max_body_size": "2MB", "secret": ["${TOKEN}", "${OTHER}"]}
    after = read(directory, {"echo": {}}, webhooks={"listen": "127.0.0.1:8082", "endpoints": [hook, {**HOOK,
                                                                                                     "path": "/b"}]},
                 routes=[{"from": "echo", "event_type": "a.c", "to": "echo"}], service={"tick_interval": "5s"})
    assert compare(before, before, {}) == ()
    assert compare(before, after, {}) == (
        "endpoint /hook changed: secret changed", "endpoint /hook changed: max_body_size (not set) -> 2MB",
        "endpoint /b added", "route echo a.b echo removed", "route echo a.c echo added",
        "pipeline a changed: on x.y -> x.z", "pipeline a changed: steps.one.command handle -> poll",
        "pipeline a changed: steps.one.next [] -> [two]", "pipeline a changed: steps.two.command (not set) -> handle",
        "pipeline a changed: steps.two.deep_copy (not set) -> false",
        "pipeline a changed: steps.two.next (not set) -> []",
        "pipeline a changed: steps.two.plugin (not set) -> echo",
        "setting webhooks.listen 127.0.0.1:8081 -> 127.0.0.1:8082", "setting service.log_level info -> (not set)",
        "setting service.tick_interval (not set) -> 5s")


def test_of_very_many_changes_the_first_are_told_and_the_others_counted(directory: Path) -> None:
    before, after = ({"config": {f"k{number}": value for number in range(1000)}} for value in (1, 2))
    found = changes(directory, before, after)
    assert (len(found), found[0], found[-1]) == (201, "plugin echo changed: config.k0 1 -> 2", "and 800 more changes")
