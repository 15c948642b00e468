"""`ductiled`: reads the command line and the configuration, detaches, takes the lock and runs the loop."""

from __future__ import annotations

import argparse
import gc
import os
import random
import signal
import socket
import sqlite3
import sys
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ductile
from ductile import config_report, daemon_run_table, db, listen_fds, log, runtime_config, stdio
from ductile.arguments import Parser
from ductile.clock import SystemClock
from ductile.config.find import find
from ductile.config.model import Config, detached_log, run_locks
from ductile.daemon import STOP_SIGNALS, Daemon, Note
from ductile.detach import Report, detach
from ductile.dispatch.reaper import ignore_existing_children
from ductile.dispatch.run_lock import RunLocks
from ductile.dispatch.runner import become_subreaper
from ductile.errors import (
    EXIT_CONFIG,
    EXIT_DATA,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_SYSTEM,
    EXIT_USAGE,
    DuctileError,
)
from ductile.inbox import Inbox, Signal
from ductile.memory import give_large_blocks_back
from ductile.pidfile import PidLock, pid_file
from ductile.runtime_config import ConfigSource
from ductile.sdnotify import Notifier
from ductile.workspace.manager import Workspaces

_HANDLED = (*STOP_SIGNALS, signal.SIGHUP, signal.SIGUSR1)
# Ignored by Python itself, which restores them for the plugins.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_LOG_SECONDS = 0.5            # at the end, for a slow reader of the log
_RESCUE_RETRY_SECONDS = 5.0

_INTERRUPTED = "interrupted before ductiled was ready"

_log = log.Component("daemon")


