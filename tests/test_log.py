from __future__ import annotations

import errno
import json
import os
import pty
import resource
import shutil
import socket
import stat
import subprocess
import sys
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ductile import log
from ductile.errors import EXIT_SYSTEM, DuctileError
from ductile.units import parse_utc
from support import logs
from support.logs import lines, messages

ROOT = Path(__file__).resolve().parents[1]
LIMIT_SECONDS = 60
COMPONENT = log.Component("queue")


@pytest.fixture(autouse=True)
def as_it_was():
    with logs.as_it_was():
        yield


@pytest.fixture
def path(tmp_path):
    """The log's file, with all that is written to it from now on."""
    log.set_up(tmp_path / "ductile.log", "info")
    return tmp_path / "ductile.log"


def open_files() -> list[str]:
    """The files that this process has open."""
    fds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return [os.readlink(fd) for fd in fds if os.path.islink(fd)]


def test_a_line_is_one_object_with_its_fields(path):
    COMPONENT.info("job started", job_id="a", attempt=2)
    (line,) = lines(path)
    written = parse_utc(line.pop("timestamp"))
    assert list(line.items()) == [
        ("level", "info"), ("component", "queue"), ("message", "job started"), ("job_id", "a"), ("attempt", 2)]
    assert abs((datetime.now(UTC) - written).total_seconds()) < LIMIT_SECONDS


def test_text_of_many_lines_stays_one_line(path):
    COMPONENT.warn("standard error", stderr="one\ntwo\r\n\0\u2028three caf\u00e9 \ud800")
    assert len(path.read_bytes().splitlines()) == 1
    assert lines(path)[0]["stderr"] == "one\ntwo\r\n\0\u2028three caf\u00e9 \ud800"


def test_percent_signs_are_only_text(path):
    COMPONENT.info("100% of %s", value="%d")
    assert messages(path) == ["100% of %s"]


ALL = ["debug", "info", "warn", "error"]


@pytest.mark.parametrize("level, shown", [("debug", ALL), ("info", ALL[1:]), ("warn", ALL[2:]), ("error", ALL[3:])])
def test_only_its_level_and_above_is_written(tmp_path, level, shown):
    log.set_up(tmp_path / "log", level)
    for write in (COMPONENT.debug, COMPONENT.info, COMPONENT.warn, COMPONENT.error):
        write("said")
    assert [line["level"] for line in lines(tmp_path / "log")] == shown


@pytest.mark.parametrize("level", ALL)
def test_a_level_can_be_given_by_its_name(tmp_path, level):
    log.set_up(tmp_path / "log", "debug")
    COMPONENT.at(level, "said", plugin="echo")
    assert [(line["level"], line["plugin"]) for line in lines(tmp_path / "log")] == [(level, "echo")]


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text for this")


CYCLE: list = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize("value, written", [
    (datetime(2026, 2, 8, 10, tzinfo=UTC), "2026-02-08 10:00:00+00:00"),
    (Path("a/b"), "a/b"),
    (b"bytes", "b'bytes'"),
    ({1, }, "{1}"),
])
def test_a_field_that_is_no_json_is_written_as_its_text(path, value, written):
    COMPONENT.info("said", value=value)
    assert lines(path)[0]["value"] == written


@pytest.mark.parametrize("value, why", [
    (Unprintable(), "RuntimeError"), (CYCLE, "ValueError"), ({(1, 2): 3}, "TypeError")])
def test_a_line_with_a_field_that_cannot_be_written_says_so_instead(path, value, why):
    COMPONENT.info("said", job_id="a", value=value)
    (line,) = lines(path)
    assert (line["message"], line["fields_not_written"]) == ("said", f"{why} in one of job_id, value")


# A file


def test_the_file_is_for_its_owner_and_a_group_of_readers(tmp_path):
    before = os.umask(0)
    try:
        log.set_up(tmp_path / "log", "info")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o640


def test_lines_are_added_to_what_is_there(tmp_path):
    (tmp_path / "log").write_text('{"message": "before"}\n')
    log.set_up(tmp_path / "log", "info")
    COMPONENT.info("after")
    assert messages(tmp_path / "log") == ["before", "after"]


