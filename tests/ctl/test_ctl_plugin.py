"""`plugins` and `reset`: what is there to run, and a fresh start for it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

import pytest

from ctl.desk import Desk, Said, job_id, load, start
from ductile import db
from ductile.plugin import plugin_table
from ductile.queue import job_table
from ductile.scheduler import schedule_table
from ductile.scheduler.breaker import Breaker
from support.clock import START
from support.daemon import RealDaemon
from support.ledger import open_jobs, put_job


@pytest.fixture
def conn(desk: Desk) -> Iterator[sqlite3.Connection]:
    desk.plugin("echo", commands=("poll", "init"))
    with desk.ledger() as conn:
        yield conn


def test_every_plugin_found_or_configured_is_shown(desk: Desk) -> None:
    desk.plugin("echo")
    broken = desk.plugin("broken")
    (broken / "run").unlink()
    desk.plugin("unused")
    desk.configure(plugins={"echo": {}, "again": {"uses": "echo", "enabled": False}, "gone": {}})
    reason = (f"{broken}/run: the entrypoint is missing; put it there, or mend 'entrypoint' in {broken}/manifest.yaml")
    missing = f"no plugin named 'gone' was found in {desk.home}/plugins"
    said = desk.call("plugins")
    assert said == Said(code=0, err="", out=f"""\