def run() -> None:
    """The entry point of `ductiled`."""
    stdio.prepare()
    try:
        exit_code = main(sys.argv[1:], dict(os.environ))
    except SystemExit as end:
        exit_code = end.code if isinstance(end.code, int) else EXIT_OK
    except KeyboardInterrupt:
        # During shutdown.
        exit_code = EXIT_INTERRUPTED
    log.close(_LOG_SECONDS)
    # Python restores the default action of handled signals before the process has ended.
    for number in _HANDLED:
        signal.signal(number, signal.SIG_IGN)
    stdio.leave()
    sys.exit(exit_code)


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the daemon and return its exit code. Raises SystemExit for --help and a wrong command line."""
    report: Report | None = None
    try:
        options = _parser().parse_args(arguments)
        if options.daemon and not options.check and environ.get("NOTIFY_SOCKET"):
            raise DuctileError("-d cannot be used under systemd's Type=notify: remove it from the unit",
                               exit_code=EXIT_USAGE)
        if options.daemon and not options.check and listen_fds.count(environ):
            raise DuctileError("-d cannot be used with sockets that systemd passes: remove it from the unit",
                               exit_code=EXIT_USAGE)
        path = find(options.config, environ, denied=EXIT_CONFIG)
        if options.check:
            return _check(path, environ)
        # Until the daemon obeys signals itself.
        signal.signal(signal.SIGTERM, _stop_at_once)
        loaded = runtime_config.build(path, environ)
        stdout = _log_without_terminal(loaded.runtime.config) if options.daemon else "stdout"
        # Absolute, because a daemon changes its working directory.
        source = ConfigSource(path=path.absolute(), environ=environ, stdout=stdout)
        report = detach() if options.daemon else None
        serve(loaded, source, report, listen_fds.take(environ))
        return EXIT_OK
    except DuctileError as error:
        exit_code, lines = error.exit_code, tuple(map(stdio.as_line, error.lines))
    except stdio.OutputError as error:
        exit_code, lines = EXIT_SYSTEM, (str(error),)
    except KeyboardInterrupt:
        exit_code, lines = EXIT_INTERRUPTED, (_INTERRUPTED,)
    except Exception as error:
        exit_code, lines = EXIT_FAILED, tuple("".join(traceback.format_exception(error)).splitlines())
    _report_failure(report, exit_code, lines)
    return exit_code


def _stop_at_once(number: int, frame: object) -> None:
    raise SystemExit(EXIT_OK)


def _check(path: Path, environ: Mapping[str, str]) -> int:
    """Print what is wrong. Raises OutputError, DuctileError (130) when interrupted, and what `read` raises."""
    try:
        return config_report.report(runtime_config.read(path, environ), out=sys.stdout, err=sys.stderr)
    except BrokenPipeError:
        # The reader has closed the pipe. Only a good result goes to standard output.
        return EXIT_OK
    except KeyboardInterrupt as interrupt:
        raise DuctileError("interrupted before the check was complete", exit_code=EXIT_INTERRUPTED) from interrupt


def _log_without_terminal(config: Config) -> str | Path:
    """Return where `log: stdout` goes in a detached daemon; a file is named on the terminal.

    Raises DuctileError (71) if the directory of the file cannot be created.
    """
    if log.has_syslog():
        return "syslog"
    file = detached_log(config.state_path)
    if config.service.log == "stdout":
        db.make_directory(config.state_path)
        print(stdio.as_line(f"no syslog (/dev/log) found: logging to {file}"), file=sys.stderr)
    return file


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ductiled", description="Run plugins on schedule and on events.", allow_abbrev=False)
    parser.add_argument("-c", "--config", metavar="PATH", help="a config.yaml, or the directory that holds it")
    parser.add_argument("-d", "--daemon", action="store_true", help="detach from the terminal")
    parser.add_argument("-t", "--check", action="store_true", help="check everything, print every problem, exit")
    parser.add_argument("--version", action="version", version=f"ductiled {ductile.__version__}")
    return parser


def _report_failure(report: Report | None, exit_code: int, lines: tuple[str, ...]) -> None:
    """Report why the daemon ends: on the terminal or to the waiting command, and in the log if it is open."""
    for line in lines:
        _log.error(line)
    if report is not None:
        report.failed(exit_code, lines)
        return
    for line in lines:
        print(line, file=sys.stderr)


def serve(loaded: runtime_config.LoadResult, source: ConfigSource, report: Report | None,
          passed: Sequence[socket.socket] = ()) -> None:
    """Start in the documented order and run until a signal stops it. Raises DuctileError."""
    config = loaded.runtime.config
    clock = SystemClock()
    started = clock.monotonic()
    source.open_log(config).use()
    _log_problems(loaded)
    inbox: Inbox[Note] = Inbox()
    db.make_directory(config.state_path)
    lock = PidLock(pid_file(config.state_path))
    _handle_signals(inbox)
    workspaces = Workspaces(config.workspace_path)
    workspaces.make_root()
    conn = db.open_for_daemon(config.state_path, was_unclean=bool(lock.left))
    notifier = Notifier(source.environ)
    try:
        with db.held(config.state_path):
            _record_run(conn, config.state_path, lambda: daemon_run_table.start(
                conn, pid=os.getpid(), version=ductile.__version__, now=clock.now()))
            # Only now: a PID in the file means that there is a database, and that `daemon_run` has no row of an earlier
            # run with the same PID.
            lock.write()
            ignore_existing_children()
            become_subreaper()
            give_large_blocks_back()
            daemon = Daemon(
                loaded.runtime, conn, clock=clock, rng=random.Random(), new_id=lambda: str(uuid.uuid4()),
                workspaces=workspaces, locks=RunLocks(run_locks(config.state_path)),
                notifier=notifier, inbox=inbox, source=source, passed=passed,
            )
            try:
                daemon.prepare()
                if inbox.has_signal(signal.SIGINT):
                    raise DuctileError(_INTERRUPTED, exit_code=EXIT_INTERRUPTED)
                _record_run(conn, config.state_path, lambda: daemon_run_table.ready(conn, clock.now()))
                _log.info("ready", version=ductile.__version__, pid=os.getpid(), config=str(loaded.path),
                          seconds=round(clock.monotonic() - started, 3))
                notifier.send(READY="1", STATUS="running")
                if report is not None:
                    report.ready()
                # All objects until now are permanent: the garbage collector need not visit them again.
                gc.freeze()
                log.hold()
                daemon.run()
            finally:
                daemon.close()
            # If nothing was written since the loss, only this connection still has the data.
            db.refuse_replaced()
    except db.Replaced as lost:
        raise _rescued(lost, conn, inbox, notifier) from lost
    finally:
        conn.close()
    # After an error the PID file keeps its content, so the next start detects an unclean stop.
    lock.release()
    _log.info("stopped")


def _rescued(lost: db.Replaced, conn: sqlite3.Connection, inbox: Inbox[Note], notifier: Notifier) -> DuctileError:
    """Save what the open connection still holds, and return the error for the operator.

    If it cannot be saved, for example on a full disk, this is retried until a signal stops the process: the data ends
    with it.
    """
    is_logged = False
    while True:
        notifier.send(WATCHDOG="1")
        try:
            file = lost.files.rescue(conn, SystemClock().now(), lambda: notifier.send(WATCHDOG="1"))
            return DuctileError(f"{lost}; the whole content of the database was saved to {file}: put it back"
                                f" with `ductilectl restore {file}`", exit_code=EXIT_DATA)
        except (OSError, sqlite3.Error) as error:
            why = str(error)
        if not is_logged:
            _log.error(f"{lost}, and its content cannot be saved; retrying until ductiled is stopped", error=why)
            log.flush()
            is_logged = True
        note = inbox.get(timeout=_RESCUE_RETRY_SECONDS)
        if isinstance(note, Signal) and note.number in STOP_SIGNALS:
            return DuctileError(f"{lost}, and its content could not be saved: {why}", exit_code=EXIT_DATA)


def _record_run(conn: sqlite3.Connection, database: Path, write: Callable[[], None]) -> None:
    """Write the row that `ductilectl wait` looks for. Raises DuctileError (71)."""
    try:
        with db.transaction(conn):
            write()
    except db.NotWritten as error:
        raise DuctileError(f"cannot write the database {database}: {error}", exit_code=EXIT_SYSTEM) from error


def _log_problems(loaded: runtime_config.LoadResult) -> None:
    for line in loaded.warnings:
        _log.warn(line)
    for line in loaded.faults:
        _log.error(line)
    if os.geteuid() == 0:
        _log.warn("ductiled and its plugins are running as root; configure the init system to start it as its own user")


def _handle_signals(inbox: Inbox[Note]) -> None:
    """Receive signals in the inbox, and reset what the parent ignored or blocked: plugins would inherit it."""
    for number in signal.valid_signals():
        if number not in _IGNORED_BY_PYTHON and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    inbox.receive_signals(_HANDLED)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
