"""`new-plugin`: a plugin that runs as it stands, or nothing at all."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from ctl.desk import Desk, Said, run
from ductile import shipped
from ductile.plugin.discovery import discover, look_at
from support import ordinary
from support.daemon import RealDaemon

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes an ordinary user, which takes root")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
FILES = {"sh": ["README.md", "manifest.yaml", "run.sh"], "node": ["README.md", "manifest.yaml", "run.js"],
         "python": ["README.md", "ductile_plugin.py", "manifest.yaml", "run.py"]}
every_language = pytest.mark.parametrize(("language", "program"), [
    ("sh", "run.sh"), ("python", "run.py"), pytest.param("node", "run.js", marks=needs_node)])
AWKWARD = ("true", "null", "1", "1e5", "0x10", "A-b_c", "x" * 64, "no")


def make(place: Path, *arguments: str, **settings: object) -> Said:
    return run("new-plugin", *arguments, cwd=place, **settings)


@every_language
def test_it_says_what_to_do_next(tmp_path: Path, language: str, program: str) -> None:
    assert make(tmp_path, "mine", "--lang", language, "--dir", ".") == Said(code=0, err="", out=f"""\
Created ./mine; edit {program}. To try it:
  ductilectl test ./mine
To run it, add it to config.yaml and run `ductilectl reload`:
  plugins:
    mine:
      schedule: {{every: 1h}}
      config: {{greeting: Hello}}
