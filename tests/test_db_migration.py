"""A database of version 1 becomes one of the newest version, with every row, whenever that is interrupted."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import sys
import traceback
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from ductile import db, schema
from ductile.errors import EXIT_IO, EXIT_UNAVAILABLE, DuctileError
from support import failing
from support.daemon import RealDaemon

T0 = "2026-02-08T10:00:00.000Z"
# A row or more of every table of version 1, each value told apart from its neighbours.
ROWS = f"""
INSERT INTO event_context VALUES ('c1', NULL, NULL, NULL, 1, '{{"a":1}}', '{T0}');
INSERT INTO event_context VALUES ('c2', 'c1', 'p', 's', 2, '{{"a":2}}', '{T0}');
INSERT INTO job_queue (id, plugin, command, payload, status, attempt, max_attempts, submitted_by, dedupe_key,
  created_at, started_at, completed_at, last_error, root_job_id, source_event_id, event_context_id) VALUES
  ('j1', 'echo', 'poll', '{{"payload":{{}}}}', 'succeeded', 2, 4, 'webhook', 'k', '{T0}', '{T0}', '{T0}', 'é', 'j1',
   'e1', 'c1');
INSERT INTO job_queue (seq, id, plugin, command, status, attempt, max_attempts, submitted_by, created_at, parent_job_id,
  root_job_id, event_context_id, pipeline_name, pipeline_hash, step_id, replay_of) VALUES
  (7, 'j2', 'echo', 'poll', 'queued', 1, 4, 'pipeline', '{T0}', 'j1', 'j1', 'c2', 'p', 'h', 's', 'j0');
INSERT INTO job_queue (id, plugin, command, status, attempt, max_attempts, submitted_by, created_at, completed_at,
  root_job_id)
  SELECT 'status-' || value, 'echo', 'poll', value, 1, 4, 'cli', '{T0}', iif(value = 'dead', '{T0}', NULL), value
  FROM json_each('["queued","dead"]');
INSERT INTO job_log VALUES (3, 'l1', 'j1', 2, 'echo', 'poll', 'succeeded', 'webhook', '{T0}', '{T0}', '{T0}', 0, 'e',
  'err', '{{"status":"ok"}}', 'printed', NULL, 'e1');
INSERT INTO plugin_state VALUES ('echo', '{{"token":"t"}}', '{T0}');
INSERT INTO schedule_entries VALUES ('echo', 'main', '{T0}', '{T0}', '{T0}', 'j1', 'anchor', 'rule', 'held');
INSERT INTO plugin_inits VALUES ('echo', 'f', 1, 'j1', '{T0}');
INSERT INTO plugin_loads VALUES ('echo', '1', 1, 'f', 'reason', '{T0}');
INSERT INTO circuit_breakers VALUES ('echo', 'poll', 'open', 3, '{T0}', '{T0}');
INSERT INTO pipeline_versions VALUES ('h', 'p', '{{}}', '{T0}');
INSERT INTO artifacts VALUES ('j1', 'a', 1, 2, 'd');
INSERT INTO artifacts VALUES ('j1', x'ff', 1, 2, 'd');
INSERT INTO config_loads VALUES (9, '{T0}', 'h', 1, 'errors', 'changes', 'listen');
"""


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as the program of version 1 has left it."""
    path = tmp_path_factory.mktemp("first") / "state.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA auto_vacuum = INCREMENTAL")
        conn.execute("PRAGMA journal_mode = WAL")
        conn.executescript((Path(db.__file__).parent / "schema.sql").read_text())
        conn.executescript(f"PRAGMA foreign_keys = ON; PRAGMA application_id = {db.APPLICATION_ID};"
                           f"PRAGMA user_version = 1; {ROWS}")
    path.chmod(0o600)
    return path


@pytest.fixture
def path(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(first, tmp_path))


def columns(conn: sqlite3.Connection) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for table, column in conn.execute(
            "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' ORDER BY 1"
    ):
        found.setdefault(table, []).append(column)
    return found


def content(conn: sqlite3.Connection, of: dict[str, list[str]]) -> dict[str, list[tuple]]:
    """Every row of every table, by these columns."""
    return {table: conn.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY 1, 2").fetchall()
            for table, names in of.items()}


def looked_at(path: Path) -> tuple[int, dict[str, list[str]], dict[str, list[tuple]]]:
    """The version of a database, its columns and its rows."""
    with closing(sqlite3.connect(path)) as conn:
        found = columns(conn)
        return conn.execute("PRAGMA user_version").fetchone()[0], found, content(conn, found)


def assert_whole(path: Path, first: Path) -> int:
    """Fail unless a database is of one version or the other, with all its rows. Return the version."""
    version, found, _rows = looked_at(path)
    _, before, kept = looked_at(first)
    with closing(sqlite3.connect(path)) as conn:
        assert content(conn, before) == kept
        assert db.full_check(conn) == []
    assert version in range(1, schema.VERSION + 1)
    assert (found == before) == (version == 1)
    return version


