"""`ductilectl attempt`: one attempt of a job for another engine, as `ductile.embed` makes it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ductile import embed
from ductile.ctl.inputs import as_object, label, read_json
from ductile.ctl.output import deferred_signals
from ductile.ctl.session import Session
from ductile.errors import EXIT_DATA, EXIT_OK, DuctileError
from ductile.state.merge import check_size

_STDIN = "-"


def attempt(session: Session, *, directory: Path) -> int:
    """Read `{"job": …, "state": …}`, run the attempt in `directory`, and write its result.

    A signal that ends this program ends the plugin first, and the result says so. Raises DuctileError: 65 for other
    input, and as `embed.open_site` and `embed.attempt` do.
    """
    given = as_object(read_json(_STDIN, session.stdin), label(_STDIN))
    job, state = _object(given, "job"), _object(given, "state")
    fault = check_size(state)
    if fault is not None:
        raise DuctileError(f"{label(_STDIN)}: {fault}", exit_code=EXIT_DATA)
    # The locks are of this process alone.
    running = directory / f"running-{os.getpid()}"
    try:
        with deferred_signals() as received:
            site = embed.open_site(session.config_path, directory, session.environ, running=running)
            session.show(embed.attempt(site, job, state, is_stopped=lambda: bool(received)))
            session.out.flush()
    finally:
        _remove(running)
    return EXIT_OK


def _object(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = given.get(key, {})
    if not isinstance(found, Mapping):
        raise DuctileError(f"{label(_STDIN)}: {key!r} is not an object", exit_code=EXIT_DATA)
    return found


def _remove(running: Path) -> None:
    """Remove the directory of the locks; a lock of processes that could not be killed stays."""
    try:
        (running / "current").unlink()
        running.rmdir()
    except OSError:
        return
