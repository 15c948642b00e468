"""The file_watch plugin on a real directory: what is new, complete, changed and gone, and what is left alone."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from support import in_process
from support.notified import failure
from support.plugin_runs import Plugin, logged, readme_config, told

HERE = Path(__file__).resolve().parent


class Home:
    """A watched directory, and the plugin that looks at it at the times of a clock."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory, self.workspace = home / "watched", home / "ws"
        self.directory.mkdir()
        self.workspace.mkdir()
        self.seconds = 1_777_000_000
        monkeypatch.setattr(in_process.load(HERE), "now", lambda: self.seconds)

    def plugin(self, **config: object) -> Plugin:
        return Plugin(HERE, self.workspace, {"directory": str(self.directory), **config})

    def file(self, path: str, content: str = "x", *, mtime: float = 1_700_000_000) -> Path:
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        os.utime(target, (mtime, mtime))
        return target

    def look(self, plugin: Plugin, *, after: float = 10, **more: object) -> list[tuple[str, str]]:
        """Return type and path of the events of a look that comes so many seconds later."""
        self.seconds += after
        return [(kind.removeprefix("file."), payload["path"]) for kind, payload in told(plugin.poll(**more))]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return Home(tmp_path, monkeypatch)


# New, complete, changed, gone

def test_the_first_look_emits_nothing(home):
    home.file("a")
    home.file("sub/b")
    plugin = home.plugin()
    response = plugin.poll()
    assert (told(response), response.result) == ([], "first run, 2 files")
    assert home.look(plugin) == home.look(plugin) == []


def test_a_file_is_told_of_when_two_looks_find_it_the_same(home):
    plugin = home.plugin()
    home.look(plugin)
    home.file("sub/new.txt", "one")
    assert home.look(plugin) == []
    home.file("sub/new.txt", "one and two", mtime=1_700_000_001)
    assert home.look(plugin) == home.look(plugin, after=9) == []
    home.seconds += 1
    ((kind, payload),) = told(plugin.poll())
    assert (kind, payload) == ("file.new", {
        "path": "sub/new.txt", "name": "new.txt", "directory": str(home.directory), "size": 11,
        "modified": "2023-11-14T22:13:21Z", "message": "sub/new.txt is new",
        "file": str(home.workspace / "sub/new.txt")})
    assert (home.workspace / "sub/new.txt").read_text() == "one and two"
    assert home.look(plugin) == []


def test_a_file_that_changes_or_goes_is_told_of_once(home):
    home.file("a")
    home.file("b")
    plugin = home.plugin()
    home.look(plugin)
    home.file("a", "longer")
    (home.directory / "b").unlink()
    assert home.look(plugin) == []
    assert home.look(plugin) == [("changed", "a"), ("removed", "b")]
    assert home.look(plugin) == []


def test_a_file_that_is_replaced_is_never_gone_in_between(home):
    home.file("a")
    plugin = home.plugin()
    home.look(plugin)
    (home.directory / "a").unlink()
    assert home.look(plugin) == []
    home.file("a", "y", mtime=1_700_000_000)
    assert home.look(plugin) == home.look(plugin) == []


def test_a_clock_that_is_set_back_makes_nothing_wait(home):
    home.file("b")
    plugin = home.plugin()
    home.look(plugin)
    home.file("a")
    (home.directory / "b").unlink()
    assert home.look(plugin) == []
    assert home.look(plugin, after=-100_000) == []
    assert home.look(plugin) == [("new", "a"), ("removed", "b")]


def test_an_empty_file_takes_longer(home):
    plugin = home.plugin()
    home.look(plugin)
    home.file("a", "")
    assert home.look(plugin) == home.look(plugin, after=59) == []
    assert home.look(plugin, after=1) == [("new", "a")]


def test_without_a_wait_a_file_is_told_of_at_the_first_look(home):
    plugin = home.plugin(stable=0)
    home.look(plugin)
    home.file("a", "")
    assert home.look(plugin) == [("new", "a")]
    (home.directory / "a").unlink()
    assert home.look(plugin) == [("removed", "a")]


def test_a_file_with_an_old_date_that_is_moved_in_is_new(home):
    plugin = home.plugin(stable=0, removed=False)
    home.file("a", mtime=1)
    home.look(plugin)
    (home.directory / "a").rename(home.directory / "b")
    assert home.look(plugin) == [("new", "b")]


def test_the_change_of_an_hour_is_that_of_the_clocks(home):
    home.file("a")
    plugin = home.plugin(stable=0)
    home.look(plugin)
    home.file("a", mtime=1_700_003_600)
    assert home.look(plugin) == []
    home.file("a", mtime=1_700_007_000)
    assert home.look(plugin) == [("changed", "a")]