PLUGIN  VERSION  PROTOCOL  COMMANDS            CONFIGURED AS  ENABLED  NOT LOADED
broken  -        -         -                   -              -        {reason}
echo    0.1.0    2         poll handle health  echo           yes      -
echo    0.1.0    2         poll handle health  again          no       -
unused  0.1.0    2         poll handle health  -              -        -
gone    -        -         -                   gone           yes      {missing}
""")
    rows = desk.call("plugins", "--json").json
    assert [(row["plugin"], row["configured_as"], row["enabled"], row["not_loaded"]) for row in rows] == [
        ("broken", None, None, reason), ("echo", "echo", True, None), ("echo", "again", False, None),
        ("unused", None, None, None), ("gone", "gone", True, missing)]
    assert rows[1] == {
        "plugin": "echo", "version": "0.1.0", "protocol": 2, "commands": ["poll", "handle", "health"],
        "command_details": [{"name": name, "type": None, "description": ""} for name in ("poll", "handle", "health")],
        "description": "", "configured_as": "echo", "enabled": True, "not_loaded": None,
        "directory": str(desk.home / "plugins" / "echo")}


def test_without_plugins_it_says_so(desk: Desk) -> None:
    assert desk.call("plugins") == Said(code=0, out="no plugin was found in plugins_dir\n", err="")


def test_plugins_needs_no_variable_and_no_database(desk: Desk) -> None:
    desk.plugin("echo", config={"token": "${NOT_SET}"})
    assert desk.call("plugins", "--json").json[0]["not_loaded"] is None
    assert not desk.database.exists()


def trip(conn: sqlite3.Connection) -> None:
    opened = Breaker(state="open", failure_count=3, opened_at=START)
    with db.transaction(conn):
        for plugin, command in (("echo", "poll"), ("echo", "other"), ("another", "poll")):
            schedule_table.put_breaker(conn, plugin, command, opened, START)


def test_reset_closes_the_breakers_of_one_plugin(conn: sqlite3.Connection, desk: Desk) -> None:
    trip(conn)
    assert desk.call("reset", "echo") == Said(code=0, out="plugin echo: 2 breakers cleared\n", err="")
    assert list(schedule_table.breakers(conn)) == [("another", "poll")]
    assert open_jobs(conn, 1) == []
    desk.plugin("another")
    assert desk.call("reset", "another").out == "plugin another: 1 breaker cleared\n"


def test_reset_hands_each_breaker_that_it_closes_to_the_pipelines(conn: sqlite3.Connection, desk: Desk) -> None:
    trip(conn)
    desk.plugin("teller")
    (desk.home / "pipelines").mkdir()
    (desk.home / "pipelines" / "told.yaml").write_text(
        "name: told\non: ductile.breaker.closed\nsteps: [{uses: teller}]\n")
    assert desk.call("reset", "echo").code == 0
    jobs = open_jobs(conn, 10)
    assert [(job.plugin, job.pipeline_name, job.submitted_by, job.core_event) for job in jobs] == [
        ("teller", "told", "pipeline", "ductile.breaker.closed")] * 2
    assert sorted(json.loads(job.payload)["payload"]["command"] for job in jobs) == ["other", "poll"]
    assert conn.execute("SELECT hash FROM pipeline_versions").fetchall() == [(jobs[0].pipeline_hash,)]
    assert desk.call("reset", "echo").code == 0
    assert len(open_jobs(conn, 10)) == 2


@pytest.mark.parametrize("done", [None, ("f1", False), ("f0", True)])
def test_reset_tries_init_again_where_it_has_not_succeeded(conn: sqlite3.Connection, desk: Desk,
                                                           done: tuple[str, bool] | None) -> None:
    desk.loaded(conn, load("echo", needs_init="f1"))
    if done is not None:
        with db.transaction(conn):
            plugin_table.put_init(conn, "echo", fingerprint=done[0], ok=done[1], job_id=job_id(1), now=START)
    found = desk.call("reset", "echo", "--json").json
    (job,) = open_jobs(conn, 10)
    assert (job.command, job.submitted_by, job.max_attempts) == ("init", "init", 1)
    assert found == {"plugin": "echo", "breakers_cleared": 0, "init_job_id": job.id}
    assert desk.call("reset", "echo", "--json").json["init_job_id"] is None


def test_reset_leaves_an_init_alone_that_has_succeeded(conn: sqlite3.Connection, desk: Desk) -> None:
    desk.loaded(conn, load("echo", needs_init="f1"))
    with db.transaction(conn):
        plugin_table.put_init(conn, "echo", fingerprint="f1", ok=True, job_id=job_id(1), now=START)
    assert desk.call("reset", "echo", "--json").json["init_job_id"] is None


def test_reset_of_an_unknown_plugin_is_66(conn: sqlite3.Connection, desk: Desk) -> None:
    trip(conn)
    before = desk.dump()
    assert desk.call("reset", "another") == Said(code=66, out="", err="no plugin 'another' is configured\n")
    assert desk.dump() == before


def test_a_reset_that_cannot_queue_init_leaves_the_breakers_too(conn: sqlite3.Connection, desk: Desk) -> None:
    trip(conn)
    desk.loaded(conn, load("echo", needs_init="f1"))
    conn.execute("CREATE TRIGGER no AFTER INSERT ON job_queue BEGIN SELECT raise(ABORT, 'no more'); END")
    before = desk.dump()
    assert desk.call("reset", "echo").code == 74
    assert desk.dump() == before


def test_reset_lets_the_real_daemon_try_init_again(daemon: RealDaemon) -> None:
    daemon.plugin("picky", '#!/bin/sh\n[ -e "$HOME/good" ] && echo \'{"status": "ok"}\'\n', commands=("poll", "init"))
    daemon.start()
    daemon.until("SELECT ok FROM plugin_inits", [(0,)])
    (daemon.home / "good").touch()
    process = start("reset", "picky", "--json", home=daemon.home)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    daemon.await_job(json.loads(out)["init_job_id"], "succeeded")
    daemon.until("SELECT ok FROM plugin_inits", [(1,)])
    daemon.stop()


def test_jobs_of_the_plugin_are_no_concern_of_a_reset(conn: sqlite3.Connection, desk: Desk) -> None:
    before = put_job(conn, job_id(1))
    assert desk.call("reset", "echo").code == 0
    assert job_table.get(conn, job_id(1)) == before


def test_a_plugin_is_paused_and_resumed(conn: sqlite3.Connection, desk: Desk) -> None:
    said = desk.call("pause", "echo", "--json").json
    assert (said["plugin"], said["paused"]) == ("echo", True)
    assert plugin_table.paused(conn) == {"echo": said["since"]}
    again = desk.call("pause", "echo")
    assert (again.code, again.out) == (0, f"plugin echo was paused already, since {said['since'][:10]}"
                                          f" {said['since'][11:16]} +0000\n")
    assert plugin_table.paused(conn) == {"echo": said["since"]}
    desk.loaded(conn)
    assert desk.call("status", "--json").json["plugins"][0]["held"] == [f"paused since {said['since']}"]
    assert desk.call("resume", "echo") == Said(code=0, out="plugin echo is resumed\n", err="")
    assert desk.call("resume", "echo").out == "plugin echo was not paused\n"
    assert plugin_table.paused(conn) == {}


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_a_plugin_that_is_not_configured_cannot_be_paused(conn: sqlite3.Connection, desk: Desk, command: str) -> None:
    assert desk.call(command, "ecko") == Said(
        code=66, out="", err="no plugin 'ecko' is configured (did you mean 'echo'?)\n")


def test_a_plugin_can_be_paused_while_the_configuration_is_broken(conn: sqlite3.Connection, desk: Desk) -> None:
    desk.loaded(conn)
    (desk.home / "config.yaml").write_text("plugins: [\n")
    said = desk.call("pause", "echo")
    assert (said.code, said.err.startswith("warning: ")) == (0, True)
    assert desk.call("resume", "echo").out == "plugin echo is resumed\n"
    assert desk.call("pause", "ecko").err.endswith("no plugin 'ecko' is configured (did you mean 'echo'?)\n")


def test_a_plugin_that_is_configured_no_longer_is_no_longer_paused(conn: sqlite3.Connection, desk: Desk) -> None:
    desk.call("pause", "echo")
    desk.loaded(conn, load("echo", enabled=False))
    assert list(plugin_table.paused(conn)) == ["echo"]
    desk.loaded(conn, load("other"))
    assert plugin_table.paused(conn) == {}


def test_the_real_daemon_runs_what_waited_when_a_plugin_is_resumed(daemon: RealDaemon) -> None:
    def call(*arguments: str) -> Said:
        process = start(*arguments, home=daemon.home)
        out, err = process.communicate(timeout=20)
        return Said(code=process.returncode, out=out, err=err)

    daemon.install("ok")
    daemon.start()
    assert call("pause", "ok").code == 0
    waits = call("run", "ok", "--wait")
    assert (waits.code, waits.err) == (1, "plugin ok is paused; the job waits until `ductilectl resume ok`\n")
    assert call("resume", "ok").code == 0
    daemon.await_job(waits.out.strip(), "succeeded")
    daemon.stop()
    assert [len(daemon.log(f"plugin {what}", plugin="ok")) for what in ("paused", "resumed")] == [1, 1]
