"""SIGHUP: another configuration is taken whole or not at all, and nothing that was accepted is lost by it."""

from __future__ import annotations

import json
import signal
import socket
from contextlib import closing
from pathlib import Path

import pytest

from support import hooks
from support.daemon import RealDaemon
from support.gate import Gate
from support.wire import PATH, SECRET, Wire, ask, signed

BODY = b"{}"
LISTENS = "SELECT listen FROM config_loads WHERE ok ORDER BY id DESC LIMIT 1"


@pytest.fixture
def address(daemon: RealDaemon) -> hooks.Address:
    """The address of a daemon that runs, with a hook whose jobs wait."""
    hooks.install_waiting_hook(daemon)
    address = hooks.listen(daemon)
    daemon.start()
    return address


def reload(daemon: RealDaemon) -> dict:
    """Have the configuration read again, and return the line that tells what changed."""
    done = len(daemon.log("configuration reloaded"))
    daemon.send(signal.SIGHUP)
    return daemon.await_log("configuration reloaded", done + 1)


def refused(daemon: RealDaemon, *errors: str) -> None:
    """Have the configuration read again, and see that it is refused for these reasons."""
    count = len(daemon.lines())
    daemon.send(signal.SIGHUP)
    daemon.await_log("reload rejected; keeping the current configuration")
    said = [(line["level"], line["message"]) for line in daemon.lines()[count:]]
    assert said == [("error", error) for error in (*errors, "reload rejected; keeping the current configuration")]
    daemon.until("SELECT ok, errors FROM config_loads ORDER BY id DESC LIMIT 1", [(0, "\n".join(errors))])


def takes(address: hooks.Address, *, secret: str = SECRET, path: str = PATH) -> int:
    return ask(address, signed(BODY, secret=secret, path=path)).status


def is_shut(address: hooks.Address) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex(address) != 0


def test_a_reload_of_the_same_changes_nothing(daemon: RealDaemon, address: hooks.Address) -> None:
    with Wire(address) as wire:
        for _ in range(3):
            wire.send(signed(BODY))
            assert wire.answer().status == 202
            assert reload(daemon)["changes"] == []
    # One for the start.
    daemon.await_note("READY=1", 4)
    names = [note.partition("=")[0] for note in daemon.notes]
    assert (names.count("RELOADING"), names.count("MONOTONIC_USEC")) == (3, 3)
    assert daemon.rows("SELECT count(*) FROM config_loads") == [(4,)]
    daemon.stop()


def test_a_typo_is_refused_and_all_stays_as_it_was(daemon: RealDaemon, address: hooks.Address) -> None:
    daemon.configure(service={"log_level": "loud", "tick_intervall": "1h"})
    file = daemon.home / "config.yaml"
    refused(daemon, f"{file}:4:16: service.log_level: expected one of debug, info, warn, error, got 'loud'",
            f"{file}:5:3: service.tick_intervall: unknown key (did you mean 'tick_interval'?)")
    assert takes(address) == 202
    del daemon.config["service"]["tick_intervall"]
    daemon.configure(service={"log_level": "debug"})
    assert reload(daemon)["changes"] == ["setting service.log_level (not set) -> debug"]
    daemon.stop()


def test_a_configuration_that_is_gone_is_refused(daemon: RealDaemon, address: hooks.Address) -> None:
    (daemon.home / "config.yaml").unlink()
    daemon.send(signal.SIGHUP)
    daemon.await_log("reload rejected; keeping the current configuration")
    assert takes(address) == 202
    daemon.stop()


