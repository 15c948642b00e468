"""`edit`: the configuration is replaced whole by a valid one, or not at all."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from ctl.desk import Desk, start
from ductile.ctl.edit import edit
from ductile.errors import DuctileError
from support.daemon import RealDaemon

SECRET = {"HOME": "/", "PATH": os.defpath}


class OnTerminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


class Shown(io.StringIO):
    def isatty(self) -> bool:
        return True


def editor(home: Path, *programs: str) -> dict[str, str]:
    """Return an environment whose editor runs one of the programs each time, on $1."""
    for number, program in enumerate(programs):
        (home / f"edit-{number}").write_text(f'#!/bin/sh\nset -e\n{program}\n')
    script = home / "editor"
    script.write_text(f'#!/bin/sh\nn=$(cat {home}/count 2>/dev/null || echo 0)\necho $((n + 1)) >{home}/count\n'
                      f'exec sh {home}/edit-$n "$1"\n')
    script.chmod(0o755)
    return {**SECRET, "EDITOR": str(script)}


NAMED = """sed -i 's/"plugins_dir"/"service": {"name": "mine"}, "plugins_dir"/' "$1" """
BROKEN = """echo 'what: 1' >"$1" """


def names(desk: Desk) -> list[str]:
    return sorted(path.name for path in desk.home.iterdir() if path.name.startswith((".", "config")))


def test_a_valid_edit_replaces_the_file_and_keeps_its_mode(desk: Desk) -> None:
    desk.plugin("echo")
    (desk.home / "config.yaml").chmod(0o640)
    session = desk.session(environ=editor(desk.home, NAMED))
    assert edit(session) == 0
    assert session.out.getvalue() == (f"{desk.home}/config.yaml is saved; ductiled is not running and reads it when it"
                                      " starts\n")
    assert json.loads((desk.home / "config.yaml").read_text())["service"] == {"name": "mine"}
    assert (desk.home / "config.yaml").stat().st_mode & 0o777 == 0o640
    assert names(desk) == ["config.yaml"]


def test_a_link_stays_a_link(desk: Desk, tmp_path: Path) -> None:
    (desk.home / "config.yaml").rename(desk.home / "config-real.yaml")
    (desk.home / "config.yaml").symlink_to("config-real.yaml")
    assert edit(desk.session(environ=editor(desk.home, NAMED))) == 0
    assert (desk.home / "config.yaml").is_symlink()
    assert "mine" in (desk.home / "config-real.yaml").read_text()


def test_without_a_change_nothing_is_done(desk: Desk) -> None:
    # Not the time of the last access, which each reader changes.
    def identity() -> tuple[int, int, int]:
        found = os.stat(desk.home / "config.yaml")
        return found.st_ino, found.st_mode, found.st_ctime_ns

    before = identity()
    session = desk.session(environ=editor(desk.home, "true"))
    assert (edit(session), session.out.getvalue()) == (0, "nothing was changed\n")
    assert (identity(), names(desk)) == (before, ["config.yaml"])


def test_errors_are_shown_and_the_file_stays_as_it_was(desk: Desk) -> None:
    before = (desk.home / "config.yaml").read_text()
    session = desk.session(environ=editor(desk.home, BROKEN))
    with pytest.raises(DuctileError) as caught:
        edit(session)
    assert (caught.value.exit_code, session.err.getvalue().startswith(f"{desk.home}/config.yaml:1:1: what: ")) == (
        78, True)
    assert (desk.home / "config.yaml").read_text() == before
    # The edits are not lost.
    [kept] = [name for name in names(desk) if name != "config.yaml"]
    assert (desk.home / kept).read_text() == "what: 1\n"
    assert str(caught.value) == f"the configuration is as it was; your edits are in {desk.home / kept}"


def test_on_a_terminal_one_can_edit_again(desk: Desk) -> None:
    session = desk.session(environ=editor(desk.home, BROKEN, """echo 'plugins: {}' >"$1" """), stdin=OnTerminal(b"y\n"),
                           err=Shown())
    assert edit(session) == 0
    assert session.err.getvalue().endswith("Edit again? [y/N] ")
    assert ((desk.home / "config.yaml").read_text(), names(desk)) == ("plugins: {}\n", ["config.yaml"])


def test_what_somebody_else_has_changed_is_not_overwritten(desk: Desk) -> None:
    with pytest.raises(DuctileError, match="was changed by somebody else meanwhile; your edits are in ") as caught:
        edit(desk.session(environ=editor(desk.home, f"{NAMED}\necho '{{}}' >{desk.home}/config.yaml")))
    assert caught.value.exit_code == 1
    assert (desk.home / "config.yaml").read_text() == "{}\n"


@pytest.mark.parametrize(("value", "code"), [("false", 1), ("/no/such", 64), ("'", 64)])
def test_an_editor_that_fails_changes_nothing(desk: Desk, value: str, code: int) -> None:
    with pytest.raises(DuctileError) as caught:
        edit(desk.session(environ={**SECRET, "VISUAL": value}))
    assert (caught.value.exit_code, names(desk)) == (code, ["config.yaml"])


def test_a_running_daemon_reloads(daemon: RealDaemon) -> None:
    daemon.install("ok")
    daemon.start()
    environ = editor(daemon.home, """sed -i 's/"1h"/"2h"/' "$1" """)
    process = start("edit", home=daemon.home, env={**daemon.environ, **environ})
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert "service.tick_interval" in out
    daemon.stop()
