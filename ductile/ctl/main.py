"""`ductilectl`: reads the command line, loads the one command that was asked for and calls it.

Commands are imported when they are called: `status` is to take no longer than a few starts of Python.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from importlib import import_module
from io import TextIOBase
from pathlib import Path

from ductile import db, stdio
from ductile.config import find
from ductile.ctl.commandline import parse
from ductile.errors import (
    EXIT_CONFIG,
    EXIT_INTERRUPTED,
    EXIT_IO,
    EXIT_OK,
    EXIT_PERMISSION,
    EXIT_SYSTEM,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    DuctileError,
    io_exit_code,
)

_LOOK_SECONDS = 0.5    # between two looks of `logs -f`
# The commands that never leave anything changed behind them; `state` may, and `test` and `health` run plugins.
_READ_ONLY = frozenset({"check", "status", "plugins", "pipelines", "queue", "logs", "inspect", "wait", "complete"})

Options = Namespace


def run() -> None:
    """The entry point of `ductilectl`."""
    stdio.prepare()
    try:
        code = main(sys.argv[1:], os.environ, out=sys.stdout, err=sys.stderr)
    except SystemExit as end:
        code = end.code
    except BrokenPipeError:
        # Whoever read has seen enough.
        code = EXIT_OK
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    stdio.leave()
    sys.exit(code)


def main(arguments: Sequence[str], environ: Mapping[str, str], *, out: TextIOBase, err: TextIOBase) -> int:
    """Do what the command line says and return the exit code.

    Raises SystemExit for --help and for a command line that is wrong, BrokenPipeError and KeyboardInterrupt.
    """
    doubt = ""
    try:
        options = parse(arguments, lambda name, known: _module("validation").nearest(name, known))
        options.environ, options.out, options.err = environ, out, err
        doubt = "" if options.name in _READ_ONLY else "; what was asked may have been done"
        code = _ACTS[options.name](options)
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
    # What went wrong is said, and in that order where it can be, whatever becomes of the rest.
    with suppress(OSError):
        out.flush()
    err.write("".join(f"{stdio.as_line(line)}\n" for line in lines))
    return code


# What the commands need

def _module(name: str) -> object:
    return import_module(f"ductile.{name}")


def _path(options: Options) -> Path:
    return find.find(options.config, options.environ, denied=EXIT_PERMISSION)


def _state_path(options: Options) -> Path:
    """Return where the database is. Raises DuctileError (78) where the configuration does not say."""
    return _database_and_plugins(options)[0]


def _database_and_plugins(options: Options) -> tuple[Path, Mapping[str, object]]:
    """Return the path of the database, and the configured plugins; none if the configuration is not valid YAML."""
    path = _path(options)
    try:
        loaded = _loaded(options, path)
    except DuctileError as error:
        state_path = find.state_path(path)
        if state_path is None:
            raise
        options.err.write(f"warning: {stdio.as_line(error.lines[0])}; using the database {state_path}\n")
        return state_path, {}
    wrong = [loaded.locate(problem) for problem in loaded.problems if problem.path in (("state",), ("state", "path"))]
    if wrong:
        raise DuctileError(*wrong, exit_code=EXIT_CONFIG)
    return loaded.config.state_path, loaded.config.plugins


def _loaded(options: Options, path: Path) -> object:
    return _module("config.load").load(path, options.environ, keep_unset=True)


def _runtime(options: Options) -> object:
    return _module("ctl.lookup").read(_path(options), options.environ).runtime


def _now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return str(import_module("uuid").uuid4())


def _nothing_yet(state_path: Path) -> str:
    return f"ductiled has not run yet: there is no database at {state_path}"


def _look(options: Options, act: Callable[[sqlite3.Connection, Path], int], state_path: Path | None = None) -> int:
    """Call a command that reads the database; without one, say so."""
    state_path = state_path or _state_path(options)
    conn = db.open_for_operator(state_path, failed=EXIT_IO)
    if conn is None:
        text = _nothing_yet(state_path)
        options.out.write(_module("ctl.output").document({"database": None, "message": text}) if options.json
                          else f"{text}\n")
        return EXIT_OK
    with closing(conn), db.database_errors(conn):
        return act(conn, state_path)


def _change(options: Options, state_path: Path, act: Callable[[sqlite3.Connection], int]) -> int:
    """Call a command that writes to the database. Raises DuctileError (69) where there is none."""
    conn = db.open_for_operator(state_path, failed=EXIT_IO)
    if conn is None:
        raise DuctileError(_nothing_yet(state_path), exit_code=EXIT_UNAVAILABLE)
    with closing(conn), db.database_errors(conn):
        return act(conn)


def _page(options: Options) -> object:
    """Return what tables are written on."""
    if options.out.isatty():
        return _module("ctl.output").terminal(options.out, options.environ, _now())
    return _module("ctl.table").PLAIN


# The commands

def _init(options: Options) -> int:
    return _module("ctl.init").init(Path(options.directory), as_json=options.json, out=options.out,
                                      err=options.err)


def _check(options: Options) -> int:
    return _module("ctl.check").check(_path(options), options.environ, database=options.database, as_json=options.json,
                                      out=options.out, err=options.err)


def _status(options: Options) -> int:
    state_path, plugins = _database_and_plugins(options)
    return _look(options, lambda conn, _: _module("ctl.status").status(
        conn, state_path=state_path, plugins=plugins, now=_now(), as_json=options.json, out=options.out,
        page=_page(options)), state_path)


def _plugins(options: Options) -> int:
    return _module("ctl.plugin").plugins(_runtime(options), as_json=options.json, out=options.out, page=_page(options))


def _pipelines(options: Options) -> int:
    module = _module("ctl.pipelines")
    if options.pipeline is None:
        if options.mermaid:
            raise DuctileError("ductilectl pipelines: --mermaid is for one pipeline: give its NAME",
                               exit_code=EXIT_USAGE)
        return module.pipelines(_runtime(options), as_json=options.json, out=options.out, page=_page(options))
    return module.pipeline(_runtime(options), name=options.pipeline, mermaid=options.mermaid, as_json=options.json,
                           out=options.out)


def _queue(options: Options) -> int:
    return _look(options, lambda conn, _: _module("ctl.job").queue(
        conn, limit=options.limit, now=_now(), as_json=options.json, out=options.out, page=_page(options)))


def _logs(options: Options) -> int:
    module = _module("ctl.logs")
    state_path, known = _database_and_plugins(options)
    what = {"plugin": options.plugin, "known": known, "limit": options.limit, "as_json": options.json,
            "out": options.out}
    if options.follow:
        what["goes_on"] = lambda: module.has_reader(options.out.fileno(), _LOOK_SECONDS)
    act = module.follow if options.follow else module.logs
    return _look(options, lambda conn, _: act(conn, **what), state_path)


def _inspect(options: Options) -> int:
    return _look(options, lambda conn, _: _module("ctl.inspect").inspect(
        conn, job=options.job, as_json=options.json, out=options.out))


def _run(options: Options) -> int:
    runtime = _runtime(options)
    state_path = runtime.config.state_path
    return _change(options, state_path, lambda conn: _module("ctl.run").run(
        conn, plugin=options.plugin, command=options.command, payload=options.payload, event_type=options.event_type,
        wait=options.wait, runtime=runtime, state_path=state_path, now=_now(), new_id=_new_id, as_json=options.json,
        out=options.out, err=options.err))


def _emit(options: Options) -> int:
    runtime = _runtime(options)
    state_path = runtime.config.state_path
    return _change(options, state_path, lambda conn: _module("ctl.emit").emit(
        conn, event_type=options.event_type, payload=options.payload, source=options.source, runtime=runtime,
        state_path=state_path, now=_now(), new_id=_new_id, as_json=options.json, out=options.out, err=options.err))


def _retry(options: Options) -> int:
    runtime = _runtime(options)
    state_path = runtime.config.state_path
    return _change(options, state_path, lambda conn: _module("ctl.job").retry(
        conn, job=options.job, runtime=runtime, state_path=state_path, now=_now(), as_json=options.json, out=options.out,
        err=options.err))


def _replay(options: Options) -> int:
    runtime = _runtime(options)
    state_path = runtime.config.state_path
    return _change(options, state_path, lambda conn: _module("ctl.replay").replay(
        conn, job=options.job, runtime=runtime, state_path=state_path, now=_now(), new_id=_new_id, as_json=options.json,
        out=options.out, err=options.err))


def _cancel(options: Options) -> int:
    state_path = _state_path(options)
    return _change(options, state_path, lambda conn: _module("ctl.job").cancel(
        conn, job=options.job, state_path=state_path, now=_now(), as_json=options.json, out=options.out,
        err=options.err))


def _reset(options: Options) -> int:
    runtime = _runtime(options)
    state_path = runtime.config.state_path
    return _change(options, state_path, lambda conn: _module("ctl.plugin").reset(
        conn, plugin=options.plugin, runtime=runtime, state_path=state_path, now=_now(), new_id=_new_id,
        as_json=options.json, out=options.out, err=options.err))


def _health(options: Options) -> int:
    runtime = _module("ctl.lookup").read(_path(options), options.environ, keep_unset=False).runtime
    what = {"plugin": options.plugin, "world": runtime, "clock": _module("clock").SystemClock(), "new_id": _new_id,
            "as_json": options.json, "out": options.out, "err": options.err, "page": _page(options)}
    conn = db.open_for_operator(runtime.config.state_path, failed=EXIT_IO)
    if conn is None:
        return _module("ctl.health").health(None, **what)
    with closing(conn), db.database_errors(conn):
        return _module("ctl.health").health(conn, **what)


def _reload(options: Options) -> int:
    reading = _module("ctl.lookup").read(_path(options), options.environ)
    confirm = None if options.yes else _module("ctl.question").on_terminal(sys.stdin.buffer, options.err)
    return _change(options, reading.runtime.config.state_path, lambda conn: _module("ctl.reload").reload(
        conn, reading=reading, confirm=confirm, clock=_module("clock").SystemClock(), as_json=options.json,
        out=options.out, err=options.err))


def _wait(options: Options) -> int:
    return _module("ctl.wait").wait(state_path=_state_path(options), seconds=options.timeout,
                                    clock=_module("clock").SystemClock(), sleep=time.sleep, as_json=options.json,
                                    out=options.out)


def _test(options: Options) -> int:
    trial = _module("ctl.plugin_test")
    asked = trial.read_request(command=options.command, request=options.request, event=options.event, state=options.state,
                      stdin=sys.stdin.buffer, now=_now(), new_id=_new_id)
    if trial.is_directory(options.plugin):
        subject = trial.in_directory(Path(options.plugin), options.environ)
    else:
        subject = trial.in_configuration(_path(options), options.environ, options.plugin)
    return trial.test_plugin(subject, asked, clock=_module("clock").SystemClock(), new_id=_new_id, as_json=options.json,
                             out=options.out, err=options.err)


def _new_plugin(options: Options) -> int:
    parent = _loaded(options, _path(options)).config.plugins_dirs[0] if options.directory is None \
        else Path(options.directory)
    return _module("ctl.new_plugin").new_plugin(options.plugin, language=options.language, parent=parent,
                                              as_json=options.json, out=options.out)


def _backup(options: Options) -> int:
    state_path = _state_path(options)
    return _change(options, state_path, lambda conn: _module("ctl.backup").backup(
        conn, file=Path(options.file), keep=options.keep, state_path=state_path, now=_now(), as_json=options.json,
        out=options.out, err=options.err))


def _restore(options: Options) -> int:
    return _module("ctl.restore").restore(
        file=Path(options.file), state_path=_state_path(options), now=_now(), as_json=options.json, out=options.out,
        err=options.err)


def _complete(options: Options) -> int:
    module = _module("ctl.lookup")
    if options.kind == "plugins":
        return module.names(_loaded(options, _path(options)).config.plugins, prefix=options.prefix, out=options.out)
    if options.kind == "pipelines":
        return module.names(_runtime(options).router.pipelines, prefix=options.prefix, out=options.out)
    conn = db.open_for_operator(_state_path(options), failed=EXIT_IO)
    if conn is None:
        return EXIT_OK
    with closing(conn), db.database_errors(conn):
        return module.jobs(conn, kind=options.kind, prefix=options.prefix, out=options.out)


def _state(options: Options) -> int:
    module = _module("ctl.state")
    known = _loaded(options, _path(options)).config.plugins
    what = {"plugin": options.plugin, "known": known, "out": options.out}
    if options.file is not None:
        state = module.read(options.file, sys.stdin.buffer)
        return _change(options, _state_path(options), lambda conn: module.put(
            conn, state=state, now=_now(), as_json=options.json, **what))
    if options.clear:
        return _change(options, _state_path(options), lambda conn: module.clear(conn, as_json=options.json, **what))
    return _look(options, lambda conn, _: module.show(conn, **what))


def _monitor(options: Options) -> int:
    if options.json:
        raise DuctileError("ductilectl monitor: --json is for commands that show a document; see ductilectl status",
                           exit_code=EXIT_USAGE)
    where = [] if options.config is None else ["-c", options.config]
    return _look(options, lambda conn, state_path: _module("ctl.monitor.watch").monitor(
        conn, state_path=state_path, plugins=lambda: _loaded(options, _path(options)).config.plugins,
        command=lambda arguments, said: main([*where, *arguments], options.environ, out=said, err=said),
        environ=options.environ, now=_now))


_ACTS: Mapping[str, Callable[[Options], int]] = {
    "init": _init, "check": _check, "status": _status, "plugins": _plugins, "pipelines": _pipelines, "queue": _queue,
    "run": _run, "emit": _emit, "logs": _logs, "inspect": _inspect, "retry": _retry, "replay": _replay,
    "cancel": _cancel, "reset": _reset, "health": _health, "test": _test, "reload": _reload, "wait": _wait,
    "state": _state, "backup": _backup, "restore": _restore, "new-plugin": _new_plugin,
    "monitor": _monitor, "complete": _complete,
}