def test_a_port_that_is_taken_refuses_the_reload(daemon: RealDaemon, address: hooks.Address) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, Wire(address) as kept:
        kept.send(signed(BODY))
        assert kept.answer().status == 202
        daemon.await_log("webhook accepted")
        port = other.getsockname()[1]
        hooks.listen(daemon, port=port, path="/other")
        refused(daemon, f"cannot listen on 127.0.0.1:{port}: Address already in use; "
                        "set webhooks.listen to a free address")
        kept.send(signed(BODY))
        assert (kept.answer().status, takes(address), takes(address, path="/other")) == (202, 202, 404)
    assert daemon.rows(LISTENS) == [(f"127.0.0.1:{address[1]}",)]
    daemon.stop()


def test_a_listener_moves_to_another_port(daemon: RealDaemon, address: hooks.Address) -> None:
    with Wire(address) as idle, Wire(address) as busy:
        idle.send(signed(BODY))
        assert idle.answer().status == 202
        busy.send(signed(BODY, "Expect: 100-continue").removesuffix(BODY))
        assert busy.answer().status == 100
        other = hooks.listen(daemon, path="/other")
        assert set(reload(daemon)["changes"]) == {
            f"endpoint {PATH} removed", "endpoint /other added",
            f"setting webhooks.listen 127.0.0.1:{address[1]} -> 127.0.0.1:{other[1]}"}
        assert (is_shut(address), takes(other, path="/other"), takes(other)) == (True, 202, 404)
        assert idle.rest() == b""
        # What was begun at the old address, by the old configuration, is taken there.
        busy.send(BODY)
        assert (busy.answer().status, busy.rest()) == (202, b"")
    assert daemon.rows(LISTENS) == [(f"127.0.0.1:{other[1]}",)]
    daemon.stop()


def test_a_listener_moves_where_both_addresses_overlap(daemon: RealDaemon, address: hooks.Address) -> None:
    for host, before in (("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")):
        hooks.listen(daemon, host=host, port=address[1])
        assert reload(daemon)["changes"] == [
            f"setting webhooks.listen {before}:{address[1]} -> {host}:{address[1]}"]
        assert (takes(address), daemon.rows(LISTENS)) == (202, [(f"{host}:{address[1]}",)])
    daemon.stop()


def test_where_an_overlapping_address_cannot_be_had_the_old_one_listens_again(
        daemon: RealDaemon, address: hooks.Address) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.2", address[1]))
        other.listen()
        hooks.listen(daemon, host="0.0.0.0", port=address[1])
        refused(daemon, f"cannot listen on 0.0.0.0:{address[1]}: Address already in use; "
                        "set webhooks.listen to a free address")
        assert takes(address) == 202
    daemon.stop()


def test_a_listener_comes_and_goes(daemon: RealDaemon) -> None:
    hooks.install_waiting_hook(daemon)
    daemon.environ["HOOK_SECRET"] = SECRET
    daemon.start()
    address = hooks.listen(daemon)
    for _ in range(2):
        reload(daemon)
        assert (takes(address), daemon.rows(LISTENS)) == (202, [(f"127.0.0.1:{address[1]}",)])
        webhooks = daemon.config.pop("webhooks")
        daemon.configure()
        reload(daemon)
        assert (is_shut(address), daemon.rows(LISTENS)) == (True, [(None,)])
        daemon.configure(webhooks=webhooks)
    daemon.stop()


def test_secrets_are_rotated_through_the_env_file(daemon: RealDaemon) -> None:
    hooks.install_waiting_hook(daemon)
    secrets = daemon.home / "secrets.env"
    secrets.touch(mode=0o600)
    secrets.write_text(f"OLD_SECRET={SECRET}\nNEW_SECRET=\"the next one, long enough\"\n")
    daemon.configure(service={"env_file": "./secrets.env"})
    address = hooks.listen(daemon, secret="${OLD_SECRET}")
    daemon.start()
    new = "the next one, long enough"
    assert (takes(address), takes(address, secret=new)) == (202, 403)
    hooks.listen(daemon, port=address[1], secret=["${OLD_SECRET}", "${NEW_SECRET}"])
    assert reload(daemon)["changes"] == [f"endpoint {PATH} changed: secret changed"]
    assert (takes(address), takes(address, secret=new)) == (202, 202)
    secrets.write_text("OLD_SECRET=something else entirely\nNEW_SECRET=\"the next one, long enough\"\n")
    reload(daemon)
    assert (takes(address), takes(address, secret=new)) == (403, 202)
    secrets.write_text("OLD_SECRET=something else entirely\n")
    daemon.send(signal.SIGHUP)
    daemon.await_log("reload rejected; keeping the current configuration")
    assert takes(address, secret=new) == 202
    daemon.stop()
    assert all(secret not in daemon.output.read_text() for secret in (SECRET, new, "something else entirely"))


