"""The archive plugin: each event once and whole, whatever is killed, torn, full or held by another."""

from __future__ import annotations

import csv
import errno
import fcntl
import json
import os
import resource
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from support.notified import failure
from support.plugin_runs import TIMESTAMP, Plugin, logged, readme_config, told

HERE = Path(__file__).resolve().parent


class Store:
    """A directory, and the plugin that writes into it."""

    def __init__(self, home: Path) -> None:
        self.directory, self.workspace = home / "archive", home / "ws"
        self.directory.mkdir()
        self.workspace.mkdir()

    def plugin(self, **config: object) -> Plugin:
        return Plugin(HERE, self.workspace, {"directory": str(self.directory), "timezone": "UTC", **config})

    def names(self) -> list[str]:
        found = (path.relative_to(self.directory) for path in self.directory.rglob("*") if path.is_file())
        return sorted(str(path) for path in found if not path.name.endswith(".lock"))

    def lines(self, name: str = "events-2026-02.jsonl") -> list[dict]:
        return [json.loads(line) for line in (self.directory / name).read_text().splitlines()]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


COLUMNS = {"t": "{time}", "v": "{value}", "n": "{none?}"}
FORMATS = [{}, {"format": "csv", "columns": COLUMNS}, {"format": "sqlite"}]


def count(store: Store) -> int:
    """Return how many records the only file has."""
    (name,) = store.names()
    if name.endswith(".sqlite"):
        with closing(sqlite3.connect(store.directory / name)) as conn:
            return conn.execute("SELECT count(*) FROM events").fetchone()[0]
    return len((store.directory / name).read_text().splitlines()) - name.endswith(".csv")


# Once and whole

def test_an_event_becomes_a_line_of_json(store):
    response = store.plugin().handle({"a": "é\n\u2028", "b": [1.5, None]}, type="x.y")
    path = str(store.directory / "events-2026-02.jsonl")
    assert told(response) == [("archive.stored", {"file": path, "new": True, "files": []})]
    assert store.lines() == [{"event_id": "e-1", "time": TIMESTAMP, "type": "x.y", "source": "before",
                              "payload": {"a": "é\n\u2028", "b": [1.5, None]}, "files": []}]
    assert "\u2028" not in Path(path).read_text()


@pytest.mark.parametrize("config", FORMATS)
def test_an_event_is_stored_once_however_often_it_comes(store, config):
    plugin = store.plugin(**config)
    results = [plugin.handle({"value": 1}, event_id=event, killed=killed).result for event, killed in (
        ("e", True), ("e", False), ("f", False), ("e", False), ("f", True))]
    (name,) = store.names()
    assert [result.split(" /")[0] for result in results] == [
        "added to", "already in", "added to", "already in", "already in"]
    assert (count(store), name.startswith("events-2026-02.")) == (2, True)


@pytest.mark.parametrize("config", FORMATS)
def test_an_event_is_known_by_the_state_where_it_is_no_more_at_the_end(store, config):
    plugin = store.plugin(**config)
    told(plugin.handle({"value": 1}, event_id="e"))
    for name in store.names():
        (store.directory / name).unlink()
    assert told(plugin.handle({"value": 1}, event_id="e")) == []
    assert store.names() == []


def test_what_is_remembered_is_bounded(store):
    plugin = store.plugin()
    plugin.state = {"recent": "12345678" * 1000}
    told(plugin.handle({}))
    assert len(plugin.state["recent"]) == 8000


@pytest.mark.parametrize(("timestamp", "config", "name"), [
    ("2026-01-31T23:30:00.000Z", {}, "events-2026-01.jsonl"),
    ("2026-01-31T23:30:00.000Z", {"timezone": "Europe/Berlin"}, "events-2026-02.jsonl"),
    ("2026-12-31T23:30:00.000Z", {"timezone": "Asia/Tokyo", "rotate": "daily"}, "events-2027-01-01.jsonl"),
    (TIMESTAMP, {"rotate": "yearly", "name": "a_b"}, "a_b-2026.jsonl"),
    (TIMESTAMP, {"rotate": "never"}, "events.jsonl")])
