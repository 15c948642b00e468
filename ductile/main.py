"""`ductiled`: read the command line and the configuration, take the lock, detach, run the loop."""

from __future__ import annotations

import argparse
import gc
import os
import random
import signal
import sqlite3
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import ductile
from ductile import config_report, daemon_run_table, db, log, runtime_config, stdio
from ductile.arguments import Parser
from ductile.clock import SystemClock
from ductile.config.find import find
from ductile.config.model import Config, detached_log, run_locks
from ductile.daemon import STOP_SIGNALS, Daemon, Signal
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
from ductile.memory import give_large_blocks_back
from ductile.pidfile import PidLock, pid_file
from ductile.runtime_config import ConfigSource
from ductile.sdnotify import Notifier
from ductile.workspace.manager import Workspaces

_HANDLED = (*STOP_SIGNALS, signal.SIGHUP, signal.SIGUSR1)
# Python itself ignores these, and gives them back to the plugins it starts.
_LEFT_ALONE = (signal.SIGPIPE, signal.SIGXFSZ)
# How long the end waits for a reader of the log that is slow.
_LAST_LINES_SECONDS = 0.5

_RESCUE_AGAIN_SECONDS = 5.0

_log = log.Component("daemon")


def run() -> None:
    """The entry point of `ductiled`."""
    stdio.prepare()
    try:
        exit_code = main(sys.argv[1:], dict(os.environ))
    except SystemExit as end:
        exit_code = end.code
    except KeyboardInterrupt:
        # While it was ending anyway.
        exit_code = EXIT_INTERRUPTED
    log.close(_LAST_LINES_SECONDS)
    # Python gives handled signals their deadly meaning back before it has ended.
    for number in _HANDLED:
        signal.signal(number, signal.SIG_IGN)
    stdio.leave()
    sys.exit(exit_code)


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the daemon and return its exit code. Raises SystemExit for --help and for a command line that is wrong."""
    report = None
    try:
        options = _parser().parse_args(arguments)
        if options.daemon and not options.check and environ.get("NOTIFY_SOCKET"):
            raise DuctileError("-d cannot be used under systemd's Type=notify: leave it out there",
                               exit_code=EXIT_USAGE)
        path = find(options.config, environ, denied=EXIT_CONFIG)
        if options.check:
            return _check(path, environ)
        reading = runtime_config.build(path, environ)
        stdout = _log_without_terminal(reading.runtime.config) if options.daemon else "stdout"
        # Absolute, because a daemon leaves its working directory and may read it again.
        source = ConfigSource(path=path.absolute(), environ=environ, stdout=stdout)
        report = _detach() if options.daemon else None
        serve(reading, source, report)
        return EXIT_OK
    except DuctileError as error:
        exit_code, lines = error.exit_code, tuple(map(stdio.as_line, error.lines))
    except stdio.OutputError as error:
        exit_code, lines = EXIT_SYSTEM, (str(error),)
    except KeyboardInterrupt:
        exit_code, lines = EXIT_INTERRUPTED, ("interrupted before ductiled was ready",)
    except Exception as error:
        exit_code, lines = EXIT_FAILED, tuple("".join(traceback.format_exception(error)).splitlines())
    _tell(report, exit_code, lines)
    return exit_code


def _check(path: Path, environ: Mapping[str, str]) -> int:
    """Tell what is wrong. Raises OutputError, and DuctileError (130) for an interrupt and as `runtime_config.read` does."""
    try:
        return config_report.report(runtime_config.read(path, environ), out=sys.stdout, err=sys.stderr)
    except BrokenPipeError:
        # Whoever read has seen enough; only that all is well goes to standard output.
        return EXIT_OK
    except KeyboardInterrupt as interrupt:
        raise DuctileError("interrupted before all was checked", exit_code=EXIT_INTERRUPTED) from interrupt


def _log_without_terminal(config: Config) -> str | Path:
    """Return what `log: stdout` means to a detached daemon; a file is named on the terminal.

    Raises DuctileError (71) where the file's directory cannot be made.
    """
    if log.has_syslog():
        return "syslog"
    file = detached_log(config.state_path)
    if config.service.log == "stdout":
        db.make_directory(config.state_path)
        print(stdio.as_line(f"there is no syslog (/dev/log): the log goes to {file}"), file=sys.stderr)
    return file


def _detach() -> Any:
    """Go on as a daemon, and return what tells the command that waits; imported when it is asked for: 0.5 MiB."""
    return import_module("ductile.detach").detach()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ductiled", description="Run plugins on schedule and on events.", allow_abbrev=False)
    parser.add_argument("-c", "--config", metavar="PATH", help="a config.yaml, or the directory that holds it")
    parser.add_argument("-d", "--daemon", action="store_true", help="detach from the terminal")
    parser.add_argument("-t", "--check", action="store_true", help="check everything, print every problem, exit")
    parser.add_argument("--version", action="version", version=f"ductiled {ductile.__version__}")
    return parser


def _tell(report: Any, exit_code: int, lines: tuple[str, ...]) -> None:
    """Say why the daemon ends: on the terminal or to the command that waits, and in the log where there is one."""
    for line in lines:
        _log.error(line)
    if report is not None:
        report.failed(exit_code, lines)
        return
    for line in lines:
        print(line, file=sys.stderr)


def serve(reading: runtime_config.LoadResult, source: ConfigSource, report: Any) -> None:
    """Start in the promised order and run until asked to stop. Raises DuctileError where that cannot be."""
    config = reading.runtime.config
    clock = SystemClock()
    started = clock.monotonic()
    source.open_log(config).use()
    _warn(reading)
    inbox: SimpleQueue = SimpleQueue()
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
            # Only now: a PID proves that there is a database, and who reads it finds no row of an earlier run that had
            # the same one.
            lock.write()
            ignore_existing_children()
            become_subreaper()
            give_large_blocks_back()
            daemon = Daemon(
                reading.runtime, conn, clock=clock, rng=random.Random(), new_id=lambda: str(uuid.uuid4()),
                workspaces=workspaces, locks=RunLocks(run_locks(config.state_path)),
                notifier=notifier, inbox=inbox, source=source,
            )
            daemon.prepare()
            _record_run(conn, config.state_path, lambda: daemon_run_table.ready(conn, clock.now()))
            _log.info("ready", version=ductile.__version__, pid=os.getpid(), config=str(reading.path),
                      seconds=round(clock.monotonic() - started, 3))
            notifier.send(READY="1", STATUS="running")
            if report is not None:
                report.ready()
            # What was made until now stays for good: the collector need not walk it again.
            gc.freeze()
            log.hold()
            daemon.run()
            # Where nothing was written since, this connection is still the last that has it.
            db.refuse_replaced()
    except db.Replaced as lost:
        raise _rescued(lost, conn, inbox, notifier) from lost
    finally:
        conn.close()
    # After an error the PID file stays as it is, which proves an unclean stop to the next start.
    lock.release()
    _log.info("stopped")


def _rescued(lost: db.Replaced, conn: sqlite3.Connection, inbox: SimpleQueue, notifier: Notifier) -> DuctileError:
    """Save what the open connection still has, and return what to tell the operator.

    As long as it cannot be saved, for want of room, it is tried again until a signal asks for the end: it ends with
    this process.
    """
    told = False
    while True:
        notifier.send(WATCHDOG="1")
        try:
            file = lost.files.rescue(conn, SystemClock().now(), lambda: notifier.send(WATCHDOG="1"))
            return DuctileError(f"{lost}; all that the database held is in {file}: put it back with"
                                f" `ductilectl restore {file}`", exit_code=EXIT_DATA)
        except (OSError, sqlite3.Error) as error:
            why = str(error)
        if not told:
            _log.error(f"{lost}, and what it held cannot be saved; ductiled tries again until you stop it", error=why)
            log.flush()
            told = True
        try:
            note = inbox.get(timeout=_RESCUE_AGAIN_SECONDS)
        except Empty:
            continue
        if isinstance(note, Signal) and note.number in STOP_SIGNALS:
            return DuctileError(f"{lost}, and what it held could not be saved: {why}", exit_code=EXIT_DATA)


def _record_run(conn: sqlite3.Connection, database: Path, write: Callable[[], None]) -> None:
    """Store what `ductilectl wait` looks for. Raises DuctileError (71)."""
    try:
        with db.transaction(conn):
            write()
    except db.NotWritten as error:
        raise DuctileError(f"cannot write the database {database}: {error}", exit_code=EXIT_SYSTEM) from error


def _warn(reading: runtime_config.LoadResult) -> None:
    for line in reading.warnings:
        _log.warn(line)
    for line in reading.faults:
        _log.error(line)
    if os.geteuid() == 0:
        _log.warn("ductiled runs as root, and so do its plugins; let the init system start it as a user of its own")


def _handle_signals(inbox: SimpleQueue) -> None:
    """Turn signals into notes, and undo what the starting shell ignored or blocked: plugins inherit it."""
    for number in signal.valid_signals():
        if number not in _LEFT_ALONE and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    for number in _HANDLED:
        signal.signal(number, lambda received, frame: inbox.put(Signal(number=received, at=time.monotonic())))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