def test_queued_jobs_of_a_plugin_that_is_taken_out_die_with_the_reason(
        daemon: RealDaemon, address: hooks.Address) -> None:
    job_id = ask(address, signed(BODY)).json["job_id"]
    del daemon.config["plugins"]["hook"], daemon.config["webhooks"]
    daemon.install("ok")
    assert set(reload(daemon)["changes"]) == {
        "plugin ok added",
        "plugin hook removed: 1 queued job failed", f"endpoint {PATH} removed",
        f"setting webhooks.listen 127.0.0.1:{address[1]} -> (not set)"}
    daemon.await_job(job_id, "dead")
    [(error,)] = daemon.rows("SELECT last_error FROM job_queue WHERE id = ?", job_id)
    assert "hook" in error
    daemon.await_log("queued job failed: its plugin is no longer enabled", job_id=job_id, plugin="hook")
    daemon.stop()


def test_a_plugin_that_is_mended_runs_what_has_waited(daemon: RealDaemon, address: hooks.Address) -> None:
    job_id = ask(address, signed(BODY)).json["job_id"]
    run = daemon.directory("hook") / "run"
    run.write_text('#!/bin/sh\ncat >/dev/null\necho \'{"status": "ok"}\'\n')
    run.chmod(0o755)
    assert reload(daemon)["changes"] == ["plugin hook changed: loaded again"]
    daemon.await_job(job_id, "succeeded")
    daemon.stop()


def test_a_new_plugin_runs_its_init_after_the_reload(daemon: RealDaemon) -> None:
    daemon.start()
    daemon.plugin("fresh", '#!/bin/sh\ncat >/dev/null\necho \'{"status": "ok"}\'\n', commands=("poll", "init"))
    assert reload(daemon)["changes"] == ["plugin fresh added"]
    daemon.until("SELECT plugin, command, status FROM job_queue", [("fresh", "init", "succeeded")])
    reload(daemon)
    daemon.stop()
    assert daemon.rows("SELECT count(*) FROM job_queue") == [(1,)]


