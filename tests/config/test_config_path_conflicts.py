"""What is said where two settings mean one place, so that one of Ductile's files would destroy another."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from config.config_files import lines, load_text
from ductile.config.model import run_locks
from ductile.pidfile import pid_file
from support.daemon import RealDaemon

ALONE = "expected a directory for workspaces alone, apart from"
REMOVED = ": whatever belongs to no job is removed there, got"
ENV_FILE = "service: {env_file: e/s.env}\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory for a configuration, with an env_file and a directory in it."""
    for name in ("e", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "e/s.env").touch(mode=0o600)
    return tmp_path


WORKSPACES = [
    ("workspace: {path: ./data}\n", f"1:19: workspace.path: {ALONE} the database{REMOVED} './data'"),
    ("workspace: {path: data/state.db}\n", f"1:19: workspace.path: {ALONE} the database{REMOVED} 'data/state.db'"),
    ("workspace: {path: data/state.db-wal}\n",
     f"1:19: workspace.path: {ALONE} the database's -wal{REMOVED} 'data/state.db-wal'"),
    ("workspace: {path: data/ductiled.pid}\n",
     f"1:19: workspace.path: {ALONE} the PID file beside the database{REMOVED} 'data/ductiled.pid'"),
    ("workspace: {path: data/running}\n",
     f"1:19: workspace.path: {ALONE} the directory of run locks beside the database{REMOVED} 'data/running'"),
    ("workspace: {path: data/running/ws}\n",
     f"1:19: workspace.path: {ALONE} the directory of run locks beside the database{REMOVED} 'data/running/ws'"),
    ("state: {path: data/ws/db/state.db}\n",
     f"1:1: workspace.path: {ALONE} the database{REMOVED} the default of ./data/ws"),
    ("workspace: {path: e/../data/.}\n", f"1:19: workspace.path: {ALONE} the database{REMOVED} 'e/../data/.'"),
    ("state: {path: s.db}\nworkspace: {path: plugins}\n",
     f"2:19: workspace.path: {ALONE} plugins_dir{REMOVED} 'plugins'"),
    ("plugins_dir: [5, a, b/c, b/d]\nworkspace: {path: b}\n", [
        "1:15: plugins_dir[0]: expected a string, got 5",
        f"2:19: workspace.path: {ALONE} plugins_dir{REMOVED} 'b'",
    ]),
    ("pipelines_dir: a/b\nworkspace: {path: a}\n",
     f"2:19: workspace.path: {ALONE} pipelines_dir{REMOVED} 'a'"),
    (ENV_FILE + "workspace: {path: e}\n", f"2:19: workspace.path: {ALONE} service.env_file{REMOVED} 'e'"),
    ("service: {log: l/o/g}\nworkspace: {path: l}\n", f"2:19: workspace.path: {ALONE} service.log{REMOVED} 'l'"),
    ("workspace: {path: .}\n",
     f"1:19: workspace.path: {ALONE} the database, the configuration file, plugins_dir and pipelines_dir{REMOVED} '.'"),
    ("workspace: {path: /}\n",
     f"1:19: workspace.path: {ALONE} the database, the configuration file, plugins_dir and pipelines_dir{REMOVED} '/'"),
    ("workspace: {path: \"./da\\\nta\"}\n", f"1:19: workspace.path: {ALONE} the database{REMOVED} './data'"),
    ("workspace: {path: \"${DATA}\"}\n",
     f"1:19: workspace.path: {ALONE} the database{REMOVED} the value of '${{DATA}}'"),
]


@pytest.mark.parametrize(("text", "expected"), WORKSPACES)
def test_the_directory_of_workspaces_may_not_be_or_hold_what_is_not_the_janitors(directory, text, expected):
    said = lines(load_text(directory, text, {"DATA": "data"}))
    assert said == ([expected] if isinstance(expected, str) else expected)


@pytest.mark.parametrize("text", [
    "workspace: {path: data/ws}\n", "workspace: {path: data2}\n", "workspace: {path: data/state.db-old}\n",
    "workspace: {path: data/running2}\n", "workspace: {path: plugins/ws}\n", "workspace: {path: pipelines/ws}\n",
    "state: {path: state.db}\n", "service: {log: data/log}\n", "service: {log: data/ductiled.log}\n",
    "service: {log: syslog}\nworkspace: {path: syslog}\n",
    # SQLite's own files stand beside what the link leads to.
    "state: {path: link.db}\nworkspace: {path: link.db-wal}\n",
    # Through a directory of workspaces and out of it again.
    "state: {path: data/ws/../state.db}\n",
    "state: {path: common/s.db}\nworkspace: {path: common/ws}\nservice: {log: common/log}\n",
    "pipelines_dir: loop\nservice: {log: loop/log}\n",
])
def test_beside_or_below_is_no_harm(directory, text):
    (directory / "link.db").symlink_to("elsewhere/real.db")
    (directory / "loop").symlink_to("loop")
    (directory / "shared").symlink_to("elsewhere")
    assert lines(load_text(directory, text)) == []


@pytest.mark.parametrize(("links", "text", "named"), [
    ({"ws": "elsewhere"}, "state: {path: elsewhere/s.db}\nworkspace: {path: ws}\n", "the database"),
    ({"ws": "second", "second": "elsewhere"}, "state: {path: elsewhere/s.db}\nworkspace: {path: ws}\n", "the database"),
    ({"db": "elsewhere"}, "state: {path: db/s.db}\nworkspace: {path: elsewhere}\n", "the database"),
    ({"s.db": "elsewhere/s.db"}, "state: {path: s.db}\nworkspace: {path: elsewhere}\n", "the database"),
    ({"p": "elsewhere"}, "pipelines_dir: p\nworkspace: {path: elsewhere}\n", "pipelines_dir"),
])
def test_real_paths_are_compared(directory, links, text, named):
    for name, target in links.items():
        (directory / name).symlink_to(target)
    (said,) = lines(load_text(directory, text))
    assert said.startswith(f"2:19: workspace.path: {ALONE} {named}{REMOVED} '")