def test_a_run_that_is_killed_is_repeated_with_the_same_events(home):
    plugin = home.plugin()
    home.look(plugin)
    home.file("a")
    home.look(plugin)
    home.seconds += 10
    events = []
    for killed in (True, False, False):
        # The workspace of an attempt that is killed is thrown away.
        (home.workspace / "a").unlink(missing_ok=True)
        events.append(plugin.poll(killed=killed).events)
    assert (len(events[0]), events[0] == events[1], events[2]) == (1, True, ())


def test_no_more_is_told_of_than_wanted_the_oldest_first_and_nothing_is_lost(home):
    home.file("gone")
    plugin = home.plugin(stable=0, most=2)
    home.look(plugin)
    (home.directory / "gone").unlink()
    for number in range(4):
        home.file(str(number), mtime=1_700_000_000 - number)
    found = [home.look(plugin) for _ in range(4)]
    assert found == [[("new", "3"), ("new", "2")], [("new", "1"), ("new", "0")], [("removed", "gone")], []]


def test_without_time_everything_is_left_for_the_next_run(home):
    plugin = home.plugin(stable=0)
    home.look(plugin)
    home.file("a")
    response = plugin.poll(seconds_left=2)
    assert told(response) == []
    assert response.result == "0 events, 1 file, 0 not complete yet, 1 left for the next run"
    assert home.look(plugin) == [("new", "a")]


# What is looked at

@pytest.mark.parametrize("name", [
    "a.part", "a.crdownload", "A.TMP", "~$a.docx", ".~lock.a.odt#", "a~", ".a.swp", "#a#", ".a.Xy12Zz", ".DS_Store",
    "._a", "Thumbs.db", ".nfs0001", ".syncthing.a.tmp", ".git/HEAD", "x.download/part1", "sub/4913"])
def test_what_programs_write_for_the_time_being_is_ignored(home, name):
    plugin = home.plugin(stable=0)
    home.look(plugin)
    home.file(name)
    assert home.look(plugin) == []


@pytest.mark.parametrize("companion", ["a.zip.part", "a.zip.aria2"])
def test_a_file_beside_its_partial_one_is_not_complete(home, companion):
    plugin = home.plugin(stable=0)
    home.look(plugin)
    home.file("a.zip")
    part = home.file(companion)
    assert home.look(plugin) == []
    part.unlink()
    assert home.look(plugin) == [("new", "a.zip")]


@pytest.mark.parametrize(("config", "paths"), [
    ({}, ["a.pdf", "b.txt", "sub/a.pdf"]), ({"recursive": False}, ["a.pdf", "b.txt"]),
    ({"include": ["*.pdf"]}, ["a.pdf", "sub/a.pdf"]), ({"include": ["sub/*"]}, ["sub/a.pdf"]),
    ({"ignore": ["sub"]}, ["a.pdf", "b.txt"]), ({"ignore": ["*.pdf"]}, ["b.txt"])])
def test_patterns_say_what_is_looked_at(home, config, paths):
    plugin = home.plugin(stable=0, **config)
    home.look(plugin)
    for path in ("a.pdf", "b.txt", "sub/a.pdf"):
        home.file(path)
    (home.directory / "link.pdf").symlink_to("/etc/passwd")
    (home.directory / "loop").symlink_to(home.directory)
    os.mkfifo(home.directory / "fifo.pdf")
    assert sorted(path for _, path in home.look(plugin)) == paths


def test_other_patterns_begin_anew(home):
    home.file("a.txt")
    plugin = home.plugin(stable=0, include=["*.pdf"])
    home.look(plugin)
    plugin.config["include"] = ["*"]
    assert home.look(plugin) == []
    home.file("b.txt")
    assert home.look(plugin) == [("new", "b.txt")]


def test_a_name_that_is_no_utf_8_is_told_of(home):
    plugin = home.plugin(stable=0)
    home.look(plugin)
    for byte in (b"\xfe", b"\xff"):
        Path(os.fsdecode(os.fsencode(home.directory) + b"/a" + byte + b"b\nc")).write_bytes(byte)
    found = [payload for _, payload in told(plugin.poll())]
    assert [payload["path"] for payload in found] == ["a\ufffdb\nc"] * 2
    assert {Path(payload["file"]).read_bytes() for payload in found} == {b"\xfe", b"\xff"}
    for payload in found:
        Path(payload["file"]).unlink()
    assert home.look(plugin) == []


# Content

@pytest.mark.parametrize(("config", "links"), [({}, 1), ({"content": "link"}, 2), ({"content": "none"}, 1),
                                              ({"max_size": 2}, 1)])
def test_the_content_is_copied_linked_or_left(home, config, links):
    plugin = home.plugin(stable=0, **config)
    home.look(plugin)
    path = home.file("a", "abc")
    ((_, payload),) = told(plugin.poll())
    assert (path.stat().st_nlink, "file" in payload) == (links, not {"max_size"} & config.keys() and (
        config.get("content") != "none"))
    assert not payload.get("file") or Path(payload["file"]).read_text() == "abc"