def test_the_running_job_ends_as_it_began_and_the_next_is_of_the_new_world(daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("ok")
    daemon.install("waits", config=gate.config)
    daemon.start()
    running = daemon.submit("waits")
    gate.arrived()
    del daemon.config["plugins"]["waits"]
    daemon.configure()
    assert reload(daemon)["changes"] == ["plugin waits removed"]
    assert daemon.job(running)[:2] == ("running", 1)
    gate.let_through()
    daemon.await_job(running, "succeeded")
    daemon.stop()


@pytest.mark.parametrize(("section", "name"), [("state", "state.path"), ("workspace", "workspace.path")])
def test_data_that_is_in_use_does_not_move(daemon: RealDaemon, tmp_path: Path, section: str, name: str) -> None:
    daemon.install("ok")
    daemon.configure(state={"path": "./data/state.db"}, workspace={"path": "./data/ws"})
    daemon.start()
    before = daemon.config[section]["path"]
    daemon.configure(**{section: {"path": "./elsewhere"}})
    refused(daemon, f"{name} cannot change while ductiled runs: stop it, move {tmp_path}/{before[2:]} to "
                    f"{tmp_path}/elsewhere, start it again")
    daemon.stop()


def test_a_log_that_cannot_be_opened_refuses_the_reload(daemon: RealDaemon, tmp_path: Path) -> None:
    daemon.install("ok")
    daemon.start()
    daemon.configure(service={"log": "./nowhere/ductile.log"})
    refused(daemon, f"cannot open the log {tmp_path}/nowhere/ductile.log: No such file or directory; "
                    "set service.log to a writable path")
    daemon.stop()


def test_the_log_moves_with_a_reload(daemon: RealDaemon, tmp_path: Path) -> None:
    daemon.install("ok")
    daemon.start()
    daemon.configure(service={"log": "./ductile.log"})
    daemon.send(signal.SIGHUP)
    daemon.output = tmp_path / "ductile.log"
    assert daemon.await_log("configuration reloaded")["changes"] == ["setting service.log (not set) -> ./ductile.log"]
    daemon.stop()
    assert [line["message"] for line in daemon.lines()][-1] == "stopped"


def test_a_storm_of_reloads_loses_no_webhook(daemon: RealDaemon, address: hooks.Address) -> None:
    with hooks.Senders(address, range(600), threads=4).sending() as senders:
        for count in range(10, 510, 10):
            senders.await_answers(count)
            daemon.send(signal.SIGHUP)
    assert (senders.cut_off, {answer.status for answer in senders.answers.values()}) == (0, {202})
    jobs = {json.loads(payload)["payload"]["body"]: job_id
            for job_id, payload in daemon.rows("SELECT id, payload FROM job_queue")}
    assert jobs == {number: answer.json["job_id"] for number, answer in senders.answers.items()}
    assert daemon.rows("SELECT count(*) FROM job_queue") == [(600,)]
    daemon.await_log("configuration reloaded")
    daemon.stop()


def test_a_reload_is_not_begun_by_a_daemon_that_stops(daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("waits", config=gate.config)
    daemon.start()
    daemon.submit("waits")
    gate.arrived()
    daemon.send(signal.SIGTERM)
    daemon.await_log("stopping")
    daemon.send(signal.SIGHUP)
    gate.let_through()
    daemon.ends(0)
    assert daemon.log("configuration reloaded") == []


NONE_ENABLED = ("no plugin is enabled, so all queued jobs would fail; a reload needs a configuration with at least"
                " one")


@pytest.mark.parametrize(("text", "error"), [
    ("", ":1:1: expected a configuration, got an empty file; `ductilectl init` writes one"),
    ("plugins: {}\n", f": {NONE_ENABLED}"),
    ("plugins: {ok: {enabled: false}}\n", f": {NONE_ENABLED}"),
    ("plugins: {ok: {}}\nstate: {path: /}\n",
     ":2:15: state.path: expected the path of a file, got '/', which is a directory"),
])
def test_a_file_that_lost_its_plugins_ends_nothing_that_waits(daemon: RealDaemon, text: str, error: str) -> None:
    daemon.install("ok")
    daemon.start()
    config = daemon.home / "config.yaml"
    good = config.read_bytes()
    config.write_text(text)
    refused(daemon, f"{config}{error}")
    config.write_bytes(good)
    daemon.await_job(daemon.submit("ok"), "succeeded")
    reload(daemon)


def test_a_start_without_an_enabled_plugin_lets_queued_jobs_wait(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.start()
    daemon.stop()
    config = daemon.home / "config.yaml"
    good = json.loads(config.read_bytes())
    config.write_text(json.dumps({**good, "plugins": {"ok": {**good["plugins"]["ok"], "enabled": False}}}))
    waiting = daemon.submit("ok")
    daemon.start()
    assert daemon.log(f"{config}: no plugin is enabled: nothing runs, and queued jobs wait", level="warn")
    daemon.stop()
    assert daemon.job(waiting) == ("queued", 1, None)
    config.write_text(json.dumps(good))
    daemon.start()
    daemon.await_job(waiting, "succeeded")
