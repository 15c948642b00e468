"""`run`: one job by hand, refused before anything is stored, and waited for with the real daemon."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ctl.desk import Desk, Said, job_id, load, start
from ductile import db
from ductile.pidfile import PidLock, pid_file
from ductile.plugin.plugin_table import PluginLoad
from ductile.queue import job_table
from ductile.queue.job import Job
from support.daemon import RealDaemon
from support.gate import Gate
from support.ledger import open_jobs, put_job

DOWN = "ductiled is not running; the job waits until it does\n"
PATIENCE_SECONDS = 20.0


@pytest.fixture
def conn(desk: Desk) -> Iterator[sqlite3.Connection]:
    desk.plugin("echo", commands=("poll", "handle", "health", "init"))
    with desk.ledger() as conn:
        desk.loaded(conn)
        yield conn


def only_job(conn: sqlite3.Connection) -> Job:
    (job,) = open_jobs(conn, 10)
    return job


def test_a_job_is_queued_and_its_whole_id_printed(conn: sqlite3.Connection, desk: Desk) -> None:
    said = desk.call("run", "echo")
    job = only_job(conn)
    assert said == Said(code=0, out=f"{job.id}\n", err=DOWN)
    assert (job.plugin, job.command, job.status, job.attempt, job.max_attempts) == ("echo", "poll", "queued", 1, 4)
    assert (job.submitted_by, job.payload, job.dedupe_key, job.root_job_id) == ("cli", None, None, job.id)


@pytest.mark.parametrize("command", ["handle", "health", "init"])
def test_every_command_of_the_manifest_can_be_run(conn: sqlite3.Connection, desk: Desk, command: str) -> None:
    found = desk.call("run", "echo", command, "--json").json
    job = only_job(conn)
    assert found == {"job_id": job.id, "plugin": "echo", "command": command, "status": "queued"}
    assert (job.command, job.max_attempts) == (command, 1 if command == "init" else 4)


@pytest.mark.parametrize(("options", "event_type", "payload"), [
    (["--payload", '{"a": [1.5, "é"]}'], "manual", {"a": [1.5, "é"]}),
    (["--payload", "null"], "manual", None),
    (["--payload", "[]", "--type", "made.up"], "made.up", []),
    (["--type", "ductile"], "ductile", {}),
])
def test_a_payload_or_a_type_makes_an_event(conn: sqlite3.Connection, desk: Desk, options: list[str], event_type: str,
                                            payload: object) -> None:
    assert desk.call("run", "echo", "handle", *options).code == 0
    job = only_job(conn)
    event = json.loads(job.payload)
    assert (event["type"], event["payload"], event["source"]) == (event_type, payload, "cli")
    assert set(event) == {"type", "payload", "source", "timestamp", "event_id"}
    assert event["event_id"] == job.source_event_id


@pytest.mark.parametrize(("arguments", "code", "expected"), [
    (["ech"], 66, "no plugin 'ech' is configured (did you mean 'echo'?)\n"),
    (["off"], 66, "plugin off is disabled; set plugins.off.enabled to true\n"),
    (["echo", "pol"], 66, "plugin echo has no command 'pol' (did you mean 'poll'?)\n"),
    (["echo", "x"], 66, "plugin echo has no command 'x' (it has poll, handle, health, init)\n"),
    (["echo", "--payload", "{"], 65,
     "--payload is not strict JSON: line 1, column 2: expected a key in double quotes\n"),
    (["echo", "--payload", "NaN"], 65, "--payload is not strict JSON: NaN is not allowed\n"),
    (["echo", "--type", "ductile.job.x"], 64,
     "--type 'ductile.job.x': types that start with 'ductile.job.' are reserved\n"),
    (["echo", "--wait"], 69, "ductiled is not running, and --wait needs it; nothing was queued\n"),
])
def test_what_cannot_be_run_is_refused_and_nothing_stored(conn: sqlite3.Connection, desk: Desk, arguments: list[str],
                                                          code: int, expected: str) -> None:
    desk.configure(plugins={**desk.config["plugins"], "off": {"uses": "echo", "enabled": False}})
    before = desk.dump()
    assert desk.call("run", *arguments) == Said(code=code, out="", err=expected)
    assert desk.dump() == before


def test_the_job_of_a_plugin_that_is_not_loaded_waits(conn: sqlite3.Connection, desk: Desk) -> None:
    desk.configure(plugins={"gone": {}})
    desk.loaded(conn, load("gone", version=None, reason="not there"))
    said = desk.call("run", "gone", "anything")
    assert said == Said(code=0, out=f"{only_job(conn).id}\n", err=(
        "plugin gone is not loaded; the job waits until it is: no plugin named 'gone' was found in"
        f" {desk.home}/plugins\n" + DOWN))


def test_a_daemon_that_does_not_know_the_plugin_yet_is_told_of(conn: sqlite3.Connection, desk: Desk) -> None:
    desk.loaded(conn, load("other"))
    assert desk.call("run", "echo").err == (
        "ductiled has not loaded a configuration with plugin echo yet; the job waits until it does\n" + DOWN)


@pytest.fixture
def lock(conn: sqlite3.Connection, desk: Desk) -> Iterator[None]:
    """This process stands in for a daemon that runs: it holds the lock and takes the signal to look at the queue."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    held = PidLock(pid_file(desk.database))
    held.write()
    yield
    held.release()
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(("loaded", "command", "code", "err"), [
    (("poll",), "handle", 78,
     "ductiled has not loaded the command 'handle' of plugin echo yet; run `ductilectl reload` first\n"),
    (("poll",), "x", 66, "plugin echo has no command 'x' (it has poll)\n"),
    (("poll", "gone"), "gone", 0, ""),
    (None, "handle", 0, ""),
])
def test_a_running_daemon_decides_which_commands_there_are(
        conn: sqlite3.Connection, desk: Desk, lock: None, loaded: tuple[str, ...] | None, command: str, code: int,
        err: str) -> None:
    desk.loaded(conn, load("echo", commands=loaded))
    said = desk.call("run", "echo", command)
    assert (said.code, said.err) == (code, err)
    assert len(open_jobs(conn, 10)) == (code == 0)