def test_a_file_that_is_moved_away_is_opened_again(path, tmp_path):
    COMPONENT.info("before")
    path.rename(tmp_path / "ductile.log.1")
    COMPONENT.info("after")
    assert (messages(tmp_path / "ductile.log.1"), messages(path)) == (["before"], ["after"])


def test_a_file_that_is_emptied_in_place_is_written_from_its_start(path):
    COMPONENT.info("before")
    os.truncate(path, 0)
    COMPONENT.info("after")
    assert messages(path) == ["after"]


def test_without_its_directory_lines_wait_for_it(tmp_path, capfd):
    directory = tmp_path / "logs"
    directory.mkdir()
    log.set_up(directory / "log", "info")
    shutil.rmtree(directory)
    COMPONENT.info("one")
    COMPONENT.info("two")
    directory.mkdir()
    COMPONENT.info("three")
    assert messages(directory / "log") == ["one", "two", "three"]
    assert capfd.readouterr() == ("", "")


def test_what_a_full_disk_does_not_take_goes_to_the_next_log(tmp_path, capfd):
    log.set_up("/dev/full", "info")
    COMPONENT.info("one")
    COMPONENT.info("two")
    log.set_up(tmp_path / "log", "info")
    COMPONENT.info("three")
    assert messages(tmp_path / "log") == ["one", "two", "three"]
    assert capfd.readouterr() == ("", "")


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes: a disk that is full from there on."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_line_that_a_full_disk_has_cut_is_whole_when_there_is_room(path):
    with room_for(1000):
        for number in range(30):
            COMPONENT.info("said", number=number)
        assert len(path.read_bytes()) == 1000
    log.flush()
    assert [line["number"] for line in lines(path)] == list(range(30))


def test_a_file_on_a_full_disk_that_was_moved_away_and_removed_is_opened_again(path, tmp_path):
    with room_for(1000):
        for number in range(30):
            COMPONENT.info("said", number=number)
    path.rename(tmp_path / "ductile.log.1")
    cut = (tmp_path / "ductile.log.1").read_text().splitlines()
    (tmp_path / "ductile.log.1").unlink()
    COMPONENT.info("said", number=30)
    # All but the one whose beginning is in the other file.
    assert [line["number"] for line in lines(path)] == list(range(len(cut), 31))


@pytest.mark.parametrize("place, why", [("nowhere/log", "No such file or directory"), ("", "Is a directory")])
def test_a_file_that_cannot_be_opened_is_refused_and_the_log_stays_where_it_was(path, tmp_path, place, why):
    with pytest.raises(DuctileError) as caught:
        log.set_up(tmp_path / place, "debug")
    assert (caught.value.exit_code, str(caught.value)) == (
        EXIT_SYSTEM, f"cannot open the log {tmp_path / place}: {why}; set service.log to a writable path")
    COMPONENT.info("here")
    assert messages(path) == ["here"]


def with_a_reader(fifo: Path) -> int:
    """Open a FIFO for reading, as a program does that waits for the log."""
    return os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)


@pytest.mark.parametrize("read", [False, True])
def test_a_fifo_is_refused_at_once_with_or_without_a_reader(path, tmp_path, read):
    os.mkfifo(tmp_path / "fifo")
    reader = with_a_reader(tmp_path / "fifo") if read else None
    try:
        with pytest.raises(DuctileError) as caught:
            log.set_up(tmp_path / "fifo", "info")
    finally:
        if reader is not None:
            os.close(reader)
    assert (caught.value.exit_code, str(caught.value)) == (
        EXIT_SYSTEM, f"cannot open the log {tmp_path / 'fifo'}: Is a FIFO or a socket, not a file; "
                     "set service.log to a writable path")
    assert str(tmp_path / "fifo") not in open_files()
    COMPONENT.info("here")
    assert messages(path) == ["here"]


def test_a_fifo_in_the_place_of_a_file_that_was_moved_away_stops_nothing(path, tmp_path):
    path.rename(tmp_path / "ductile.log.1")
    os.mkfifo(path)
    COMPONENT.info("one")
    path.unlink()
    COMPONENT.info("two")
    assert messages(path) == ["one", "two"]


def test_an_odd_path_stays_on_one_line(tmp_path):
    with pytest.raises(DuctileError) as caught:
        log.set_up(tmp_path / "a\nb" / "log", "info")
    assert str(caught.value) == (f"cannot open the log {tmp_path}/a\\nb/log: No such file or directory; "
                                 "set service.log to a writable path")


