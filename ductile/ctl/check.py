"""`ductilectl check`: the configuration, the plugins and, if asked, the whole database."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from io import TextIOBase
from pathlib import Path

from ductile import config_report, db, runtime_config
from ductile.ctl.output import document, progress
from ductile.errors import EXIT_CONFIG, EXIT_DATA, EXIT_IO, EXIT_OK
from ductile.text import one_line


def check(path: Path, environ: Mapping[str, str], *, database: bool, as_json: bool, out: TextIOBase,
          err: TextIOBase) -> int:
    """Show everything that is wrong, and with `database` what SQLite's full check finds. Return the exit code.

    Damage (65) comes before what is wrong with the configuration (78).
    """
    reading = runtime_config.read(path, environ)
    if as_json:
        code = EXIT_OK if config_report.is_good(reading) else EXIT_CONFIG
    else:
        code = config_report.report(reading, out=out, err=err)
    state_path = reading.runtime.config.state_path
    findings = _findings(state_path, err) if database else None
    if as_json:
        out.write(document({"problems": reading.problems, "faults": reading.faults,
                                  "warnings": reading.warnings, "database": findings}))
    elif database:
        _tell(state_path, findings, out, err)
    return EXIT_DATA if findings else code


def _findings(state_path: Path, err: TextIOBase) -> list[str] | None:
    """Return what is wrong with the database, a line each; None where there is none yet."""
    conn = db.open_for_operator(state_path, failed=EXIT_IO)
    if conn is None:
        return None
    with closing(conn), progress(f"checking {one_line(str(state_path))}", err):
        return [one_line(line) for line in db.full_check(conn)]


def _tell(state_path: Path, findings: list[str] | None, out: TextIOBase, err: TextIOBase) -> None:
    if findings is None:
        out.write(f"ductiled has not run yet: there is no database at {state_path}\n")
    elif not findings:
        out.write(f"{state_path}: ok\n")
    else:
        for line in findings:
            err.write(f"{state_path}: {line}\n")