def test_a_file_that_changes_while_it_is_copied_is_not_complete(home, monkeypatch):
    plugin = home.plugin(stable=0)
    home.look(plugin)
    home.file("a", "abc")
    copy = in_process.load(HERE).copy

    def disturbed(source: str, target: str) -> None:
        copy(source, target)
        home.file("a", "abcd")

    monkeypatch.setattr(in_process.load(HERE), "copy", disturbed)
    assert home.look(plugin) == []
    assert not (home.workspace / "a").exists()
    monkeypatch.setattr(in_process.load(HERE), "copy", copy)
    assert home.look(plugin) == [("new", "a")]


def test_a_file_that_cannot_be_read_waits_and_hinders_no_other(home, monkeypatch):
    plugin = home.plugin(stable=0)
    home.look(plugin)
    home.file("a", mtime=1)
    home.file("b")
    copy = in_process.load(HERE).copy

    def refused(source: str, target: str) -> None:
        if source.endswith("/a"):
            raise PermissionError(errno.EACCES, "no", source)
        copy(source, target)

    monkeypatch.setattr(in_process.load(HERE), "copy", refused)
    response = plugin.poll()
    assert ([payload["path"] for _, payload in told(response)], len(logged(response))) == (["b"], 1)


# What goes wrong

def test_a_directory_that_is_gone_is_an_error_and_nothing_counts_as_removed(home):
    home.file("a")
    plugin = home.plugin(stable=0)
    home.look(plugin)
    home.directory.rename(home.directory.with_name("elsewhere"))
    before = plugin.state
    for command in ("poll", "health"):
        error, retry = failure(plugin.run(command))
        assert (error.startswith(f"{home.directory}: "), retry, plugin.state) == (True, True, before)


def test_an_empty_directory_on_another_file_system_is_an_unmounted_disk(home):
    path = home.file("a")
    plugin = home.plugin(stable=0)
    home.look(plugin)
    device = plugin.state["device"]
    plugin.state["device"] = device + 1
    path.unlink()
    assert failure(plugin.poll()) == (
        f"{home.directory}: is empty and on another file system than before; is its disk mounted?", True)
    home.file("a")
    assert (home.look(plugin), plugin.state["device"]) == ([], device)
    path.unlink()
    assert home.look(plugin) == [("removed", "a")]


def test_files_of_a_directory_that_cannot_be_read_are_not_gone(home):
    looks = in_process.load(HERE).compare
    version = in_process.load(HERE).Version(1, 1)
    entries = {path: in_process.load(HERE).Entry(told=version) for path in ("sub/a", "subway", "sub/x/b")}
    known, complete, gone = looks(entries, {}, ["sub/"], 100, 0)
    assert (sorted(known), complete, gone) == (["sub/a", "sub/x/b", "subway"], [], ["subway"])


def test_the_state_is_compact_and_bounded():
    run = in_process.load(HERE)
    chance = random.Random(3)
    entries = {f"photos/{n // 300}/IMG_{n:05}.jpg": run.Entry(told=run.Version(
        1_700_000_000_000_000_000 + chance.randrange(10**18), chance.randrange(10**7))) for n in range(12_000)}
    packed = run.pack(entries)
    assert (run.unpack(packed) == entries, len(packed) < 600 * 1024) == (True, True)
    assert run.unpack(run.pack({})) == {}
    with pytest.raises(in_process.library().Permanent, match="are too many to remember"):
        run.pack({f"{path}{chance.random()}{copy}": entry for path, entry in entries.items() for copy in "ab"})


@pytest.mark.parametrize(("config", "error"), [
    ({"directory": "x"}, "directory: expected an absolute path, or one that begins with ~"),
    ({"include": "*.pdf"}, "include: expected a list of patterns such as *.pdf"),
    ({"stable": -1}, "stable: expected seconds, at most 86400"),
    ({"content": "move"}, "content: expected one of copy, link, none"),
    ({"most": 0}, "most: expected a whole number, 1 to 500")])
def test_a_wrong_configuration_is_named(home, config, error):
    assert failure(home.plugin(**config).health()) == (error, False)


def test_the_configuration_of_the_readme_works(home):
    config = readme_config(HERE, home.directory.parent)["scans"]
    plugin = home.plugin(**config | {"directory": str(home.directory)})
    assert plugin.health().result == f"would watch {home.directory}"


# As a process of its own

@pytest.mark.parametrize(("config", "code"), [({}, 0), ({"stable": "x"}, 78)])
def test_it_runs_as_a_process(home, config, code):
    home.file("a")
    response = home.plugin(**config).run_process("poll", code=code)
    assert response.result == (None if code else "first run, 1 file")
