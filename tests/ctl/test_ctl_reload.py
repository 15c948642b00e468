"""`reload`: what is wrong is said before the daemon hears of it, and its answer is waited for."""

from __future__ import annotations

import io
import os
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ctl.desk import PATIENCE_SECONDS, SAYS_OK, Desk, Said, job_id, load, start
from ctl.terminals import terminal
from ductile import db, runtime_config
from ductile.clock import SystemClock
from ductile.config import load_table
from ductile.ctl.reload import reload
from ductile.errors import DuctileError
from ductile.pidfile import PidLock, pid_file
from ductile.plugin import plugin_table
from ductile.queue.job import Status
from support.clock import START, FakeClock
from support.daemon import RealDaemon, until
from support.ledger import put_job

LOOK_SECONDS = 0.005
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes an ordinary user, which takes root")
DOWN = "ductiled is not running; it reads the configuration when it starts\n"


@pytest.fixture
def conn(desk: Desk) -> Iterator[sqlite3.Connection]:
    desk.plugin("echo")
    with desk.ledger() as conn:
        with db.transaction(conn):
            load_table.add(conn, digest="old", errors=(), changes=("earlier",), now=START)
        yield conn


@contextmanager
def running(desk: Desk, at_hangup: Callable[[], None]) -> Iterator[None]:
    """Have this process stand in for the daemon: it holds the lock and acts on SIGHUP."""
    before = signal.signal(signal.SIGHUP, lambda *_: at_hangup())
    lock = PidLock(pid_file(desk.database))
    lock.write()
    try:
        yield
    finally:
        lock.release()
        signal.signal(signal.SIGHUP, before)


def answers(desk: Desk, *, digest: str | None = None, errors: Sequence[str] = (),
            changes: Sequence[str] = ()) -> Callable[[], None]:
    """What a daemon does that takes what is there, unless told what else to say."""
    found = runtime_config.read(desk.home / "config.yaml", {}, keep_unset=True).runtime.digest

    def act() -> None:
        with closing(db.connect_again(desk.database)) as conn, db.transaction(conn):
            load_table.add(conn, digest=found if digest is None else digest, errors=errors, changes=changes, now=START)

    return act


def test_what_changed_is_shown_line_by_line(conn: sqlite3.Connection, desk: Desk) -> None:
    with running(desk, answers(desk, changes=("plugin echo added", "route a\x1b removed"))):
        assert desk.call("reload") == Said(code=0, out="plugin echo added\nroute a\\x1b removed\n", err="")
        assert desk.call("reload", "--json").json == {
            "loaded_at": "2026-02-08T10:00:00.000Z", "ok": True,
            "changes": ["plugin echo added", "route a\x1b removed"], "errors": [], "unavailable": []}


def test_nothing_changed_is_a_sentence(conn: sqlite3.Connection, desk: Desk) -> None:
    with running(desk, answers(desk)):
        assert desk.call("reload") == Said(code=0, out="nothing changed\n", err="")


def test_a_refusal_is_78_and_shows_why(conn: sqlite3.Connection, desk: Desk) -> None:
    with running(desk, answers(desk, digest="", errors=("port taken\x1b", "no"))):
        assert desk.call("reload") == Said(code=78, out="", err="port taken\\x1b\nno\n")
        said = desk.call("reload", "--json")
        assert (said.code, said.json["ok"], said.json["errors"]) == (78, False, ["port taken\x1b", "no"])


def test_a_configuration_with_problems_does_not_reach_the_daemon(conn: sqlite3.Connection, desk: Desk) -> None:
    desk.configure(plugins={"echo": {"enbled": True}}, what=1)
    heard: list[bool] = []
    with running(desk, lambda: heard.append(True)):
        said = desk.call("reload")
    assert (said.code, said.out, heard) == (78, "", [])
    assert [line.split(": ", 1)[1] for line in said.err.splitlines()] == [
        "plugins.echo.enbled: unknown key (did you mean 'enabled'?)", "what: unknown key"]


def test_a_variable_that_only_the_daemon_has_does_not_matter(conn: sqlite3.Connection, desk: Desk) -> None:
    desk.configure(plugins={"echo": {"config": {"token": "${NOT_SET}"}}})
    with running(desk, answers(desk)):
        assert desk.call("reload").code == 0


