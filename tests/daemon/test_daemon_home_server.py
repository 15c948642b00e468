"""The configuration in etc/home-server with stand-ins for its programs, pages and services, whatever is killed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ductile import runtime_config
from support.chains import AGAIN, await_rest, ends, is_sound
from support.daemon import RealDaemon
from support.held_back import HeldBack
from support.plugin_runs import Plugin, told
from support.standin import Asked, Reply, Service, serving

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "etc" / "home-server"
SECRET = "t0pic-that-nobody-guesses"
NAMES = ("NOTIFY_URL", "PING_URL", "BACKUP_PING_URL")
# What stands for the programs. `date` is the real one.
PROGRAMS = {
    "mountpoint": "exit 0", "rsync": "echo 'sent 5 bytes'", "df": "printf 'Filesystem\\n/dev/x 1 1 1 95%% /\\n'",
    "openssl": '[ "$1" = s_client ] && [ "$3" = www.example.org:443 ] || echo "notAfter=$(date -d "+5 days 1 hour")"',
}
MESSAGES = {
    "The backup is done.\nsent 5 bytes", "The disk is 95 % full.", "The certificate expires in 5 days.",
    "router-firmware has changed\n- 1.0\n+ 1.1", "python: New\nhttps://e.example/new",
}


class World:
    """The pages, the feeds and the services of the configuration."""

    def __init__(self) -> None:
        self.version, self.entries = "1.0", ["Old"]

    def reply(self, asked: Asked) -> Reply:
        if asked.path == "/page":
            return 200, f'<p id="latest"><b class="version">{self.version}</b>'
        if asked.path == "/feed":
            items = "".join(f"<item><title>{title}</title><link>https://e.example/{title.lower()}</link></item>"
                            for title in self.entries)
            return 200, f"<rss><channel><title>F</title>{items}</channel></rss>"
        return 200, "OK"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def service(world: World) -> Iterator[Service]:
    with serving(world.reply) as running:
        yield running


@pytest.fixture
def server(daemon: RealDaemon, service: Service) -> RealDaemon:
    """A daemon with that configuration, with other addresses of pages and feeds and without schedules."""
    shutil.copytree(SHIPPED / "pipelines", daemon.home / "pipelines")
    config = yaml.safe_load((SHIPPED / "config.yaml").read_text(encoding="utf-8"))
    secrets = daemon.home / "secrets.env"
    secrets.touch(mode=0o600)
    secrets.write_text("".join(f"{name}={service.url}/{SECRET}/{name}\n" for name in NAMES))
    (daemon.home / "bin").mkdir()
    for name, script in PROGRAMS.items():
        write(daemon, name, script)
    daemon.environ["PATH"] = f"{daemon.home / 'bin'}:{daemon.environ['PATH']}"
    plugins = config["plugins"]
    for settings in plugins.values():
        settings.pop("schedule", None)
        settings["retry"] = AGAIN
    plugins["pages"]["config"]["pages"]["router-firmware"]["url"] = f"{service.url}/page"
    plugins["news"]["config"]["feeds"] = {"python": f"{service.url}/feed"}
    daemon.config |= config | {"service": {**daemon.config["service"], "env_file": "./secrets.env"},
                               "plugins_dir": os.fspath(ROOT / "plugins")}
    daemon.configure()
    return daemon


def write(daemon: RealDaemon, name: str, script: str) -> None:
    program = daemon.home / "bin" / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def run(daemon: RealDaemon, *plugins: str) -> None:
    for plugin in plugins:
        daemon.submit(plugin)
    await_rest(daemon)


def messages(service: Service) -> list[str]:
    return [asked.body.decode().rstrip() for asked in service.asked if asked.path == f"/{SECRET}/NOTIFY_URL"]


def test_the_configuration_has_no_problem_but_its_secrets() -> None:
    loaded = runtime_config.read(SHIPPED / "config.yaml", dict.fromkeys(NAMES, "https://e.example/"), keep_unset=True)
    assert (loaded.problems, loaded.faults) == ((), ())


def test_what_there_is_to_say_is_told_once(server: RealDaemon, service: Service, world: World) -> None:
    server.start()
    run(server, "backup", "disk", "certificate", "pages", "news", "alive")
    world.version, world.entries = "1.1", ["New", "Old"]
    run(server, "pages", "news", "pages", "news")
    server.stop()
    assert {status for _, status, _ in ends(server)} == {"succeeded"}
    assert (len(messages(service)), set(messages(service))) == (5, MESSAGES)
    paths = service.paths
    assert [paths.count(f"/{SECRET}/{name}") for name in NAMES[1:]] == [1, 1]
    dump = repr([server.rows(f"SELECT * FROM {table}") for table in ("job_queue", "job_log", "event_context")])
    assert SECRET not in dump


@pytest.mark.parametrize(("plugin", "output", "kinds"), [
    ("backup", "", ["backup.done"]), ("disk", "90", []), ("disk", "91", ["disk.full"]), ("certificate", "14", []),
    ("certificate", "-3", ["certificate.expires"]), ("certificate", "95", [])])
def test_only_what_needs_a_look_becomes_an_event(tmp_path: Path, plugin: str, output: str, kinds: list[str]) -> None:
    config = yaml.safe_load((SHIPPED / "config.yaml").read_text(encoding="utf-8"))["plugins"]["results"]["config"]
    found = Plugin(ROOT / "plugins" / "switch", tmp_path, config).handle({"output": output, "origin_plugin": plugin})
    assert [kind for kind, _ in told(found)] == kinds


def test_a_backup_that_fails_is_told_and_not_pinged(server: RealDaemon, service: Service) -> None:
    write(server, "mountpoint", "exit 1")
    server.config["plugins"]["backup"]["retry"] = {"max_attempts": 1}
    server.configure()
    server.start()
    run(server, "backup")
    [(job, since)] = server.rows("SELECT id, completed_at FROM job_queue WHERE plugin = 'backup'")
    assert messages(service) == [
        f"backup poll failed permanently: sh exited 1: /mnt/backup: not mounted\nductilectl logs {job}"]
    assert len(service.asked) == 1
    write(server, "mountpoint", "exit 0")
    run(server, "backup")
    server.stop()
    assert sorted(messages(service)[1:]) == [
        "The backup is done.\nsent 5 bytes", f"backup poll succeeded again; jobs failed since {since}: 1"]


def test_killed_in_every_plugin_nothing_is_lost(server: RealDaemon, service: Service, world: World) -> None:
    held_back = HeldBack(server)
    server.start()
    run(server, "pages", "news")
    world.version, world.entries = "1.1", ["New", "Old"]
    held_back.hold("command", "switch")
    server.submit("backup")
    held_back.kill_in("command")
    held = service.hold(f"/{SECRET}/BACKUP_PING_URL")
    held_back.kill_in("switch")
    held.await_request()
    server.kill()
    server.start()
    held.release()
    for plugin, path in (("pages", "/page"), ("news", "/feed"), ("alive", f"/{SECRET}/PING_URL"),
                         ("disk", f"/{SECRET}/NOTIFY_URL"),
                         ("certificate", f"/{SECRET}/NOTIFY_URL")):
        held = service.hold(path)
        server.submit(plugin)
        held.await_request()
        server.kill()
        server.start()
        held.release()
    await_rest(server)
    server.stop()
    assert is_sound(server)
    assert {status for _, status, _ in ends(server)} == {"succeeded"}
    assert set(messages(service)) == MESSAGES
    # Only what was sent when the daemon was killed is sent again.
    assert len(messages(service)) <= len(MESSAGES) + 2
