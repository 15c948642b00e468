"""A reload on a disk that fails at any statement of it: taken whole, refused whole, or the end of the daemon."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from ductile import db, log, runtime_config
from ductile.errors import EXIT_SYSTEM
from support import failing, plugins_on_disk
from support.failing import FailingConnection
from support.hooks import free_port
from support.ledger import opened
from support.logs import kept, lines
from support.loop import Loop
from support.wire import SECRET, ask, signed

ENVIRON = {"PATH": "/usr/bin:/bin", "HOOK_SECRET": SECRET, "TZ": "UTC"}
RELOADED = "info configuration reloaded"
REFUSED = "error reload rejected; keeping the current configuration"
PUT_OFF = "error the database cannot be written; trying again"
LOADS = "SELECT listen FROM config_loads WHERE ok ORDER BY id"


class Place:
    """A loop on files of its own, whose next configuration moves the listener and adds a plugin with an `init`."""

    def __init__(self, directory: Path, conn: FailingConnection, onlooker: sqlite3.Connection) -> None:
        self._directory = directory
        self.conn = conn
        self.onlooker = onlooker
        self.ports = free_port(), free_port()
        for name in ("hook", "fresh"):
            plugins_on_disk.make(directory / "plugins", name)
        manifest = directory / "plugins" / "hook" / "manifest.yaml"
        manifest.write_text(manifest.read_text().replace("[poll]", "[handle]"))
        manifest = directory / "plugins" / "fresh" / "manifest.yaml"
        manifest.write_text(manifest.read_text().replace("[poll]", "[poll, init]"))
        self.configure("/before", self.ports[0], plugins={"hook": {}})
        reading = runtime_config.build(directory / "config.yaml", ENVIRON)
        self.loop = Loop(directory, conn, reading.runtime, directory / "ductile.log", environ=ENVIRON)
        self.loop.daemon.prepare()
        self.loop.turn()
        self.configure("/after", self.ports[1], plugins={"hook": {}, "fresh": {}})

    def configure(self, path: str, port: int, *, plugins: dict[str, dict],
                  log_file: str = "./ductile.log") -> None:
        endpoint = {"path": path, "plugin": "hook", "secret": "${HOOK_SECRET}", "signature_header": "X-Sig"}
        config = {
            "service": {"tick_interval": "1h", "log": log_file}, "state": {"path": "./state.db"},
            "workspace": {"path": "./ws"}, "plugins_dir": "./plugins", "plugins": plugins,
            "webhooks": {"listen": f"127.0.0.1:{port}", "endpoints": [endpoint]},
        }
        (self._directory / "config.yaml").write_text(json.dumps(config))

    def reload(self) -> list[str]:
        """Have the configuration read again and return what was said meanwhile; raises what the loop raises."""
        count = len(self.loop.said())
        try:
            self.loop.turn(signal.SIGHUP)
        finally:
            self.conn.mend()
            log.flush()
        return self.loop.said()[count:]

    def serves(self) -> list[str]:
        """The endpoints that are served, by the address of the first configuration and by that of the next."""
        return [path for port in self.ports for path in ("/before", "/after") if _status(port, path) == 403]

    def loads(self) -> list[int]:
        """The ports of the configurations that the ledger says were taken."""
        return [int(listen.rpartition(":")[2]) for listen, in self.onlooker.execute(LOADS)]

    def inits(self) -> int:
        return self.onlooker.execute("SELECT count(*) FROM job_queue WHERE plugin = 'fresh'").fetchone()[0]


def _status(port: int, path: str) -> int | None:
    """The status of a request whose signature is wrong: 403 where the endpoint is served; None where nobody listens."""
    with closing(socket.socket()) as client:
        if client.connect_ex(("127.0.0.1", port)) != 0:
            return None
    return ask(("127.0.0.1", port), signed(b"{}", secret="another secret altogether", path=path)).status


@contextmanager
def place(directory: Path) -> Iterator[Place]:
    directory.mkdir()
    with opened(directory) as onlooker, closing(failing.connect(directory / "state.db")) as conn, kept(directory):
        made = Place(directory, conn, onlooker)
        try:
            yield made
        finally:
            conn.mend()
            made.loop.close()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY])
def test_a_write_that_fails_at_any_statement_refuses_the_reload_or_comes_after_it(tmp_path: Path, code: int) -> None:
    refused = 0
    for number in itertools.count(1):
        with place(tmp_path / str(number)) as made:
            before, after = made.ports
            made.conn.fail_from(number, code)
            said = made.reload()
            if not made.conn.failed:
                assert (made.serves(), made.loads(), made.inits()) == (["/after"], [before, after], 1)
                break
            if REFUSED in said:
                refused += 1
                assert RELOADED not in said
                assert (made.serves(), made.loads(), made.inits()) == (["/before"], [before], 0)
                assert RELOADED in made.reload()
            assert (made.serves(), made.loads()) == (["/after"], [before, after])
            # What the reload asks of the queue is not forgotten either.
            made.loop.clock.move(5.1)
            made.loop.turn()
            assert (made.inits(), made.loop.daemon.done) == (1, False)
    assert number - 1 > refused >= 5


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY])
def test_a_commit_that_did_not_happen_is_recorded_as_a_refused_reload(tmp_path: Path, code: int) -> None:
    with place(tmp_path / "place") as made:
        made.conn.fail_once_at("COMMIT", code)
        assert made.reload()[-1] == REFUSED
        errors = made.onlooker.execute("SELECT errors FROM config_loads WHERE NOT ok").fetchall()
        name = {sqlite3.SQLITE_FULL: "SQLITE_FULL", sqlite3.SQLITE_BUSY: "SQLITE_BUSY"}[code]
        assert (errors, made.serves()) == ([(f"as if {name} ({name})",)], ["/before"])


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_IOERR_FSYNC])
def test_a_disk_that_breaks_at_any_statement_of_a_reload_ends_the_daemon_and_nothing_is_acknowledged(
        tmp_path: Path, code: int) -> None:
    for number in itertools.count(1):
        with place(tmp_path / str(number)) as made:
            made.conn.fail_from(number, code)
            try:
                made.reload()
            except db.FateUnknown as error:
                assert error.exit_code == EXIT_SYSTEM
            else:
                break
            said = made.loop.said()
            assert REFUSED not in said and PUT_OFF not in said
            # A disk that breaks after the commit breaks under a configuration that is in force.
            assert (RELOADED in said) == (len(made.loads()) == 2)
    assert not made.conn.failed
    assert number > 5


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT])
def test_no_way_back_hides_that_the_database_is_lost(tmp_path: Path, code: int) -> None:
    with place(tmp_path / "place") as made:
        # The log that was in force cannot be opened again.
        (tmp_path / "logs").mkdir()
        plugins = {"hook": {}}
        made.configure("/before", made.ports[0], plugins=plugins, log_file=str(tmp_path / "logs" / "ductile.log"))
        made.loop.turn(signal.SIGHUP)
        (tmp_path / "logs" / "ductile.log").unlink()
        (tmp_path / "logs").rmdir()
        made.configure("/after", made.ports[1], plugins=plugins)
        made.conn.fail_once_at("COMMIT", code)
        with pytest.raises((db.FateUnknown, db.Damaged)):
            made.reload()
        assert made.onlooker.execute("SELECT count(*) FROM config_loads WHERE NOT ok").fetchone() == (0,)


def test_a_log_that_cannot_be_opened_again_leaves_nothing_of_a_refused_reload_in_force(tmp_path: Path) -> None:
    with place(tmp_path / "place") as made:
        plugins = {"hook": {}}
        made.configure("/before", made.ports[0], plugins=plugins, log_file=str(tmp_path / "logs" / "ductile.log"))
        (tmp_path / "logs").mkdir()
        made.loop.turn(signal.SIGHUP)
        shutil.rmtree(tmp_path / "logs")
        made.configure("/after", made.ports[0], plugins=plugins)
        made.conn.fail_once_at("COMMIT", sqlite3.SQLITE_FULL)
        made.reload()
        errors = made.onlooker.execute("SELECT errors FROM config_loads WHERE NOT ok").fetchall()
        assert errors == [("as if SQLITE_FULL (SQLITE_FULL)",)]
        assert (made.serves(), made.loads()) == (["/before"], [made.ports[0]] * 2)


def test_where_the_old_address_cannot_be_had_again_both_errors_are_told_and_the_old_endpoints_count(
        tmp_path: Path) -> None:
    with place(tmp_path / "place") as made, closing(socket.socket()) as thief:
        before, _after = made.ports

        def steal(*_: object) -> int:
            """Take the old address as soon as it is given up."""
            if thief.getsockname()[1] == 0:
                with suppress(OSError):
                    thief.bind(("127.0.0.1", before))
                    thief.listen()
            return 0

        # Connections of other tests from this port may linger (TIME_WAIT).
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.conn.fail_once_at("COMMIT", sqlite3.SQLITE_FULL)
        made.conn.set_progress_handler(steal, 1)
        said = made.reload()
        made.conn.set_progress_handler(None, 1)
        assert said[-1] == REFUSED
        assert [line.split(":")[0] for line in said[-3:-1]] == [
            "error as if SQLITE_FULL (SQLITE_FULL)", "error cannot listen on 127.0.0.1"]
        thief.close()
        assert (made.serves(), made.loads()) == (["/before"], [before])


@pytest.mark.parametrize("name", ["read_again", "open_log"])
def test_a_bug_in_reading_a_configuration_is_told_with_its_traceback_and_nothing_changes(
        tmp_path: Path, name: str) -> None:
    with place(tmp_path / "place") as made:
        made.loop.daemon._reloader._source = Buggy(name)
        said = made.reload()
        assert said == ["error the configuration cannot be read because of a bug in ductiled",
                        "error a bug in ductiled, please report it: RecursionError: nobody foresaw this", REFUSED]
        [line] = [line for line in lines(made.loop.log) if "traceback" in line]
        assert "in read_again\n" in line["traceback"]
        errors = made.onlooker.execute("SELECT errors FROM config_loads WHERE NOT ok").fetchall()
        assert errors == [(said[1].removeprefix("error "),)]
        assert (made.serves(), made.loads(), made.loop.daemon.done) == (["/before"], [made.ports[0]], False)


class Buggy:
    """A source that has a bug in one of its steps."""

    def __init__(self, name: str) -> None:
        setattr(self, name, self._fail)

    def _fail(self, *_: object) -> None:
        raise RecursionError("nobody foresaw this")

    def read_again(self, in_force: runtime_config.RuntimeConfig) -> runtime_config.LoadResult:
        return runtime_config.LoadResult(path=Path("config.yaml"), runtime=in_force, problems=(), faults=(),
                                         warnings=())