def test_a_configuration_that_is_a_link_is_compared_by_its_real_path(directory):
    (directory / "elsewhere/config.yaml").write_text("workspace: {path: elsewhere}\n")
    (directory / "config.yaml").symlink_to("elsewhere/config.yaml")
    text = (directory / "elsewhere/config.yaml").read_text()
    assert lines(load_text(directory, text)) == [
        f"1:19: workspace.path: {ALONE} the configuration file{REMOVED} 'elsewhere'"]


DATABASES = [
    ("state: {path: data/running}\n",
     "1:15: state.path: expected another path, as the directory of run locks beside the database would be the database"
     ", got 'data/running'"),
    ("state: {path: ductiled.pid}\n",
     "1:15: state.path: expected another path, as the PID file beside the database would be the database"
     ", got 'ductiled.pid'"),
    ("state: {path: ductiled.log}\n",
     "1:15: state.path: expected another path, as the log of ductiled -d beside the database would be the database"
     ", got 'ductiled.log'"),
    ("state: {path: config.yaml}\n",
     "1:15: state.path: expected another path, as the database would be the configuration file, got 'config.yaml'"),
    (ENV_FILE + "state: {path: e/s.env}\n",
     "2:15: state.path: expected another path, as the database would be service.env_file, got 'e/s.env'"),
    ("service: {env_file: e/ductiled.pid}\nstate: {path: e/s.db}\n",
     "2:15: state.path: expected another path, as the PID file beside the database would be service.env_file"
     ", got 'e/s.db'"),
    ("state: {path: link}\n",
     "1:15: state.path: expected another path, as the directory of run locks beside the database would be the database"
     ", got 'link'"),
    ("state: {path: whole}\n",
     "1:15: state.path: expected another path, as the database would be the configuration file, got 'whole'"),
]


@pytest.mark.parametrize(("text", "expected"), DATABASES)
def test_the_database_may_not_take_the_place_of_another_file(directory, text, expected):
    (directory / "e/ductiled.pid").touch(mode=0o600)
    (directory / "link").symlink_to("running")
    (directory / "whole").symlink_to("/")
    assert lines(load_text(directory, text)) == [expected]


LOGS = [
    ("data/state.db", "the database"), ("data/state.db-wal", "the database's -wal"),
    ("data/state.db-shm", "the database's -shm"), ("data/ductiled.pid", "the PID file beside the database"),
    ("data/running/log", "the directory of run locks beside the database"),
    ("e/../config.yaml", "the configuration file"), ("e/s.env", "service.env_file"),
    ("link", "the database's -wal"),
]


@pytest.mark.parametrize(("log", "named"), LOGS)
def test_the_log_may_not_be_written_into_another_file(directory, log, named):
    (directory / "link").symlink_to("data/state.db-wal")
    assert lines(load_text(directory, f"service: {{env_file: e/s.env, log: {log}}}\n")) == [
        f"1:35: service.log: expected a file for the log alone, and not {named}, got '{log}'"]


@pytest.mark.parametrize(("text", "expected"), [
    ("state: {path: 5}\nworkspace: {path: data}\n", "1:15: state.path: expected a string, got 5"),
    ("state: 5\nworkspace: {path: data}\n", "1:8: state: expected a mapping, got 5"),
    ("workspace: {path: ''}\nstate: {path: data/ws/s.db}\n",
     "1:19: workspace.path: expected a string, got an empty string"),
    ("state: {path: \"${UNSET}\"}\nworkspace: {path: \"data\"}\n", "1:15: state.path: the variable UNSET is not set"),
    ("pipelines_dir: [a]\nworkspace: {path: pipelines}\n", "1:16: pipelines_dir: expected a string, got a list"),
])
def test_nothing_is_compared_with_a_default_that_nobody_wrote(directory, text, expected):
    assert lines(load_text(directory, text)) == [expected]


def test_run_locks_are_where_the_daemon_keeps_them(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.start()
    daemon.await_job(daemon.submit("ok"), "succeeded")
    daemon.stop()
    assert sorted(os.listdir(daemon.data)) == sorted([
        "state.db", "ws", pid_file(daemon.database).name, run_locks(daemon.database).name])


def test_a_daemon_does_not_start_on_workspaces_that_hold_its_database(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.start()
    daemon.stop()
    kept = {path: path.read_bytes() for path in daemon.data.iterdir() if path.is_file()}
    daemon.configure(workspace={"path": "./data"})
    done = daemon.run()
    file = daemon.home / "config.yaml"
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == f"{file}:12:11: workspace.path: {ALONE} the database{REMOVED} './data'\n"
    assert {path: path.read_bytes() for path in daemon.data.iterdir() if path.is_file()} == kept


def test_a_configuration_that_has_become_a_fifo_refuses_the_reload_and_the_daemon_stops_when_told(
    daemon: RealDaemon,
) -> None:
    daemon.install("ok")
    daemon.start()
    file = daemon.home / "config.yaml"
    file.unlink()
    os.mkfifo(file)
    daemon.send(signal.SIGHUP)
    error = f"{file}: cannot be read: not a regular file; put a regular file in its place"
    daemon.until("SELECT ok, errors FROM config_loads ORDER BY id DESC LIMIT 1", [(0, error)])
    daemon.await_log("reload rejected; keeping the current configuration")
    daemon.stop()