""")
    assert sorted(os.listdir(tmp_path / "mine")) == FILES[language]
    assert os.listdir(tmp_path) == ["mine"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_daemon_s_user_can_run_it_and_nobody_else_write_it(tmp_path: Path, umask: int) -> None:
    assert make(tmp_path, "mine", "--lang", "python", "--dir", ".", umask=umask).code == 0
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "mine").iterdir()}
    assert modes == {"README.md": 0o644, "manifest.yaml": 0o644, "ductile_plugin.py": 0o644, "run.py": 0o755}
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o755


@every_language
@pytest.mark.parametrize("command", ["poll", "handle", "health"])
def test_it_passes_the_test_at_once(tmp_path: Path, language: str, program: str, command: str) -> None:
    make(tmp_path, "mine", "--lang", language, "--dir", ".")
    (tmp_path / "event.json").write_text('{"text": "\\"command\\":\\"poll\\""}')
    event = ["--event", "event.json"] if command == "handle" else []
    said = run("test", "./mine", command, *event, "--json", cwd=tmp_path, env={"PATH": os.environ["PATH"]})
    found = said.json
    assert (said.code, found["outcome"], found["faults"], found["ignored"], found["stderr"]) == (
        0, "succeeded", [], [], "")
    if command == "poll":
        assert [event["type"] for event in found["response"]["events"]] == ["mine.polled"]
        assert found["response"]["state_updates"] and found["response"]["logs"]


@pytest.mark.parametrize("language", ["python", pytest.param("node", marks=needs_node)])
def test_its_state_counts_on(tmp_path: Path, language: str) -> None:
    make(tmp_path, "mine", "--lang", language, "--dir", ".")
    (tmp_path / "state.json").write_text('{"runs": 6}')
    said = run("test", "./mine", "--state", "state.json", "--json", cwd=tmp_path, env={"PATH": os.environ["PATH"]})
    assert said.json["response"]["state_updates"] == {"runs": 7}


@pytest.mark.parametrize("name", AWKWARD)
def test_any_name_of_a_plugin_is_a_good_one(desk: Desk, name: str) -> None:
    assert desk.call("new-plugin", name).code == 0
    found = look_at(desk.home / "plugins" / name)
    assert (found.reason, found.name, found.plugin.manifest.name) == (None, name, name)


def test_the_templates_are_no_plugins(desk: Desk) -> None:
    assert {found.name for found in discover([shipped.plugins()]).found} & {"PLUGIN_NAME", *FILES} == set()
    assert sorted(os.listdir(shipped.plugins() / "_template")) == sorted(FILES)


@every_language
def test_the_daemon_runs_it_as_the_text_says(daemon: RealDaemon, language: str, program: str) -> None:
    said = make(daemon.home, "true", "--lang", language, "--dir", "plugins").out
    yaml = said[said.index("  plugins:"):].replace("\n  ", "\n").removeprefix("  ").replace("1h", "1s")
    config = (daemon.home / "config.yaml")
    written = {**daemon.config}
    del written["plugins"]
    config.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in written.items()) + yaml)
    daemon.start()
    daemon.until("SELECT count(*) > 0 FROM job_queue WHERE plugin = 'true' AND status = 'succeeded'", [(1,)])
    daemon.stop()


def test_the_first_directory_of_the_configuration_is_taken(desk: Desk) -> None:
    (desk.home / "other").mkdir()
    desk.configure(plugins_dir=["./other", "./plugins"])
    said = desk.call("new-plugin", "mine", "--json")
    assert (said.code, said.json) == (0, {"plugin": "mine", "directory": str(desk.home / "other" / "mine"),
                                          "files": ["README.md", "manifest.yaml", "run.sh"]})
    assert (desk.home / "other" / "mine" / "run.sh").exists()


@pytest.mark.parametrize("there", ["a directory", "a file", "a link to nothing"])
def test_nothing_is_ever_overwritten(tmp_path: Path, there: str) -> None:
    place = tmp_path / "mine"
    if there == "a directory":
        place.mkdir()
    elif there == "a file":
        place.write_text("mine")
    else:
        place.symlink_to("nothing")
    seen = os.lstat(place)
    assert make(tmp_path, "mine", "--dir", str(tmp_path)) == Said(
        code=74, out="", err=f"{place} exists; choose another name, or move it away\n")
    assert (os.listdir(tmp_path), os.lstat(place).st_ino) == (["mine"], seen.st_ino)


@pytest.mark.parametrize(("name", "expected"), [
    ("../x", "expected a name of 1 to 64 letters, digits, '-' and '_', the first a letter or digit, got '../x'"),
    ("a b", "expected a name of 1 to 64 letters, digits, '-' and '_', the first a letter or digit, got 'a b'"),
    ("é", "expected a name of 1 to 64 letters, digits, '-' and '_', the first a letter or digit, got 'é'"),
    ("_x", "expected a name of 1 to 64 letters, digits, '-' and '_', the first a letter or digit, got '_x'"),
])
def test_a_name_that_no_plugin_can_have_is_64(tmp_path: Path, name: str, expected: str) -> None:
    assert make(tmp_path, name, "--dir", ".", env={"LANG": "C.UTF-8"}) == Said(
        code=64, out="", err=f"ductilectl new-plugin: NAME: {expected}\n")
    assert os.listdir(tmp_path) == []


def test_an_unknown_language_is_64(tmp_path: Path) -> None:
    assert make(tmp_path, "mine", "--lang", "perl") == Said(
        code=64, out="", err="ductilectl new-plugin: argument --lang: expected one of sh, python, node, got 'perl';"
                             " see ductilectl new-plugin --help\n")


def test_a_place_that_is_not_there_is_74(tmp_path: Path) -> None:
    assert make(tmp_path, "mine", "--dir", "no") == Said(
        code=74, out="", err="cannot create no/mine: No such file or directory; nothing was created\n")


@as_root
def test_where_an_ordinary_user_may_not_write_it_is_77(tmp_path: Path) -> None:
    # Executed and not forked: it reads files of the checkout, which may be closed to others.
    assert make(Path("/"), "mine", "--dir", "/etc", become=ordinary.NOBODY) == Said(
        code=77, out="", err="cannot create /etc/mine: Permission denied; nothing was created\n")


@as_root
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    options = ["-t", "tmpfs", "-o", "size=4k,nr_inodes=20,mode=0700", "ductile-test"]
    if subprocess.run(["mount", *options, tmp_path], capture_output=True, check=False, timeout=20).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        assert make(tmp_path, "mine", "--dir", str(tmp_path)) == Said(
            code=74, out="", err=f"cannot create {tmp_path}/mine: No space left on device; nothing was created\n")
        assert os.listdir(tmp_path) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True, timeout=20)
