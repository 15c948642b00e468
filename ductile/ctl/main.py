"""`ductilectl`: reads the command line, loads the one command that was asked for and calls it.

Commands are imported when they are called: `status` is to take no longer than a few starts of Python.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timezone
from importlib import import_module
from io import TextIOBase
from pathlib import Path

from ductile import db
from ductile.config import place
from ductile.ctl.commandline import parse
from ductile.errors import (
    EXIT_CONFIG, EXIT_INTERRUPTED, EXIT_IO, EXIT_OK, EXIT_PERMISSION, EXIT_SYSTEM, EXIT_UNAVAILABLE, DuctileError,
)

_LOOK_SECONDS = 0.5    # between two looks of `logs -f`

Options = Namespace


def run() -> None:
    """The entry point of `ductilectl`."""
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr.reconfigure(errors="backslashreplace")
    try:
        try:
            code = main(sys.argv[1:], os.environ, out=sys.stdout, err=sys.stderr)
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough. Python would complain when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_OK
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except OSError as error:
        sys.stderr.write(f"cannot write: {error.strerror}\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_IO
    sys.exit(code)


def main(arguments: Sequence[str], environ: Mapping[str, str], *, out: TextIOBase, err: TextIOBase) -> int:
    """Do what the command line says and return the exit code.

    Raises SystemExit for --help and for a command line that is wrong, BrokenPipeError and KeyboardInterrupt.
    """
    options = parse(arguments)
    options.environ, options.out, options.err = environ, out, err
    try:
        code = _ACTS[options.name](options)
        out.flush()
        return code
    except DuctileError as error:
        lines, code = error.lines, EXIT_IO if error.exit_code == EXIT_SYSTEM else error.exit_code
    except db.NotWritten as error:
        lines, code = (f"the database cannot be used now: {error}; nothing was changed",), EXIT_IO
    except BrokenPipeError:
        raise
    except PermissionError as error:
        lines, code = (f"{error.filename or 'ductilectl'}: {error.strerror}",), EXIT_PERMISSION
    except OSError as error:
        lines, code = (f"{error.filename or 'ductilectl'}: {error.strerror}",), EXIT_IO
    out.flush()
    err.write("".join(f"{line}\n" for line in lines))
    return code


# What the commands need

def _module(name: str) -> object:
    return import_module(f"ductile.{name}")


def _path(options: Options) -> Path:
    # Not Path.home(), which raises where there is no home.
    return place.find(options.config, options.environ, home=Path(os.path.expanduser("~")))


def _state_path(options: Options) -> Path:
    """Return where the database is. Raises DuctileError (78) where the configuration does not say."""
    path = _path(options)
    at_a_glance = place.state_path(path)
    if at_a_glance is not None:
        return at_a_glance
    loaded = _loaded(options, path)
    wrong = [loaded.locate(problem) for problem in loaded.problems if problem.path in (("state",), ("state", "path"))]
    if wrong:
        raise DuctileError(*wrong, exit_code=EXIT_CONFIG)
    return loaded.config.state_path


def _loaded(options: Options, path: Path) -> object:
    return _module("config.load").load(path, options.environ, keep_unset=True)


def _world(options: Options) -> object:
    return _module("ctl.configured").read(_path(options), options.environ).world


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _new_id() -> str:
    return str(import_module("uuid").uuid4())


def _nothing_yet(state_path: Path) -> str:
    return f"ductiled has not run yet: there is no database at {state_path}"


def _look(options: Options, act: Callable[[sqlite3.Connection, Path], int]) -> int:
    """Call a command that reads the database; without one, say so."""
    state_path = _state_path(options)
    conn = db.open_for_operator(state_path, failed=EXIT_IO)
    if conn is None:
        text = _nothing_yet(state_path)
        options.out.write(_module("ctl.document").document({"database": None, "message": text}) if options.json
                          else f"{text}\n")
        return EXIT_OK
    with closing(conn), db.reading(conn):
        return act(conn, state_path)


def _change(options: Options, state_path: Path, act: Callable[[sqlite3.Connection], int]) -> int:
    """Call a command that writes to the database. Raises DuctileError (69) where there is none."""
    conn = db.open_for_operator(state_path, failed=EXIT_IO)
    if conn is None:
        raise DuctileError(_nothing_yet(state_path), exit_code=EXIT_UNAVAILABLE)
    with closing(conn), db.reading(conn):
        return act(conn)


# The commands

def _init(options: Options) -> int:
    return _module("ctl.starter").init(Path(options.directory), out=options.out)


def _check(options: Options) -> int:
    return _module("ctl.check").check(_path(options), options.environ, database=options.database, as_json=options.json,
                                      out=options.out, err=options.err)


def _status(options: Options) -> int:
    def reset_after() -> dict[str, int]:
        plugins = _loaded(options, _path(options)).config.plugins
        return {name: settings.breaker.reset_after for name, settings in plugins.items()}

    document = _module("ctl.document").document if options.json else None
    return _look(options, lambda conn, state_path: _module("ctl.status").status(
        conn, state_path=state_path, reset_after=reset_after, now=_now(), document=document, out=options.out))


def _plugins(options: Options) -> int:
    return _module("ctl.plugin").plugins(_world(options), as_json=options.json, out=options.out)


def _queue(options: Options) -> int:
    return _look(options, lambda conn, _: _module("ctl.job").queue(
        conn, limit=options.limit, now=_now(), as_json=options.json, out=options.out))


def _logs(options: Options) -> int:
    module = _module("ctl.logs")
    what = {"plugin": options.plugin, "limit": options.limit, "as_json": options.json, "out": options.out}
    if not options.follow:
        return _look(options, lambda conn, _: module.logs(conn, **what))
    return _look(options, lambda conn, _: module.follow(
        conn, goes_on=lambda: module.has_reader(options.out.fileno(), _LOOK_SECONDS), **what))


def _inspect(options: Options) -> int:
    return _look(options, lambda conn, _: _module("ctl.inspect").inspect(
        conn, job=options.job, as_json=options.json, out=options.out))


def _run(options: Options) -> int:
    world = _world(options)
    state_path = world.config.state_path
    return _change(options, state_path, lambda conn: _module("ctl.run").run(
        conn, plugin=options.plugin, command=options.command, payload=options.payload, event_type=options.event_type,
        wait=options.wait, world=world, state_path=state_path, now=_now(), new_id=_new_id, as_json=options.json,
        out=options.out, err=options.err))


def _emit(options: Options) -> int:
    world = _world(options)
    state_path = world.config.state_path
    return _change(options, state_path, lambda conn: _module("ctl.emit").emit(
        conn, event_type=options.event_type, payload=options.payload, source=options.source, world=world,
        state_path=state_path, now=_now(), new_id=_new_id, as_json=options.json, out=options.out, err=options.err))


def _retry(options: Options) -> int:
    world = _world(options)
    state_path = world.config.state_path
    return _change(options, state_path, lambda conn: _module("ctl.job").retry(
        conn, job=options.job, world=world, state_path=state_path, now=_now(), as_json=options.json, out=options.out,
        err=options.err))


def _cancel(options: Options) -> int:
    state_path = _state_path(options)
    return _change(options, state_path, lambda conn: _module("ctl.job").cancel(
        conn, job=options.job, state_path=state_path, now=_now(), as_json=options.json, out=options.out,
        err=options.err))


def _reset(options: Options) -> int:
    world = _world(options)
    state_path = world.config.state_path
    return _change(options, state_path, lambda conn: _module("ctl.plugin").reset(
        conn, plugin=options.plugin, world=world, state_path=state_path, now=_now(), new_id=_new_id,
        as_json=options.json, out=options.out, err=options.err))


def _health(options: Options) -> int:
    world = _module("ctl.configured").read(_path(options), options.environ, keep_unset=False).world
    what = {"plugin": options.plugin, "world": world, "clock": _module("clock").SystemClock(), "new_id": _new_id,
            "as_json": options.json, "out": options.out}
    conn = db.open_for_operator(world.config.state_path, failed=EXIT_IO)
    if conn is None:
        return _module("ctl.health").health(None, **what)
    with closing(conn), db.reading(conn):
        return _module("ctl.health").health(conn, **what)


def _reload(options: Options) -> int:
    reading = _module("ctl.configured").read(_path(options), options.environ)
    return _change(options, reading.world.config.state_path, lambda conn: _module("ctl.reload").reload(
        conn, reading=reading, clock=_module("clock").SystemClock(), as_json=options.json, out=options.out,
        err=options.err))


def _state(options: Options) -> int:
    module = _module("ctl.state")
    known = _loaded(options, _path(options)).config.plugins
    what = {"plugin": options.plugin, "known": known, "out": options.out}
    if options.file is not None:
        state = module.read(options.file, sys.stdin.buffer)
        return _change(options, _state_path(options), lambda conn: module.put(conn, state=state, now=_now(), **what))
    if options.clear:
        return _change(options, _state_path(options), lambda conn: module.clear(conn, **what))
    return _look(options, lambda conn, _: module.show(conn, **what))


_ACTS: Mapping[str, Callable[[Options], int]] = {
    "init": _init, "check": _check, "status": _status, "plugins": _plugins, "queue": _queue, "run": _run, "emit": _emit,
    "logs": _logs, "inspect": _inspect, "retry": _retry, "cancel": _cancel, "reset": _reset, "health": _health,
    "reload": _reload, "state": _state,
}