@pytest.mark.parametrize(("before", "after", "code", "err"), [
    ({"echo": None}, {"echo": "broken"}, 1, ""),
    ({}, {"echo": None, "new": "missing"}, 1, ""),
    ({"echo": "broken"}, {"echo": "broken as well"}, 0, "warning: plugin echo is still not loaded: broken as well\n"),
    ({"echo": "broken"}, {"echo": None}, 0, ""),
])
def test_it_is_1_where_the_reload_has_made_a_plugin_unavailable(
        conn: sqlite3.Connection, desk: Desk, before: dict, after: dict, code: int, err: str) -> None:
    desk.loaded(conn, *(load(name, reason=reason) for name, reason in before.items()))
    answer = answers(desk, changes=("what changed",))

    def act() -> None:
        with closing(db.connect_again(desk.database)) as other, db.transaction(other):
            plugin_table.replace_loads(other, [load(name, reason=reason) for name, reason in after.items()], START)
        answer()

    with running(desk, act):
        assert desk.call("reload") == Said(code=code, out="what changed\n", err=err)


def asked(conn: sqlite3.Connection, desk: Desk, answer: bool) -> tuple[str, int | DuctileError, str]:
    """Reload on a terminal: return what was asked, how it ended, and what was shown."""
    session = desk.session(stdin=OnTerminal(b"y\n" if answer else b"\n"), err=Watched(), clock=SystemClock())
    with running(desk, answers(desk)):
        try:
            ended = reload(session, ask=True)
        except DuctileError as error:
            ended = error
    return session.err.getvalue(), ended, session.out.getvalue()


class OnTerminal(io.BytesIO):
    """Standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


class Watched(io.StringIO):
    """A terminal, and what happens once something is shown on it."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._act = act

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not self.getvalue():
            self._act()
        return super().write(text)


def test_on_a_terminal_it_asks_before_it_ends_jobs(conn: sqlite3.Connection, desk: Desk) -> None:
    for number, plugin in enumerate(("gone", "off", "gone", "echo")):
        put_job(conn, job_id(number), plugin=plugin)
    put_job(conn, job_id(9), Status.RUNNING, plugin="gone")
    desk.configure(plugins={"echo": {}, "off": {"uses": "echo", "enabled": False}})
    question = ("This ends 2 queued jobs of plugin gone, which is not configured, 1 queued job of plugin off,"
                " which is disabled. Reload? [y/N] ")
    questions, error, out = asked(conn, desk, False)
    assert (questions, error.lines, error.exit_code, out) == (
        question, ("not reloaded; nothing was changed",), 1, "")
    assert asked(conn, desk, True) == (question, 0, "nothing changed\n")


def test_it_does_not_ask_where_no_job_ends(conn: sqlite3.Connection, desk: Desk) -> None:
    put_job(conn, job_id(1))
    assert asked(conn, desk, False) == ("", 0, "nothing changed\n")


@pytest.mark.parametrize(("keys", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("\x04", 1)])
def test_a_question_is_answered_on_the_terminal(daemon: RealDaemon, keys: str, code: int) -> None:
    daemon.plugin("echo", SAYS_OK)
    daemon.plugin("old", SAYS_OK)
    daemon.start()
    # Not loaded any more, or the job would not wait.
    daemon.directory("old").rename(daemon.home / "hidden")
    # 0 where the first heartbeat has found before that it is gone.
    assert reloaded(daemon)[0] in (0, 1)
    job = daemon.submit("old")
    del daemon.config["plugins"]["old"]
    daemon.configure()
    with terminal(daemon.home, "reload", shows_errors=True) as pty:
        pty.await_text("This ends 1 queued job of plugin old, which is not configured. Reload? [y/N] ")
        pty.type(keys)
        assert pty.ends() == (code, "")
    daemon.await_job(job, "dead" if code == 0 else "queued")
    daemon.stop()


def test_elsewhere_it_goes_through_and_says_how_many(daemon: RealDaemon) -> None:
    daemon.plugin("echo", SAYS_OK)
    daemon.plugin("old", SAYS_OK, schedule={"every": "1w"})
    daemon.start()
    daemon.until("SELECT status FROM job_queue", [("succeeded",)])
    daemon.directory("old").rename(daemon.home / "hidden")
    gone = f"no plugin named 'old' was found in {daemon.home}/plugins"
    assert reloaded(daemon) == (1, f"plugin old changed: not loaded, its jobs wait: {gone}\n", "")
    assert reloaded(daemon) == (0, "nothing changed\n", f"warning: plugin old is still not loaded: {gone}\n")
    jobs = [daemon.submit("old") for _ in range(3)]
    assert {daemon.job(job)[0] for job in jobs} == {"queued"}
    daemon.configure(plugins={"old": {"enabled": False, "schedule": {"every": "2w"}}})
    assert reloaded(daemon) == (
        0, "plugin old changed: enabled true -> false: 3 queued jobs failed\n"
        "plugin old changed: schedule.every 1w -> 2w\n", "")
    for job in jobs:
        daemon.await_job(job, "dead")
    daemon.stop()


