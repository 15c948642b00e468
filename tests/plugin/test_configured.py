from __future__ import annotations

import pytest

from ductile.config.model import PluginConfig
from ductile.plugin import plugin_table
from ductile.plugin.discovery import bind, discover
from support.clock import START
from support.ledger import opened
from support.plugins_on_disk import make, write

MANIFEST = """\
name: echo
version: {version}
protocol: 2
entrypoint: run.sh
commands: [{commands}]
config_keys:
  required: [token, url]
"""
GOOD = {"token": "t", "url": "u"}


@pytest.fixture
def on_disk(tmp_path):
    """A function that puts the plugin `echo` on disk and returns what is found there."""
    directory = make(tmp_path / "plugins", "echo")

    def put(*, version="1.0", commands="poll, init"):
        write(directory / "manifest.yaml", MANIFEST.format(version=version, commands=commands))
        return discover([tmp_path / "plugins"])

    return put


def settings(**fields) -> PluginConfig:
    return PluginConfig(**{"name": "mine", "uses": "echo", "config": GOOD} | fields)


def test_an_entry_gets_the_code_that_it_uses(on_disk):
    bound = bind(settings(), on_disk())
    assert (bound.plugin.manifest.name, bound.version, bound.reason, bound.runnable) == ("echo", "1.0", None, True)


def test_a_disabled_plugin_is_loaded_and_does_not_run(on_disk):
    bound = bind(settings(enabled=False), on_disk())
    assert (bound.plugin is not None, bound.runnable) == (True, False)


def test_a_plugin_that_was_not_found_is_not_loaded(on_disk, tmp_path):
    bound = bind(settings(uses="eco"), on_disk())
    assert (bound.plugin, bound.version, bound.runnable) == (None, None, False)
    assert bound.reason == f"no plugin named 'eco' was found in {tmp_path}/plugins (did you mean 'echo'?)"
    assert bound.place == ("plugins", "mine", "uses")


def test_a_directory_whose_manifest_has_another_name_is_named(on_disk, tmp_path):
    on_disk()
    (tmp_path / "plugins" / "echo").rename(tmp_path / "plugins" / "parrot")
    bound = bind(settings(uses="parrot"), discover([tmp_path / "none", tmp_path / "plugins"]))
    assert bound.reason == (f"no plugin named 'parrot' was found in {tmp_path}/none, {tmp_path}/plugins; the manifest"
                            f" in {tmp_path}/plugins/parrot has the name 'echo'")


def test_a_plugin_that_cannot_be_trusted_says_why(on_disk, tmp_path):
    registry = on_disk()
    program = tmp_path / "plugins" / "echo" / "run.sh"
    program.chmod(0o644)
    bound = bind(settings(), discover([tmp_path / "plugins"]))
    assert registry.get("echo").plugin is not None
    assert (bound.plugin, bound.reason) == (
        None, f"{program}: the entrypoint is not executable: chmod a+rx {program}")


@pytest.mark.parametrize("config, lacks", [
    ({}, "token, url"), ({"url": "u"}, "token"), ({"token": None, "url": "u"}, "token"),
])
def test_keys_that_the_plugin_requires_and_are_not_there_are_named(on_disk, config, lacks):
    bound = bind(settings(config=config), on_disk())
    assert (bound.plugin, bound.version) == (None, "1.0")
    assert bound.reason == f"plugins.mine.config lacks {lacks}, which the plugin requires"


@pytest.mark.parametrize("value", ["", 0, False, [], {}])
def test_an_empty_value_is_a_value(on_disk, value):
    assert bind(settings(config=GOOD | {"token": value}), on_disk()).runnable


# init


def fingerprint(on_disk, *, version="1.0", **fields) -> str | None:
    return bind(settings(**fields), on_disk(version=version)).needs_init


def test_a_plugin_without_init_needs_none(on_disk):
    assert bind(settings(), on_disk(commands="poll")).needs_init is None


def test_a_plugin_that_is_not_loaded_needs_none(on_disk):
    assert bind(settings(config={}), on_disk()).needs_init is None


def test_the_same_version_with_the_same_configuration_is_initialised_once(on_disk):
    assert fingerprint(on_disk, config={"url": "u", "token": "t"}) == fingerprint(on_disk, config=GOOD)
    assert fingerprint(on_disk, max_outstanding_polls=5) == fingerprint(on_disk)


@pytest.mark.parametrize("change", [
    {"version": "1.1"}, {"config": GOOD | {"token": "another"}}, {"config": GOOD | {"more": None}},
    {"config": GOOD | {"token": ["t"]}},
])
def test_another_version_or_configuration_is_initialised_again(on_disk, change):
    assert fingerprint(on_disk, **change) != fingerprint(on_disk)


def test_the_fingerprint_shows_no_secret(on_disk):
    found = fingerprint(on_disk, config=GOOD | {"token": "0123456789abcdef"})
    assert len(found) == 64
    assert "0123456789abcdef" not in found


# What the ledger knows of plugins


@pytest.fixture
def conn(tmp_path):
    with opened(tmp_path) as conn:
        yield conn


def test_what_was_read_last_replaces_what_was_there(conn):
    first = [plugin_table.PluginLoad(plugin=name, version="1.0", enabled=True, needs_init="f", reason=None,
                                     commands=("poll", "x"))
             for name in ("b", "a")]
    plugin_table.replace_loads(conn, first, START)
    assert plugin_table.loads(conn) == first[::-1]
    second = [plugin_table.PluginLoad(plugin="c", version=None, enabled=False, needs_init=None,
                                      reason="its manifest is missing")]
    plugin_table.replace_loads(conn, second, START)
    assert plugin_table.loads(conn) == second


def test_only_an_init_that_succeeded_counts_and_only_the_last(conn):
    for number, (fingerprint, ok) in enumerate([("one", True), ("two", False), ("two", True), ("one", False)]):
        plugin_table.put_init(conn, "echo", fingerprint=fingerprint, ok=ok, job_id=f"job-{number}", now=START)
        expected = {("echo", fingerprint)} if ok else set()
        assert plugin_table.initialised(conn) == expected
