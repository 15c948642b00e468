"""`ductilectl`: parse the command line and call the command.

Each command is imported in its own branch, so that a call loads only what it needs.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from ductile import db, stdio
from ductile.ctl.commandline import parse
from ductile.ctl.session import NoDatabase, Session
from ductile.errors import (
    EXIT_DOWN,
    EXIT_INTERRUPTED,
    EXIT_IO,
    EXIT_OK,
    EXIT_SYSTEM,
    EXIT_USAGE,
    DuctileError,
    io_exit_code,
)

# Commands that change nothing; `state` may, and `test` and `health` run plugins.
_READ_ONLY = frozenset({"check", "status", "plugins", "pipelines", "schedule", "queue", "jobs", "logs", "inspect",
                        "wait", "report", "complete"})


def run() -> None:
    """The entry point of `ductilectl`."""
    stdio.prepare()
    code: str | int | None
    try:
        code = main(sys.argv[1:], os.environ, out=sys.stdout, err=sys.stderr)
    except SystemExit as end:
        code = end.code
    except BrokenPipeError:
        # The reader has seen enough.
        code = EXIT_OK
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    stdio.leave()
    sys.exit(code)


def main(arguments: Sequence[str], environ: Mapping[str, str], *, out: TextIO, err: TextIO) -> int:
    """Run one command line and return the exit code.

    Raises SystemExit for --help and for an invalid command line, BrokenPipeError and KeyboardInterrupt.
    """
    doubt = ""
    try:
        options = parse(arguments, _nearest)
        session = Session(environ=environ, stdin=sys.stdin.buffer, out=out, err=err, as_json=options.json,
                          utc=options.utc, config_option=options.config)
        doubt = "" if options.name in _READ_ONLY else "; the command may have taken effect"
        code = _call(session, options)
        out.flush()
        return code
    except DuctileError as error:
        lines, code = error.lines, EXIT_IO if error.exit_code == EXIT_SYSTEM else error.exit_code
    except db.NotWritten as error:
        lines, code = (f"the database cannot be used now: {error}; nothing was changed",), EXIT_IO
    except stdio.OutputError as error:
        lines, code = (f"{error}{doubt}",), EXIT_IO
    except BrokenPipeError:
        raise
    except OSError as error:
        lines, code = (f"{error.filename or 'ductilectl'}: {error.strerror}",), io_exit_code(error)
    # The output first, if that is possible, and then the error in any case.
    with suppress(OSError):
        out.flush()
    err.write("".join(f"{stdio.as_line(line)}\n" for line in lines))
    return code


def _nearest(name: str, known: Iterable[str]) -> str:
    from ductile.validation import nearest
    return nearest(name, known)


def _call(session: Session, options: Namespace) -> int:
    try:
        return _command(session, options)
    except NoDatabase as nothing:
        session.emit({"database": None, "message": str(nothing)}, f"{nothing}\n")
        return EXIT_DOWN if options.name == "status" else EXIT_OK


def _command(session: Session, options: Namespace) -> int:
    """Import the command that was asked for and call it."""
    match options.name:
        case "init":
            from ductile.ctl.init import init
            return init(session, directory=Path(options.directory))
        case "check":
            from ductile.ctl.check import check
            return check(session, database=options.database)
        case "status":
            from ductile.ctl.status import status
            return status(session, digest=lambda: _digest(session))
        case "plugins":
            from ductile.ctl.plugin import plugins
            return plugins(session)
        case "pipelines":
            from ductile.ctl.pipelines import pipelines
            return pipelines(session, name=options.pipeline, mermaid=options.mermaid)
        case "schedule":
            from ductile.ctl.schedule import schedule
            return schedule(session, plugin=options.plugin, count=options.count)
        case "queue":
            from ductile.ctl.jobs import queue
            return queue(session, limit=options.limit)
        case "jobs":
            from ductile.ctl.jobs import jobs
            return jobs(session, status="dead" if options.failed else options.status, plugin=options.plugin,
                        pipeline=options.pipeline, since=options.since, until=options.until, limit=options.limit)
        case "logs":
            from ductile.ctl.logs import Asked, follow, logs
            asked = Asked(target=options.target, since=options.since, until=options.until, failed=options.failed,
                          grep=options.grep, limit=options.limit)
            return (follow if options.follow else logs)(session, asked=asked)
        case "report":
            if session.as_json:
                raise DuctileError("ductilectl report: --json is for commands that show a document; see ductilectl jobs"
                                   " and logs", exit_code=EXIT_USAGE)
            from ductile.ctl.report import report
            return report(session, since=options.since, output=options.output)
        case "inspect":
            from ductile.ctl.inspect import inspect
            return inspect(session, job=options.job, context=options.context)
        case "run":
            from ductile.ctl.run import run
            return run(session, plugin=options.plugin, command=options.command, payload=options.payload,
                       event_type=options.event_type, wait=options.wait)
        case "emit":
            from ductile.ctl.emit import emit
            return emit(session, event_type=options.event_type, payload=options.payload, source=options.source,
                        dry_run=options.dry_run)
        case "retry" if options.all_failed:
            from ductile.ctl.job import retry_all_failed
            if options.job is not None:
                raise DuctileError("ductilectl retry: give JOB or --all-failed, not both", exit_code=EXIT_USAGE)
            return retry_all_failed(session, plugin=options.plugin, since=options.since, ask=not options.yes)
        case "retry":
            if options.job is None or options.plugin is not None or options.since is not None:
                raise DuctileError("ductilectl retry: give JOB, or --all-failed with --plugin and --since",
                                   exit_code=EXIT_USAGE)
            from ductile.ctl.job import retry
            return retry(session, job=options.job)
        case "replay":
            from ductile.ctl.replay import replay
            return replay(session, job=options.job)
        case "cancel":
            from ductile.ctl.job import cancel
            return cancel(session, job=options.job, wait=not options.no_wait, sleep=time.sleep)
        case "pause":
            from ductile.ctl.plugin import pause
            return pause(session, plugin=options.plugin)
        case "resume":
            from ductile.ctl.plugin import resume
            return resume(session, plugin=options.plugin)
        case "reset":
            from ductile.ctl.plugin import reset
            return reset(session, plugin=options.plugin)
        case "health":
            from ductile.ctl.health import health
            return health(session, plugin=options.plugin)
        case "test":
            from ductile.ctl.plugin_test import test
            return test(session, plugin=options.plugin, command=options.command, request=options.request,
                        event=options.event, state=options.state)
        case "edit":
            from ductile.ctl.edit import edit
            return edit(session)
        case "reload":
            from ductile.ctl.reload import reload
            return reload(session, ask=not options.yes)
        case "wait":
            from ductile.ctl.wait import wait
            return wait(session, seconds=options.timeout, sleep=time.sleep)
        case "attempt":
            from ductile.ctl.attempt import attempt
            return attempt(session, directory=Path(options.directory))
        case "state":
            from ductile.ctl.state import state
            return state(session, plugin=options.plugin, file=options.file, clear=options.clear)
        case "backup":
            from ductile.ctl.backup import backup
            return backup(session, file=Path(options.file), keep=options.keep)
        case "restore":
            from ductile.ctl.restore import restore
            return restore(session, file=Path(options.file))
        case "new-plugin":
            from ductile.ctl.new_plugin import new_plugin
            return new_plugin(session, name=options.plugin, language=options.language,
                              parent=None if options.directory is None else Path(options.directory))
        case "webhook" if options.action == "test":
            from ductile.ctl.webhook import test as webhook_test
            if options.preset is None:
                raise DuctileError("ductilectl webhook test: give the PATH of an endpoint", exit_code=EXIT_USAGE)
            return webhook_test(session, path=options.preset, payload=options.payload)
        case "webhook":
            from ductile.ctl.webhook import presets
            return presets(session, name=options.preset)
        case "completion":
            from ductile.ctl.completion import completion
            return completion(session, shell=options.shell)
        case "monitor":
            return _monitor(session, options)
        case _:
            from ductile.ctl.completion import complete
            return complete(session, words=options.words)


def _digest(session: Session) -> str:
    """Return the digest of all files on disk. Raises DuctileError (78)."""
    from ductile import runtime_config
    return runtime_config.read(session.config_path, session.environ, keep_unset=True).runtime.digest


def _monitor(session: Session, options: Namespace) -> int:
    from ductile.ctl.monitor.watch import monitor
    if session.as_json:
        raise DuctileError("ductilectl monitor: --json is for commands that show a document; see ductilectl status",
                           exit_code=EXIT_USAGE)
    where = [*(() if options.config is None else ("-c", options.config)), *(("--utc",) if session.utc else ())]

    def command(arguments: Sequence[str], out: TextIO) -> int:
        return main([*where, *arguments], session.environ, out=out, err=out)

    with session.reading() as conn:
        # Not the session's configuration, which is read once.
        return monitor(conn, state_path=session.state_path, plugins=lambda: replace(session).config.plugins,
                       command=command, environ=session.environ, now=session.now, zone=session.zone)
