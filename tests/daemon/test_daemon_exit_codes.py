"""A daemon that cannot run says why, a line for each problem, and exits with the code that sysexits.h has for it."""

from __future__ import annotations

import os
import select
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ductile import schema
from support.daemon import RealDaemon
from support.warm import Warm

_RESTORE = "restore a backup with `ductilectl restore FILE`"


def with_some_jobs(daemon: RealDaemon) -> None:
    """Have a database in place that the daemon has made and left."""
    daemon.install("ok")
    daemon.start()
    daemon.await_job(daemon.submit("ok"), "succeeded")
    daemon.stop()


@pytest.fixture(scope="module")
def used_database(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> bytes:
    """A database that a daemon has used and left."""
    daemon = RealDaemon(tmp_path_factory.mktemp("used"), warm=warm)
    with_some_jobs(daemon)
    daemon.close()
    return daemon.database.read_bytes()


def refused(daemon: RealDaemon, exit_code: int, *lines: str) -> None:
    """Start the daemon; it must end with this code and say these lines and no more."""
    run = daemon.run()
    # Standard output is the log: as root, a warning about it.
    assert (run.returncode, run.stderr.splitlines()) == (exit_code, list(lines))
    assert "Traceback" not in run.stdout


def test_an_unknown_option_is_a_usage_error(daemon: RealDaemon) -> None:
    run = daemon.run("--nonsense")
    assert (run.returncode, run.stderr) == (
        64, "ductiled: unrecognized arguments: --nonsense; see ductiled --help\n")


def test_detaching_under_systemd_is_a_usage_error(daemon: RealDaemon) -> None:
    run = daemon.run("-d", "-c", str(daemon.home), env={**daemon.environ, "NOTIFY_SOCKET": "@nobody"})
    assert (run.returncode, run.stderr) == (
        64, "-d cannot be used under systemd's Type=notify: remove it from the unit\n")
    assert not daemon.data.exists()


def test_detaching_under_systemd_is_refused_before_anything_is_looked_at(daemon: RealDaemon) -> None:
    run = daemon.run("-d", "-c", "/nonexist", env={**daemon.environ, "NOTIFY_SOCKET": "@nobody"})
    assert (run.returncode, run.stderr) == (
        64, "-d cannot be used under systemd's Type=notify: remove it from the unit\n")
    daemon.install("ok")
    run = daemon.run("-t", "-d", "-c", str(daemon.home), env={**daemon.environ, "NOTIFY_SOCKET": "@nobody"})
    assert (run.returncode, run.stderr) == (0, "")


def test_the_version_is_told(daemon: RealDaemon) -> None:
    run = daemon.run("--version")
    assert (run.returncode, run.stdout.split()[0]) == (0, "ductiled")


@pytest.mark.skipif(Path("/etc/ductile/config.yaml").exists(), reason="this machine has a configuration of Ductile")
def test_without_a_configuration_the_places_looked_at_are_named(daemon: RealDaemon) -> None:
    run = daemon.run("-t")
    assert (run.returncode, run.stderr) == (
        78, f"no configuration found (looked at $DUCTILE_CONFIG, {daemon.home}/.config/ductile/config.yaml,"
            " /etc/ductile/config.yaml); `ductilectl init` writes a starter configuration\n")


@pytest.mark.parametrize("check", [False, True])
def test_every_problem_of_the_configuration_has_its_line(daemon: RealDaemon, check: bool) -> None:
    config = daemon.home / "config.yaml"
    config.write_text("service:\n  tick_interval: soon\n  log_levle: info\nplugins_dir: ./plugins\nplugins:\n"
                      "  echo:\n    config: {key: '${UNSET_VARIABLE}'}\n"
                      "routes:\n  - {from: echo, event_type: x, to: nobody}\n")
    run = daemon.run("-c", str(daemon.home), *(["-t"] if check else []))
    lines = run.stderr.splitlines()
    places = [line.split(": ")[0].removeprefix(f"{config}:").split(":")[0] for line in lines]
    assert (run.returncode, places) == (78, ["2", "3", "7", "9"] + ["6"] * check), run.stderr
    assert lines[0] == f"{config}:2:18: service.tick_interval: expected a duration such as 30s, got 'soon'"
    assert not daemon.data.exists()


def test_a_check_prints_why_a_plugin_would_not_be_loaded(daemon: RealDaemon) -> None:
    daemon.install("ok")
    (daemon.directory("ok") / "run").chmod(0o644)
    program = daemon.directory("ok") / "run"
    run = daemon.run("-t", "-c", str(daemon.home))
    assert (run.returncode, run.stdout, run.stderr) == (
        78, "", f"plugin ok is not loaded: {program}: the entrypoint is not executable: chmod a+rx {program}\n")


def test_a_check_of_a_good_configuration_makes_nothing(daemon: RealDaemon) -> None:
    daemon.install("ok")
    run = daemon.run("-t", "-c", str(daemon.home))
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{daemon.home}/config.yaml: ok, 1 plugin configured\n", "")
    assert not daemon.data.exists()


def test_a_second_daemon_names_the_first(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.start()
    refused(daemon, 75, f"ductiled is already running as PID {daemon.pid} (it holds {daemon.pid_file})")
    assert daemon.pid_file.read_text() == f"{daemon.pid}\n"
    daemon.await_job(daemon.submit("ok"), "succeeded")
    daemon.stop()


def test_of_two_daemons_started_at_once_one_runs(daemon: RealDaemon, tmp_path: Path) -> None:
    outputs = [open(tmp_path / f"racer{number}", "w") for number in range(2)]  # noqa: SIM115
    racers = [daemon.warm.popen(["-c", daemon.home], daemon.environ, stdin=subprocess.DEVNULL, stdout=output,
                                stderr=output) for output in outputs]
    pidfds = [os.pidfd_open(racer.pid) for racer in racers]
    try:
        assert select.select(pidfds, [], [], 20)[0], "both run"
        [code] = [racer.wait(20) for racer in racers if racer.poll() is not None]
        [winner] = [racer for racer in racers if racer.poll() is None]
        assert code == 75
        winner.terminate()
        assert winner.wait(20) == 0
    finally:
        for racer, pidfd, output in zip(racers, pidfds, outputs, strict=False):
            racer.kill()
            racer.wait(20)
            os.close(pidfd)
            output.close()


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def garble(path: Path) -> None:
    path.write_bytes(b"this is not a database " * 1000)


def change(*statements: str) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with sqlite3.connect(path, isolation_level=None) as conn:
            for statement in statements:
                conn.execute(statement)
        conn.close()
    return apply


def replace_by_another_programs(path: Path) -> None:
    path.unlink()
    change("CREATE TABLE notes (text)")(path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(("damage", "line"), [
    (cut_in_half, "the database {path} is damaged (database disk image is malformed); " + _RESTORE),
    (garble, "the database {path} is damaged (file is not a database); " + _RESTORE),
    (change("DROP TABLE plugin_inits"),
     "the database {path} is damaged (table plugin_inits has no column fingerprint); " + _RESTORE),
    (empty, "the database {path} is an empty file; " + _RESTORE + ", or remove {path} to start with an empty database"),
    (change(f"PRAGMA user_version = {schema.VERSION + 1}"),
     f"the database {{path}} has version {schema.VERSION + 1}, newer than this program's {schema.VERSION}; "
     "install the newer Ductile again"),
    (replace_by_another_programs, "{path} is not a database of Ductile; set state.path to another file"),
])
def test_a_database_that_cannot_be_trusted_is_left_alone(
        daemon: RealDaemon, used_database: bytes, damage: Callable[[Path], None], line: str) -> None:
    daemon.data.mkdir()
    daemon.database.write_bytes(used_database)
    damage(daemon.database)
    before = daemon.database.read_bytes()
    refused(daemon, 65, line.format(path=daemon.database))
    assert daemon.database.read_bytes() == before


def test_a_read_only_data_directory_ends_the_start(users_daemon: RealDaemon) -> None:
    users_daemon.configure(workspace={"path": "./ws"})
    users_daemon.data.mkdir(mode=0o555)
    refused(users_daemon, 71, f"cannot open the PID file {users_daemon.pid_file}: Permission denied")


def test_a_read_only_database_ends_the_start(users_daemon: RealDaemon) -> None:
    with_some_jobs(users_daemon)
    users_daemon.database.chmod(0o400)
    refused(users_daemon, 71, f"cannot write the database {users_daemon.database}: "
                              "attempt to write a readonly database (SQLITE_READONLY)")


def test_an_ordinary_user_gets_no_warning_about_root(users_daemon: RealDaemon) -> None:
    with_some_jobs(users_daemon)
    assert [line for line in users_daemon.lines() if line["level"] != "info"] == []


@pytest.mark.parametrize(("log", "why"), [
    ("./missing/ductile.log", "No such file or directory"),
    ("./plugins", "Is a directory"),
])
def test_a_log_that_cannot_be_opened_ends_the_start(daemon: RealDaemon, log: str, why: str) -> None:
    daemon.configure(service={"log": log})
    refused(daemon, 71, f"cannot open the log {daemon.home / log}: {why}; "
                        "set service.log to a writable path")
    assert not daemon.data.exists()


def test_a_data_directory_that_cannot_be_made_ends_the_start(daemon: RealDaemon) -> None:
    daemon.data.write_text("a file where the directory should be")
    refused(daemon, 71, f"cannot create the data directory {daemon.data}: File exists")


def test_a_pid_file_that_is_a_fifo_ends_the_start(daemon: RealDaemon) -> None:
    daemon.data.mkdir()
    os.mkfifo(daemon.pid_file)
    refused(daemon, 71, f"the PID file {daemon.pid_file} is not a regular file: remove it")


def test_a_configuration_that_may_not_be_looked_at_is_78(users_daemon: RealDaemon) -> None:
    if os.geteuid() != 0:
        pytest.skip("takes a directory of somebody else, and so root")
    shutil.chown(users_daemon.home, 0, 0)
    users_daemon.home.chmod(0o700)
    refused(users_daemon, 78, f"{users_daemon.home}/config.yaml: cannot be read: Permission denied, named by -c;"
                              " run this as the user that runs ductiled")


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes a user without an account, which takes root")
def test_a_user_without_a_home_needs_none(users_daemon: RealDaemon) -> None:
    users_daemon.forked["user"] = 12345
    del users_daemon.environ["HOME"]
    users_daemon.install("ok")
    run = users_daemon.run("-t", "-c", str(users_daemon.home))
    assert (run.returncode, run.stdout, run.stderr) == (
        0, f"{users_daemon.home}/config.yaml: ok, 1 plugin configured\n", "")
    run = users_daemon.run("-t", "-c", "/nonexist")
    assert (run.returncode, run.stderr) == (78, "/nonexist: no such file or directory, named by -c\n")


def test_a_pid_file_that_is_a_link_is_not_followed(daemon: RealDaemon) -> None:
    daemon.data.mkdir()
    target = daemon.home / "precious"
    target.write_text("keep me")
    daemon.pid_file.symlink_to(target)
    assert daemon.run().returncode == 71
    assert target.read_text() == "keep me"