def test_a_daemon_that_reads_other_files_is_told_of(conn: sqlite3.Connection, desk: Desk) -> None:
    with running(desk, answers(desk, digest="other", changes=("plugin x added",))):
        assert desk.call("reload") == Said(code=1, out="", err=(
            f"ductiled has loaded other files than {desk.home}/config.yaml and those that it names: they have just"
            " changed, or it runs on another configuration\n"))


def test_without_a_daemon_it_is_69(conn: sqlite3.Connection, desk: Desk) -> None:
    assert desk.call("reload") == Said(code=69, out="", err=DOWN)


class Hurrying(FakeClock):
    """A clock on which ten seconds pass between two looks."""

    def monotonic(self) -> float:
        self.move(10)
        return super().monotonic()


def test_a_daemon_that_does_not_answer_is_waited_for_only_so_long(conn: sqlite3.Connection, desk: Desk) -> None:
    session = desk.session(clock=Hurrying())
    with running(desk, lambda: None), pytest.raises(DuctileError) as caught:
        reload(session, ask=False)
    assert (caught.value.exit_code, session.out.getvalue(), session.err.getvalue()) == (1, "", "")
    assert caught.value.lines == (
        "ductiled has not answered within 30 s; `ductilectl status` shows what it is doing",)


def test_on_a_terminal_a_wait_shows_what_it_is_for(conn: sqlite3.Connection, desk: Desk) -> None:
    out, err = io.StringIO(), Watched(answers(desk))
    with running(desk, lambda: None):
        # Real time: without a line it is up after 30 s.
        code = reload(desk.session(clock=SystemClock(), out=out, err=err), ask=False)
    assert (code, out.getvalue()) == (0, "nothing changed\n")
    assert err.getvalue() == f"\rwaiting for ductiled, PID {os.getpid()} …\r\x1b[K"


@pytest.fixture
def shared(conn: sqlite3.Connection, desk: Desk) -> Desk:
    """A desk whose database everybody may open."""
    for directory in (desk.database.parent, desk.home, *desk.home.parents[:-2]):
        directory.chmod(directory.stat().st_mode | 0o077 if directory == desk.database.parent
                        else directory.stat().st_mode | 0o055)
    for file in desk.database.parent.iterdir():
        file.chmod(0o666)
    return desk


@as_root
def test_a_user_who_may_not_signal_the_daemon_is_told_whose_it_is(shared: Desk) -> None:
    heard: list[bool] = []
    with running(shared, lambda: heard.append(True)):
        pid_file(shared.database).chmod(0o644)
        assert shared.process("reload", user=NOBODY) == Said(code=77, out="", err=(
            f"may not signal ductiled, PID {os.getpid()}; run this as the user that runs it\n"))
    assert heard == []


@as_root
def test_a_user_who_may_not_read_the_pid_file_is_told_what_to_do(shared: Desk) -> None:
    with running(shared, lambda: None):
        assert shared.process("reload", user=NOBODY) == Said(code=77, out="", err=(
            f"cannot read the PID file {pid_file(shared.database)}: Permission denied; run this as the user that runs"
            " ductiled\n"))


def reloaded(daemon: RealDaemon) -> tuple[int, str, str]:
    process = start("reload", home=daemon.home)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, out, err


def has_pending(pid: int, number: int) -> bool:
    """Say whether a process that stands still has been sent a signal."""
    (mask,) = re.findall(r"^ShdPnd:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(mask, 16) >> (number - 1) & 1 == 1


def test_a_daemon_that_ends_instead_of_answering_is_69(daemon: RealDaemon) -> None:
    daemon.start()
    daemon.send(signal.SIGSTOP)
    os.waitid(os.P_PID, daemon.pid, os.WSTOPPED | os.WNOWAIT)
    process = start("reload", home=daemon.home)
    try:
        until(lambda: has_pending(daemon.pid, signal.SIGHUP), True,
              pause=lambda: not daemon.ended_within(LOOK_SECONDS), explain=daemon.story)
        daemon.kill()
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, out, err) == (
        69, "", "ductiled ended before it had loaded the configuration; its log says why\n")


def test_the_real_daemon_answers(daemon: RealDaemon) -> None:
    daemon.plugin("echo", SAYS_OK)
    daemon.start()
    assert reloaded(daemon) == (0, "nothing changed\n", "")
    daemon.plugin("other", SAYS_OK)
    assert reloaded(daemon) == (0, "plugin other added\n", "")
    daemon.configure(plugins={"other": {"config": {"token": "${WITHHELD}"}}})
    code, out, err = reloaded(daemon)
    assert (code, out, err.split(": ", 1)[1]) == (
        78, "", "plugins.other.config.token: the variable WITHHELD is not set\n")
    daemon.stop()