def test_the_event_s_time_decides_the_file(store, timestamp, config, name):
    told(store.plugin(**config).handle({}, timestamp=timestamp))
    assert store.names() == [name]


@pytest.mark.parametrize("torn", [b'{"event_id":"e-1","ti', b"\0\0\0\0", b"x" * 2000])
def test_the_end_of_a_record_that_was_cut_off_is_set_aside(store, torn):
    plugin = store.plugin()
    told(plugin.handle({"n": 1}, event_id="a"))
    path = store.directory / "events-2026-02.jsonl"
    with path.open("ab") as file:
        file.write(torn)
    response = plugin.handle({"n": 2}, event_id="b")
    assert logged(response) == [f"{path}: moved an incomplete record to {path}.torn"]
    assert [line["event_id"] for line in store.lines()] == ["a", "b"]
    assert Path(f"{path}.torn").read_bytes() == torn + b"\n"


@pytest.mark.parametrize("config", FORMATS[:2])
def test_without_room_nothing_of_a_record_stays(store, config):
    plugin = store.plugin(**config)
    told(plugin.handle({"value": 1}, event_id="a"))
    (name,) = store.names()
    before = (store.directory / name).read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        error, retry = failure(plugin.handle({"value": "x" * 5000}, event_id="b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (error, retry) == (f"{store.directory / name}: no room for a record, or the disk has failed", True)
    assert (store.directory / name).read_bytes() == before
    told(plugin.handle({"value": 2}, event_id="b"))
    assert count(store) == 2


def test_a_lock_that_another_holds_is_waited_for_until_the_deadline(store):
    with (store.directory / ".events.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert failure(store.plugin().handle({}, seconds_left=1.1)) == (
            "another process holds the lock of events", True)


# CSV and SQLite

def test_a_csv_row_is_one_line_in_which_no_cell_is_a_formula(store):
    columns = {"a": "{a}", "b": "{b}", "c": "x {b}", "when": "{time}", "all": "{c}", "d": "{d}"}
    plugin = store.plugin(format="csv", columns=columns)
    told(plugin.handle({"a": '=HYPERLINK("x")', "b": -5, "c": ["1\n2", None], "d": "two\r\nlines, \"quoted\"\0"}))
    path = store.directory / "events-2026-02.csv"
    assert path.read_bytes().count(b"\n") == 2
    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == [{
            "event_id": "e-1", "a": "'=HYPERLINK(\"x\")", "b": "-5", "c": "x -5", "when": TIMESTAMP,
            "all": '["1\\n2",null]', "d": 'two lines, "quoted"'}]


def test_other_columns_begin_another_file(store):
    told(store.plugin(format="csv", columns={"a": "{a}"}).handle({"a": 1}, event_id="x"))
    for event in ("y", "z"):
        told(store.plugin(format="csv", columns={"a": "{a}", "b": "2"}).handle({"a": 1}, event_id=event))
    assert store.names() == ["events-2026-02.2.csv", "events-2026-02.csv"]
    assert (store.directory / "events-2026-02.2.csv").read_text() == "event_id,a,b\ny,1,2\nz,1,2\n"


def test_a_missing_value_of_a_column_fails_for_good_and_stores_nothing(store):
    assert failure(store.plugin(format="csv", columns={"a": "{a}"}).handle({})) == (
        "columns.a: no 'a' in the payload or the context", False)
    assert store.names() == []


def test_a_database_has_the_event_s_parts(store):
    told(store.plugin(format="sqlite", rotate="never").handle({"a": "é\ud800"}, type="x"))
    with closing(sqlite3.connect(store.directory / "events.sqlite")) as conn:
        assert conn.execute("SELECT * FROM events").fetchall() == [
            ("e-1", TIMESTAMP, "x", "before", '{"a": "é?"}', "[]")]


def test_a_database_that_is_locked_may_pass_and_another_one_s_does_not(store, monkeypatch):
    path = store.directory / "events.sqlite"
    plugin = store.plugin(format="sqlite", rotate="never")
    told(plugin.handle({}))
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA user_version = 7")
    assert failure(plugin.handle({})) == (f"{path}: another program's database (user_version 7)", False)
    path.write_bytes(b"no database at all, but long enough to be read as the head of one. " * 3)
    error, retry = failure(plugin.handle({}))
    assert (error.startswith(f"{path}: "), retry) == (True, False)


# Files

def test_files_of_the_workspace_are_filed_by_date_once(store):
    (store.workspace / "sub").mkdir()
    (store.workspace / "a.pdf").write_text("one")
    (store.workspace / "sub" / "b.pdf").write_text("two")
    (store.workspace / "c.txt").write_text("no")
    (store.workspace / "l.pdf").symlink_to("/etc/passwd")
    plugin = store.plugin(files=["*.pdf"])
    ((_, payload),) = told(plugin.handle({}, killed=True))
    assert [os.path.relpath(path, store.directory) for path in payload["files"]] == [
        "files/2026-02-08/a.pdf", "files/2026-02-08/sub/b.pdf"]
    assert (told(plugin.handle({}, event_id="e-1"))[0][1] | {"new": True}) == payload
    assert store.lines()[0]["files"] == ["files/2026-02-08/a.pdf", "files/2026-02-08/sub/b.pdf"]
    (store.workspace / "a.pdf").write_text("other")
    told(plugin.handle({}))
    assert store.names()[1:] == ["files/2026-02-08/a-2.pdf", "files/2026-02-08/a.pdf", "files/2026-02-08/sub/b.pdf"]
    assert (store.directory / "files/2026-02-08/a-2.pdf").read_text() == "other"


# What goes wrong

def test_a_directory_that_is_gone_is_never_made(store):
    store.directory.rmdir()
    for command in ("handle", "health"):
        assert failure(store.plugin().run(command, {})) == (
            f"{store.directory}: no such directory; create it, or mount its disk", True)
    assert not store.directory.exists()


def test_an_error_of_the_system_is_named_and_tried_again(store):
    path = store.directory / "events-2026-02.jsonl"
    path.mkdir()
    assert failure(store.plugin().handle({})) == (f"{path}: {os.strerror(errno.EISDIR)}", True)


@pytest.mark.parametrize(("config", "error"), [
    ({"directory": "archive"}, "directory: expected an absolute path, or one that begins with ~"),
    ({"name": "../x"}, "name: expected letters, digits, hyphens and underscores"),
    ({"format": "xml"}, "format: expected one of jsonl, csv, sqlite"),
    ({"format": "csv"}, "columns: needed for format: csv, and only there"),
    ({"columns": {"a": "b"}}, "columns: needed for format: csv, and only there"),
    ({"format": "csv", "columns": {"event_id": "x"}},
     "columns: expected a mapping of column names to templates; event_id is always the first column"),
    ({"timezone": "Mars"}, "timezone: expected a time zone such as Europe/Berlin"),
    ({"files": "*.pdf"}, "files: expected true, false or a list of patterns such as *.pdf")])
def test_a_wrong_configuration_is_named(store, config, error):
    assert failure(store.plugin(**config).health()) == (error, False)


def test_the_configuration_of_the_readme_works(store):
    configs = readme_config(HERE, store.directory.parent, {"WITHINGS_CLIENT_ID": "x", "WITHINGS_CLIENT_SECRET": "y"})
    for name in ("archive", "weights"):
        plugin = store.plugin(**configs[name] | {"directory": str(store.directory)})
        assert plugin.health().result.startswith(f"would append to {store.directory}/")
        told(plugin.handle({"value": 81.5}))
    assert store.names() == ["events-2026.jsonl", "weights.csv"]


# As a process of its own

def test_it_runs_as_a_process(store):
    assert told(store.plugin().run_process("handle", {"a": 1}))[0][0] == "archive.stored"
    assert [line["payload"] for line in store.lines()] == [{"a": 1}]


def test_a_wrong_configuration_exits_with_78(store):
    assert failure(store.plugin(format="x").run_process("handle", {}, code=78))[1] is False