@pytest.mark.parametrize(("loads", "why"), [
    ((load("other"),), "ductiled has not loaded a configuration with plugin echo yet; the job waits until it does\n"),
    ((load("echo", reason="not there"),),
     "ductiled has not loaded plugin echo yet; the job waits until `ductilectl reload`\n"),
])
def test_a_job_that_will_not_run_yet_is_queued_and_not_waited_for(
        conn: sqlite3.Connection, desk: Desk, lock: None, loads: tuple[PluginLoad, ...], why: str) -> None:
    desk.loaded(conn, *loads)
    said = desk.call("run", "echo", "--wait")
    assert said == Said(code=1, out=f"{only_job(conn).id}\n", err=why)


def test_without_a_daemon_the_files_decide_for_it_reads_them_at_its_start(conn: sqlite3.Connection,
                                                                          desk: Desk) -> None:
    desk.loaded(conn, load("echo", commands=("gone",)))
    assert desk.call("run", "echo", "gone").code == 66
    assert desk.call("run", "echo", "handle").code == 0


def test_a_command_can_be_run_as_soon_as_it_is_loaded(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.start()
    manifest = daemon.directory("ok") / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("[poll,", "[poll, extra,"))
    assert said_by(start("run", "ok", "extra", home=daemon.home)) == (
        78, "", "ductiled has not loaded the command 'extra' of plugin ok yet; run `ductilectl reload` first\n")
    assert said_by(start("reload", home=daemon.home))[0] == 0
    with waiting(daemon, "ok", "extra") as process:
        assert said_by(process)[0] == 0
    daemon.stop()