def test_another_file_takes_over_and_the_first_is_closed(path, tmp_path):
    COMPONENT.info("one")
    log.set_up(tmp_path / "two.log", "info")
    COMPONENT.info("two")
    assert (messages(path), messages(tmp_path / "two.log")) == (["one"], ["two"])
    assert str(path) not in open_files()


# Lines that are held while the loop has better things to do


def test_lines_that_are_held_are_written_when_asked_for_in_their_order(path):
    log.hold()
    for number in range(5):
        COMPONENT.error("said", number=number)
    assert path.read_text() == ""
    log.flush()
    assert [line["number"] for line in lines(path)] == [0, 1, 2, 3, 4]


def test_held_lines_have_the_time_at_which_they_were_said(path):
    log.hold()
    COMPONENT.info("said")
    said_by = datetime.now(UTC)
    log.flush()
    assert parse_utc(lines(path)[0]["timestamp"]) <= said_by


def test_a_line_of_another_thread_waits_for_nobody_and_those_before_it_go_first(path):
    log.hold()
    COMPONENT.info("held")
    thread = threading.Thread(target=COMPONENT.info, args=("said elsewhere",))
    thread.start()
    thread.join()
    assert messages(path) == ["held", "said elsewhere"]


def test_another_file_takes_over_after_the_held_lines_and_the_first_is_closed(path, tmp_path):
    log.hold()
    COMPONENT.info("one")
    log.set_up(tmp_path / "two.log", "info")
    COMPONENT.info("two")
    log.flush()
    assert (messages(path), messages(tmp_path / "two.log")) == (["one"], ["two"])
    assert str(path) not in open_files()


@pytest.mark.parametrize("held", [True, False])
def test_to_write_what_is_held_to_a_full_disk_ends_nothing(capfd, held):
    log.set_up("/dev/full", "info")
    if held:
        log.hold()
    COMPONENT.info("lost")
    log.flush()
    log.flush()
    assert capfd.readouterr() == ("", "")


# Standard output and syslog


def test_standard_output_gets_the_lines(capfd):
    log.set_up("stdout", "info")
    COMPONENT.info("said")
    written = capfd.readouterr()
    assert (json.loads(written.out)["message"], written.err) == ("said", "")


CLOSED_PIPE = """
import os, sys
from ductile import log
log.set_up("stdout", "info")
sys.stdin.read()
log.Component("daemon").info("nobody reads this")
os.write(2, b"went on")
os._exit(0)
"""


