"""The operations in which faults are injected: each brings a site to its beginning, arms the shim, and goes on."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from injection.case import Case
from injection.oracle import LOST, Finding

_PACKAGE = Path(__file__).resolve().parents[2] / "ductile"
_FILES = "files-a"
_TABLES = "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"


def submit(case: Case) -> None:
    """Two signed webhooks to a daemon that is busy with another job."""
    case.start(with_shim=True)
    case.emit("blocker", until_begun=True)
    case.arm()
    case.post("a")
    case.post("b")


def emit(case: Case) -> None:
    """`ductilectl emit` beside a daemon that is busy with another job."""
    case.start()
    case.emit("blocker", until_begun=True)
    case.arm()
    case.emit("a", with_shim=True)


def claim(case: Case) -> None:
    """An idle daemon takes a job: from its submission until its plugin has begun."""
    case.start(with_shim=True)
    case.arm()
    case.emit("a")
    case.go_on(lambda: case.begun("a") > 0, "the plugin to begin")


def finish(case: Case) -> None:
    """A plugin ends, and the next step of its pipeline is queued and begun."""
    case.start(with_shim=True)
    case.emit("a", until_begun=True)
    case.arm()
    case.site.let_one_pass()
    case.go_on(lambda: case.has_succeeded("a"), "the job to succeed")


def seal(case: Case) -> None:
    """The same with files in the workspace, which are synced, sealed and digested, and cloned for the next step."""
    case.start(with_shim=True)
    case.emit(_FILES, until_begun=True)
    case.arm()
    case.site.let_one_pass()
    case.go_on(lambda: case.has_succeeded(_FILES), "the job to succeed")


def clone(case: Case) -> None:
    """The second step of a pipeline is replayed: it begins with a clone of the first one's files."""
    case.start(with_shim=True)
    case.emit(_FILES, until_begun=True)
    case.site.let_one_pass()
    case.site.let_one_pass()
    case.wait(lambda: case.job_of(_FILES, "second", "succeeded") is not None, "the pipeline to end")
    before = case.begun(_FILES)
    case.arm()
    case.operate("replay", case.job_of(_FILES, "second", "succeeded"))
    case.go_on(lambda: case.begun(_FILES) > before, "the replayed job to begin")


def recover(case: Case) -> None:
    """A start after kill -9, with a job that ran, its plugin alive, and one that waited."""
    case.start()
    case.emit(_FILES, until_begun=True)
    case.emit("b")
    case.daemon.kill()
    case.start(with_shim=True, armed=True)
    case.go_on(lambda: case.begun(_FILES) > 1, "the interrupted job to begin again")


def migrate(case: Case) -> None:
    """A start on a database of version 2, with a job that has succeeded and one that waits."""
    case.run_to_the_end("a")
    case.emit("b")
    _make_older(case.site.database)
    case.site.close_gate()
    case.start(with_shim=True, armed=True)
    case.go_on(lambda: case.begun("b") > 0, "the waiting job to begin")


def stop(case: Case) -> None:
    """SIGTERM while one job runs, which outlasts its grace, and another waits."""
    case.start(with_shim=True)
    case.emit("a", until_begun=True)
    case.emit("b")
    case.arm()
    case.daemon.send(signal.SIGTERM)
    case.go_on(lambda: case.daemon.exit_code is not None, "ductiled to stop")


def backup(case: Case) -> None:
    """`ductilectl backup` beside a daemon that is busy with another job."""
    case.run_to_the_end("a")
    case.start()
    case.emit("b", until_begun=True)
    copy = case.site.home / "copies" / "copy.db"
    copy.parent.mkdir()
    case.arm()
    done = case.operate("backup", copy, with_shim=True)
    case.disarm()
    if done.returncode == 0 or copy.exists():
        case.findings += _of_copy(copy, case.told.jobs)


def restore(case: Case) -> None:
    """`ductilectl restore` of a backup with a job that has succeeded and one that waits; it replaces a later one."""
    copy = case.site.home / "copies" / "copy.db"
    copy.parent.mkdir()
    case.run_to_the_end("a")
    case.emit("b")
    case.operate("backup", copy)
    case.emit("c")
    later = case.told.jobs["c"]
    case.arm()
    done = case.operate("restore", copy, with_shim=True)
    case.disarm()
    if done.returncode != 0 and not case.starts():
        # As the line says with which ductiled refuses to start.
        case.operate("restore", copy)
    if not _has(case.site.database, later):
        case.told.jobs.pop("c")
        kept = case.site.database.parent.glob("state.db.before-*")
        if not any(_has(path, later) for path in kept if not path.name.endswith(("-wal", "-shm"))):
            text = f"c: job {later} is neither in the database nor in what a restore has kept"
            case.findings.append(Finding(kind=LOST, text=text))


def _of_copy(copy: Path, told: dict[str, str]) -> list[Finding]:
    """Return what is missing in a copy that bears the name of a whole one."""
    try:
        with closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro&immutable=1", uri=True)) as conn:
            (check,), *_ = conn.execute("PRAGMA integrity_check")
            ids = {row[0] for row in conn.execute("SELECT id FROM job_queue")}
    except sqlite3.Error as error:
        return [Finding(kind=LOST, text=f"a backup of {copy.stat().st_size if copy.exists() else 'no'} bytes: {error}")]
    missing = [token for token, job_id in told.items() if job_id not in ids]
    return [Finding(kind=LOST, text=f"a backup without {token}") for token in missing] + (
        [] if check == "ok" else [Finding(kind=LOST, text=f"a backup that is damaged: {check}")])


def _has(database: Path, job_id: str) -> bool:
    try:
        with closing(sqlite3.connect(database)) as conn:
            return conn.execute("SELECT 1 FROM job_queue WHERE id = ?", (job_id,)).fetchone() is not None
    except sqlite3.Error:
        return False


def _make_older(database: Path) -> None:
    """Put a database of version 2 with the same rows in place of the newest one."""
    older = database.with_name("older.db")
    with closing(sqlite3.connect(older, isolation_level=None)) as conn:
        conn.execute("PRAGMA auto_vacuum = INCREMENTAL")
        conn.execute("PRAGMA journal_mode = WAL")
        conn.executescript((_PACKAGE / "schema.sql").read_text(encoding="utf-8"))
        conn.executescript((_PACKAGE / "migrations" / "0002.sql").read_text(encoding="utf-8"))
        conn.execute("ATTACH ? AS newest", (str(database),))
        conn.execute("BEGIN")
        for (table,) in conn.execute(_TABLES).fetchall():
            columns = ", ".join(row[1] for row in conn.execute(f"PRAGMA main.table_info({table})"))
            conn.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM newest.{table}")
        conn.execute("COMMIT")
        application = conn.execute("PRAGMA newest.application_id").fetchone()[0]
        conn.execute("DETACH newest")
        conn.execute(f"PRAGMA application_id = {application}")
        conn.execute("PRAGMA user_version = 2")
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    older.chmod(0o600)
    older.replace(database)


OPERATIONS: dict[str, Callable[[Case], None]] = {
    operation.__name__: operation
    for operation in (submit, emit, claim, finish, seal, clone, recover, migrate, stop, backup, restore)}
