"""`init`: a configuration that runs as it stands, or nothing at all."""

from __future__ import annotations

import io
import json
import os
import socket
import stat
from pathlib import Path

import pytest

from ctl.desk import Said, run
from ductile import main as ductiled
from ductile import shipped
from ductile.config.load import load
from ductile.ctl import init as starter
from ductile.ctl.session import Session
from support import ordinary
from support.daemon import RealDaemon
from support.warm import Warm


def init(*arguments: str | Path, cwd: Path, **settings: object) -> Said:
    return run("init", *arguments, cwd=cwd, **settings)


def test_it_says_what_to_do_next(tmp_path: Path) -> None:
    said = init("a b/c", cwd=tmp_path)
    assert (said.code, said.out) == (0, """\
Created a b/c/config.yaml. Next:
  ductiled -c 'a b/c'           # runs in the foreground; Ctrl-C stops it
  ductilectl -c 'a b/c' status  # in another terminal
""")
    assert sorted(path.name for path in (tmp_path / "a b/c").iterdir()) == [
        "config.yaml", "pipelines", "plugins", "secrets.env"]
    assert stat.S_IMODE((tmp_path / "a b/c/secrets.env").stat().st_mode) == 0o600
    assert [stat.S_IMODE((tmp_path / each).stat().st_mode) for each in ("a b/c", "a b/c/plugins")] == [0o755, 0o755]


def test_the_configuration_is_good_and_has_the_shipped_plugins(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(cwd=tmp_path).code == 0
    loaded = load(tmp_path / "config.yaml", {})
    assert (loaded.problems, loaded.warnings) == ((), ())
    (endpoint,) = loaded.config.webhooks.endpoints
    assert (endpoint.path, endpoint.plugin, [len(key) for key in endpoint.keys]) == (
        "/webhooks/echo", "echo", [64])
    assert loaded.config.plugins_dirs == (tmp_path / "plugins", shipped.plugins())
    assert sorted(each.name for each in (tmp_path / "pipelines").iterdir()) == [
        "on-failure.yaml", "on-recovery.yaml", "on-silence.yaml"]
    assert [schedule.every.seconds for schedule in loaded.config.plugins["echo"].schedules] == [300]
    assert (ductiled.main(["-t", "-c", str(tmp_path)], {}), capsys.readouterr().err) == (0, "")


def test_the_daemon_runs_on_it_as_it_stands(tmp_path: Path, warm: Warm) -> None:
    (tmp_path / "home").mkdir()
    daemon = RealDaemon(tmp_path / "home", warm=warm)
    try:
        (daemon.home / "config.yaml").unlink()
        assert init(daemon.home, cwd=tmp_path).code == 0
        daemon.start()
        daemon.until("SELECT command, status FROM job_queue ORDER BY seq",
                     [("init", "succeeded"), ("poll", "succeeded")])
        daemon.stop()
    finally:
        daemon.close()


def test_it_takes_the_first_port_that_is_free_and_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        out, err = io.StringIO(), io.StringIO()
        session = Session(environ={}, stdin=io.BytesIO(), out=out, err=err, as_json=True)
        assert starter.init(session, directory=tmp_path, port=port) == 0
    listen = json.loads(out.getvalue())["listen"]
    assert port < int(listen.removeprefix("127.0.0.1:")) <= 65535
    assert err.getvalue() == f"port {port} is taken: webhooks.listen is {listen}\n"
    assert f"\n  listen: {listen}\n" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize("there", ["a file", "a link to nothing"])
def test_a_configuration_that_is_there_stays(tmp_path: Path, there: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("mine") if there == "a file" else file.symlink_to("nothing")
    assert init(tmp_path, cwd=tmp_path) == Said(
        code=74, out="", err=f"{file} exists already; name another directory, or move it away\n")
    assert os.listdir(tmp_path) == ["config.yaml"]


def test_a_file_in_the_way_leaves_nothing_half_done(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = init("file/below", cwd=tmp_path)
    assert said == Said(
        code=74, out="", err="cannot write file/below/config.yaml: Not a directory; nothing was written\n")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "plugins").touch()
    assert init("new", cwd=tmp_path).code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes an ordinary user, which takes root")
def test_an_ordinary_user_who_may_not_write_there_is_refused(tmp_path: Path) -> None:
    # Executed and not forked: it reads files of the checkout, which may be closed to others.
    said = init("/etc/ductile-of-nobody", cwd=Path("/"), become=ordinary.NOBODY)
    assert said == Said(code=77, out="", err=(
        "cannot write /etc/ductile-of-nobody/config.yaml: Permission denied; nothing was written\n"))
    (tmp_path / "closed").mkdir(mode=0o700)
    assert init(tmp_path / "closed" / "x", cwd=Path("/"), become=ordinary.NOBODY) == Said(code=77, out="", err=(
        f"cannot write {tmp_path}/closed/x/config.yaml: Permission denied; nothing was written\n"))
