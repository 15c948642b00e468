"""`ductilectl check`: check the configuration, the plugins and, if asked, the whole database."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from ductile import config_report, db, runtime_config
from ductile.ctl.output import progress
from ductile.ctl.session import Session
from ductile.errors import EXIT_CONFIG, EXIT_DATA, EXIT_IO, EXIT_OK
from ductile.text import one_line


def check(session: Session, *, database: bool) -> int:
    """Show every problem, and with `database` what SQLite's full check finds.

    Return 65 if the database is damaged, else 78 if the configuration has problems, else 0.
    """
    loaded = runtime_config.read(session.config_path, session.environ)
    if session.as_json:
        code = EXIT_OK if config_report.is_good(loaded) else EXIT_CONFIG
    else:
        code = config_report.report(loaded, out=session.out, err=session.err)
    state_path = loaded.runtime.config.state_path
    findings = _findings(session, state_path) if database else None
    if session.as_json:
        session.show({"problems": loaded.problems, "faults": loaded.faults, "warnings": loaded.warnings,
                      "database": findings})
    elif database:
        _report(session, state_path, findings)
    return EXIT_DATA if findings else code


def _findings(session: Session, state_path: Path) -> list[str] | None:
    """Return what is wrong with the database, a line each; None if there is none yet."""
    conn = db.open_for_operator(state_path, failed=EXIT_IO)
    if conn is None:
        return None
    with closing(conn), progress(f"checking {one_line(str(state_path))}", session.err):
        return [one_line(line) for line in db.full_check(conn)]


def _report(session: Session, state_path: Path, findings: list[str] | None) -> None:
    if findings is None:
        session.out.write(f"ductiled has not run yet: there is no database at {state_path}\n")
    elif not findings:
        session.out.write(f"{state_path}: ok\n")
    else:
        for line in findings:
            session.err.write(f"{state_path}: {line}\n")