def test_the_model_has_rows_in_every_table(first: Path) -> None:
    version, found, rows = looked_at(first)
    assert version == 1
    assert [table for table in found if not rows[table]] == []
    assert "core_event" not in found["job_queue"]


def test_every_row_is_there_after_the_migration_and_the_new_columns_are_empty(first: Path, path: Path) -> None:
    db.open_for_daemon(path).close()
    assert assert_whole(path, first) == schema.VERSION
    with closing(sqlite3.connect(path)) as conn:
        added = conn.execute("SELECT DISTINCT core_event, schedule_id, cancel_requested_at FROM job_queue").fetchall()
    assert added == [(None, None, None)]


def test_a_migrated_database_has_the_schema_of_a_fresh_one(path: Path, tmp_path: Path) -> None:
    db.open_for_daemon(path).close()
    db.open_for_daemon(tmp_path / "fresh.db").close()
    tables = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
    with closing(sqlite3.connect(path)) as migrated, closing(sqlite3.connect(tmp_path / "fresh.db")) as fresh:
        assert migrated.execute(tables).fetchall() == fresh.execute(tables).fetchall()
        for pragma in ("user_version", "application_id", "auto_vacuum", "journal_mode"):
            assert migrated.execute(f"PRAGMA {pragma}").fetchone() == fresh.execute(f"PRAGMA {pragma}").fetchone()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR])
def test_a_migration_that_fails_at_any_statement_can_be_done_again(first: Path, path: Path, code: int) -> None:
    versions = [1]
    for number in itertools.count(1):
        with closing(failing.connect(path)) as conn:
            conn.fail_from(number, code)
            with suppress(db.NotWritten, db.FateUnknown):
                db.migrate(conn, versions[-1])
            failed = conn.failed
            conn.mend()
        versions.append(assert_whole(path, first))
        if not failed:
            break
    assert len(versions) > 5
    # Each step is a transaction of its own.
    assert versions == sorted(versions)
    assert set(versions) == set(range(1, schema.VERSION + 1))


def killed_at_statement(number: int, path: Path) -> bool:
    """Open the database in a child that kills itself before its statement `number`. Return whether it was killed."""
    child = os.fork()
    if child == 0:
        left = number

        def profile(_: object, event: str, called: object) -> None:
            nonlocal left
            if event == "c_call" and called.__name__ == "execute":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(profile)
        try:
            db.open_for_daemon(path).close()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), f"the child ended with {code}"
    return code != 0


def test_a_start_that_is_killed_at_any_statement_leaves_one_version_or_the_other(first: Path, tmp_path: Path) -> None:
    versions = []
    # A few in each transaction: that all statements of one happen or none is shown by the failing ones above.
    for number in itertools.count(1, 4):
        directory = tmp_path / str(number)
        directory.mkdir()
        path = Path(shutil.copy(first, directory))
        is_killed = killed_at_statement(number, path)
        versions.append(assert_whole(path, first))
        db.open_for_daemon(path).close()
        assert assert_whole(path, first) == schema.VERSION
        if not is_killed:
            break
    assert set(versions) == set(range(1, schema.VERSION + 1))
    assert versions == sorted(versions)
    assert len(versions) > 10


@pytest.fixture
def old(daemon: RealDaemon, first: Path) -> Iterator[RealDaemon]:
    """A daemon whose database is of version 1."""
    daemon.data.mkdir(mode=0o700)
    shutil.copy(first, daemon.database)
    yield daemon


def test_a_daemon_starts_on_it_and_goes_on_where_the_other_has_stopped(old: RealDaemon) -> None:
    old.plugin("echo", "#!/bin/sh\ncat >/dev/null\necho '{\"status\": \"ok\"}'\n")
    old.start()
    old.until("SELECT id, status, core_event FROM job_queue WHERE id IN ('j1', 'status-queued') ORDER BY id",
              [("j1", "succeeded", None), ("status-queued", "succeeded", None)])
    assert old.rows("SELECT state FROM plugin_state WHERE plugin_name = 'echo'") == [('{"token":"t"}',)]
    assert old.rows("PRAGMA user_version") == [(schema.VERSION,)]
    old.stop()


def test_the_operator_is_told_to_start_the_daemon_first(first: Path, path: Path) -> None:
    with pytest.raises(DuctileError) as caught:
        db.open_for_operator(path, failed=EXIT_IO)
    assert (caught.value.exit_code, str(caught.value)) == (
        EXIT_UNAVAILABLE,
        f"the database {path} has version 1, older than this program's {schema.VERSION}; start ductiled of this "
                          f"version to migrate it")
    assert assert_whole(path, first) == 1