def test_a_job_whose_plugin_has_lost_its_command_fails_without_another_attempt(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.start()
    job = daemon.submit("ok", "gone")
    daemon.await_job(job, "dead")
    daemon.stop()
    assert daemon.job(job) == ("dead", 1, "plugin ok 0.1.0 has no command 'gone'")
    assert daemon.attempts(job) == [(1, "failed")]


def test_a_wrong_configuration_is_78_and_names_every_problem(conn: sqlite3.Connection, desk: Desk) -> None:
    desk.configure(plugins={"echo": {"enbled": True}}, what=1)
    said = desk.call("run", "echo")
    assert (said.code, said.out) == (78, "")
    assert [line.split(": ", 1)[1] for line in said.err.splitlines()] == [
        "plugins.echo.enbled: unknown key (did you mean 'enabled'?)", "what: unknown key"]
    assert open_jobs(conn, 1) == []


def test_an_unset_variable_does_not_matter(conn: sqlite3.Connection, desk: Desk) -> None:
    desk.configure(plugins={"echo": {"config": {"token": "${NOT_SET}"}}})
    assert desk.call("run", "echo").code == 0


def test_a_write_that_fails_stores_nothing(conn: sqlite3.Connection, desk: Desk) -> None:
    conn.execute("CREATE TRIGGER no AFTER INSERT ON job_queue BEGIN SELECT raise(ABORT, 'no more'); END")
    before = desk.dump()
    assert desk.call("run", "echo") == Said(code=74, out="", err=(
        "the database cannot be used now: no more (SQLITE_CONSTRAINT_TRIGGER); nothing was changed\n"))
    assert desk.dump() == before


@contextmanager
def waiting(daemon: RealDaemon, *arguments: str) -> Iterator:
    """`run --wait` as a process, ended in the end."""
    process = start("run", *arguments, "--wait", home=daemon.home)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said_by(process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, out, err


def test_waiting_ends_with_the_job_and_says_how(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.install("fails", retry={"max_attempts": 1})
    daemon.install("fails", called="again", retry={"backoff_base": "1h"})
    daemon.start()
    with waiting(daemon, "ok") as well, waiting(daemon, "fails", "--json") as badly, waiting(daemon, "again") as later:
        code, out, err = said_by(well)
        lines = out.splitlines()
        assert (code, len(lines), lines[-1], err) == (0, 3, "succeeded", "")
        assert daemon.job(lines[0]) == ("succeeded", 1, None)
        code, out, err = said_by(badly)
        found = json.loads(out)
        assert (code, found["status"], found["last_error"], err) == (1, "dead", "out of luck", "")
        assert [(each["attempt"], each["status"]) for each in found["attempts"]] == [(1, "failed")]
        assert next(line for line in later.stdout if line.startswith("next: ")).startswith("next: attempt 2 of 4 at 20")
    daemon.stop()


def test_waiting_ends_with_the_daemon(daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("waits", config=gate.config)
    daemon.start()
    with waiting(daemon, "waits") as process:
        job = process.stdout.readline().strip()
        gate.arrived()
        daemon.kill()
        code, out, err = said_by(process)
    assert (code, out) == (69, "")
    assert err == f"ductiled ended while job {job} was running; it resumes at the next start\n"


def test_a_job_by_hand_starts_at_once_and_a_dead_one_again(daemon: RealDaemon) -> None:
    daemon.install("fails", retry={"max_attempts": 1})
    daemon.start()
    desk = start("run", "fails", home=daemon.home)
    code, out, err = said_by(desk)
    assert (code, err) == (0, "")
    job = out.strip()
    daemon.await_job(job, "dead")
    code, out, err = said_by(start("retry", job[:8], home=daemon.home))
    assert (code, out, err) == (0, f"job {job} is queued again, attempt 2 of 2\n", "")
    daemon.until("SELECT attempt, status FROM job_queue WHERE id = ?", [(2, "dead")], job)
    assert daemon.attempts(job) == [(1, "failed"), (2, "failed")]
    daemon.stop()


def test_the_jobs_of_others_are_left_alone(conn: sqlite3.Connection, desk: Desk) -> None:
    put_job(conn, job_id(1))
    with db.database_errors(conn):
        before = job_table.get(conn, job_id(1))
    assert desk.call("run", "echo").code == 0
    assert job_table.get(conn, job_id(1)) == before