def test_a_closed_pipe_ends_nothing():
    child = subprocess.Popen([sys.executable, "-c", CLOSED_PIPE], cwd=ROOT, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdout.close()
    child.stdin.close()
    try:
        assert child.stderr.read() == b"went on"
        assert child.wait(LIMIT_SECONDS) == 0
    finally:
        child.kill()
        child.wait(LIMIT_SECONDS)
        child.stderr.close()


# A reader that does not read

FLOOD = """
import os, sys
from ductile import log
if sys.argv[1] == "denied":
    # Neither may it open the pipe a second time.
    os.fchmod(1, 0)
    if os.geteuid() == 0:
        os.setuid(65534)
log.set_up("stdout", "info", format="json")
for number in range(3_000):
    log.Component("daemon").info("said", number=number, text="x" * 1000)
print("went on", log.is_behind(), os.get_blocking(1), file=sys.stderr, flush=True)
sys.stdin.read()
log.close(60)
"""


def a_terminal() -> tuple[int, int]:
    reader, writer = pty.openpty()
    tty.setraw(writer)
    return reader, writer


def a_socket() -> tuple[int, int]:
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


def rest_of(fd: int) -> bytes:
    """Read to the end, which a terminal tells with an error."""
    data = b""
    try:
        while part := os.read(fd, 1024 * 1024):
            data += part
    except OSError as error:
        assert error.errno == errno.EIO
    return data


def check_flood(said: list[dict], count: int) -> None:
    """See that what was read is all that was said, but for what was dropped at the end and counted."""
    assert (said[-1]["message"], said[-1]["count"] > 1000) == ("log lines dropped", True)
    assert [line["number"] for line in said[:-1]] == list(range(count - said[-1]["count"]))


@pytest.mark.parametrize("open_both, argument", [
    (os.pipe, ""), (os.pipe, "denied"), (a_terminal, ""), (a_socket, "")],
    ids=["pipe", "pipe of another user", "terminal", "socket"])
def test_a_reader_that_does_not_read_stops_nothing_and_is_told_what_it_missed(
        open_both: Callable[[], tuple[int, int]], argument: str) -> None:
    reader, writer = open_both()
    child = subprocess.Popen([sys.executable, "-c", FLOOD, argument], cwd=ROOT, stdin=subprocess.PIPE, stdout=writer,
                             stderr=subprocess.PIPE, text=True)
    try:
        os.close(writer)
        assert child.stderr.readline() == "went on True True\n"
        child.stdin.close()
        said = [json.loads(line) for line in rest_of(reader).splitlines()]
        assert (child.stderr.read(), child.wait(LIMIT_SECONDS)) == ("", 0)
    finally:
        child.kill()
        child.wait(LIMIT_SECONDS)
        child.stderr.close()
        os.close(reader)
    check_flood(said, 3_000)


SYSLOG = """
import socket
from ductile import log
listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.bind("/dev/log")
listener.settimeout(10)
log.set_up("syslog", "info", "home")
log.Component("daemon").warn("said", plugin="echo")
print(listener.recv(4096).decode())
"""
UNREAD_SYSLOG = """
import json, socket, threading
from ductile import log
listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.bind("/dev/log")
log.set_up("syslog", "info", "home")
for number in range(3_000):
    log.Component("daemon").info("said", number=number, text="x" * 1000)
log.Component("daemon").error("too long for a datagram", text="x" * 500_000)
ending = threading.Thread(target=log.close, args=(60,))
ending.start()
while True:
    line = listener.recv(1_000_000).decode().partition("home: ")[2]
    print(line[:1200])
    if "log lines dropped" in line:
        break
ending.join()
"""
NEW_SYSLOG = """
import os, socket
from ductile import log
def listen():
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind("/dev/log")
    listener.settimeout(10)
    return listener
first = listen()
log.set_up("syslog", "info", "home")
first.close()
log.Component("daemon").info("one")
os.unlink("/dev/log")
log.Component("daemon").info("two")
second = listen()
log.Component("daemon").info("three")
for _ in range(3):
    print(second.recv(4096).decode().partition("home: ")[2])
"""
NO_SYSLOG = """
from ductile import log
from ductile.errors import DuctileError
try:
    log.set_up("syslog", "info", "home")
except DuctileError as error:
    print(error.exit_code, error)
"""


def with_an_empty_dev(code: str) -> str:
    """What a program prints that has a /dev of its own, with nothing in it; skip where that is not allowed."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can have mounts of its own")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, timeout=LIMIT_SECONDS).returncode != 0:
        pytest.skip("this machine allows no mounts of one's own")
    run = subprocess.run(["unshare", "-m", "sh", "-ec", 'mount -t tmpfs none /dev; exec "$1" -c "$2"', "sh",
                          sys.executable, code], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert (run.stderr, run.returncode) == ("", 0)
    return run.stdout


def test_syslog_gets_the_line_under_the_name_of_the_service():
    printed = with_an_empty_dev(SYSLOG)
    priority, _, line = printed.partition("home: ")
    assert priority == "<28>"    # facility daemon, severity warning (RFC 3164)
    assert json.loads(line.rstrip("\0\n"))["plugin"] == "echo"


def test_a_syslog_that_does_not_read_stops_nothing_and_is_told_what_it_missed():
    said = [json.loads(line) for line in with_an_empty_dev(UNREAD_SYSLOG).splitlines()]
    check_flood(said, 3_001)


def test_a_syslog_that_was_started_again_gets_all_lines():
    said = [json.loads(line) for line in with_an_empty_dev(NEW_SYSLOG).splitlines()]
    assert [line["message"] for line in said] == ["one", "two", "three"]


def test_without_syslog_the_start_is_refused():
    assert with_an_empty_dev(NO_SYSLOG) == (
        "71 cannot open the log syslog at /dev/log: No such file or directory; "
        "set service.log to a writable path\n")
