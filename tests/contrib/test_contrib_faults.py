"""contrib/faults: the shim strikes the call that was chosen, the oracle sees what is wrong, and the command runs."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from contrib.injection.control import FAULTS, Control, build
from contrib.injection.oracle import DOUBLED, LOST, STUCK, Told, judge

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ROOT / "contrib" / "faults"
PATIENCE_SECONDS = 120
needs_compiler = pytest.mark.skipif(shutil.which("cc", path=os.defpath) is None, reason="there is no C compiler")


def faults(*arguments: str, scratch: Path, path: str = os.defpath) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "injection", *arguments], cwd=COMMAND.parent, stdin=subprocess.DEVNULL,
        env={"PATH": path, "HOME": str(scratch), "LANG": "C.UTF-8", "TMPDIR": str(scratch)},
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


# The command

@needs_compiler
def test_a_small_sweep_and_a_short_soak_find_nothing_and_leave_nothing(tmp_path: Path) -> None:
    done = faults("--points", "1", "--fault", "kill", "--minutes", "0.02", "claim", "soak", scratch=tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (0, []), done.stdout + done.stderr
    head, claim, soak = done.stdout.splitlines()
    assert head.split() == ["what", "fault", "struck", "lost", "doubled", "stuck", "bug"]
    assert claim.split()[:4] == ["claim", "kill", "1", "of"]
    assert soak.split()[:3] == ["soak", "0.02", "min"]
    assert [line.split()[-4:] for line in (claim, soak)] == [["0"] * 4] * 2


def test_the_script_is_executable_and_free_of_syntax_errors() -> None:
    done = subprocess.run(["bash", "-n", COMMAND], check=False, capture_output=True, timeout=PATIENCE_SECONDS)
    assert (done.returncode, done.stderr, os.access(COMMAND, os.X_OK)) == (0, b"", True)


def test_the_help_names_every_operation_and_fault(tmp_path: Path) -> None:
    done = faults("--help", scratch=tmp_path)
    assert done.returncode == 0
    named = [line.split()[0] for line in done.stdout.split("operations:\n")[1].splitlines() if line.startswith("  ")]
    assert named == ["submit", "emit", "claim", "finish", "seal", "clone", "recover", "migrate", "stop", "backup",
                     "restore", "soak", *FAULTS]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["sumbit"], "argument NAME: no operation 'sumbit': there are submit, emit, claim, finish, seal, clone,"
                     " recover, migrate, stop, backup, restore, soak"),
        (["--minutes", "0"], "argument --minutes: expected minutes, more than 0, got '0'"),
        (["--points", "x"], "argument --points: expected a whole number, 0 or more, got 'x'"),
        (["--at", "0"], "argument --at: expected a whole number, 1 or more, got '0'"),
    ],
)
def test_a_wrong_argument_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                                   arguments: list[str], error: str) -> None:
    monkeypatch.syspath_prepend(os.fspath(COMMAND.parent))
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("injection.__main__")._parser().parse_args(arguments)
    assert (ended.value.code, *capsys.readouterr()) == (
        64, "", f"contrib/faults: {error}; see contrib/faults --help\n")


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("flock", "sync"):
        (tools / name).symlink_to("/bin/true")
    done = faults("claim", scratch=tmp_path, path=str(tools))
    assert (done.returncode, done.stdout, done.stderr) == (
        69, "", "faults: no C compiler: install cc (Debian: apt install gcc libc6-dev)\n")
    assert list(tmp_path.iterdir()) == [tools]


# The shim

WRITES_TWICE = """
import os, sys
fd = os.open(sys.argv[1] + "/file", os.O_WRONLY | os.O_CREAT)
os.write(fd, b"first")
os.write(fd, b"second")
os.fsync(fd)
os.rename(sys.argv[1] + "/file", sys.argv[1] + "/renamed")
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("shim"))


def struck(tmp_path: Path, library: Path, fault: str, target: int,
           ) -> tuple[subprocess.CompletedProcess[str], Control]:
    """Run a program that creates, writes twice, syncs and renames below a directory with the shim armed."""
    root = tmp_path / "root"
    root.mkdir()
    control = Control(tmp_path / "control", library, root, FAULTS[fault], target)
    control.arm()
    done = subprocess.run([sys.executable, "-c", WRITES_TWICE, root], env={**control.environ, "PATH": os.defpath},
                          capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    return done, control


@needs_compiler
def test_without_a_target_calls_are_counted_and_go_on(tmp_path: Path, library: Path) -> None:
    done, control = struck(tmp_path, library, "kill", 0)
    assert (done.returncode, control.counted, control.is_met, control.met) == (0, 5, False, "")
    assert (tmp_path / "root" / "renamed").read_bytes() == b"firstsecond"


@needs_compiler
@pytest.mark.parametrize(
    ("target", "met", "left"),
    [(1, "create file", None), (2, "write file", b"fi"), (3, "write file", b"firstsec"),
     (4, "fsync file", b"firstsecond"), (5, "rename renamed", b"firstsecond")],
)
def test_a_kill_comes_in_the_chosen_call(tmp_path: Path, library: Path, target: int, met: str, left: bytes | None,
                                         ) -> None:
    done, control = struck(tmp_path, library, "kill", target)
    assert (done.returncode, control.met) == (-signal.SIGKILL, met)
    files = [(path.name, path.read_bytes()) for path in (tmp_path / "root").iterdir()]
    assert files == ([] if left is None else [("file", left)])


@needs_compiler
@pytest.mark.parametrize(("fault", "number"), [("eio", errno.EIO), ("full", errno.ENOSPC)])
def test_an_error_comes_from_the_chosen_call(tmp_path: Path, library: Path, fault: str, number: int) -> None:
    done, control = struck(tmp_path, library, fault, 2)
    assert (done.returncode, control.met) == (1, "write file")
    assert f"[Errno {number}]" in done.stderr


@needs_compiler
def test_what_is_below_another_directory_is_left_alone(tmp_path: Path, library: Path) -> None:
    control = Control(tmp_path / "control", library, tmp_path / "ro", FAULTS["kill"], 1)
    control.arm()
    (tmp_path / "root").mkdir()
    done = subprocess.run([sys.executable, "-c", WRITES_TWICE, tmp_path / "root"], timeout=PATIENCE_SECONDS,
                          env={**control.environ, "PATH": os.defpath}, check=False)
    assert (done.returncode, control.counted) == (0, 0)


# The oracle

SCHEMA = """
CREATE TABLE job_queue (id, plugin, status, payload, parent_job_id, pipeline_name, replay_of, last_error, attempt);
CREATE TABLE job_log (job_id, status);
CREATE TABLE plugin_state (plugin_name, state);
"""
EVENT = json.dumps({"type": "posted", "payload": {"token": "a"}})
GOOD = """
INSERT INTO job_queue VALUES ('1', 'first', 'succeeded', :event, NULL, 'pair', NULL, NULL, 1);
INSERT INTO job_queue VALUES ('2', 'second', 'succeeded', :event, '1', 'pair', NULL, NULL, 1);
INSERT INTO job_log VALUES ('1', 'orphaned');
INSERT INTO job_log VALUES ('1', 'succeeded');
INSERT INTO job_log VALUES ('2', 'succeeded');
INSERT INTO plugin_state VALUES ('first', '{"count_first": 1}');
INSERT INTO plugin_state VALUES ('second', '{"count_second": 1}');
"""
# The first attempt of the first job was cut short after it had done its work: that is no double.
RECORDS = [["begin", "1", "1", "first", "a"], ["done", "1", "1", "first", "a"], ["begin", "1", "2", "first", "a"],
           ["done", "1", "2", "first", "a"], ["begin", "2", "1", "second", "a"], ["done", "2", "1", "second", "a"]]


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., list[tuple[str, str]]]:
    """Judge a good ending with something wrong in it."""
    def judged(change: str = "", told: dict[str, str] | None = None,
               records: list[list[str]] | None = None) -> list[tuple[str, str]]:
        database = tmp_path / "state.db"
        with closing(sqlite3.connect(database)) as conn:
            conn.executescript(SCHEMA + GOOD.replace(":event", f"'{EVENT}'") + change)
        findings = judge(database, told or {"a": "1"}, RECORDS if records is None else records)
        return [(finding.kind, finding.text) for finding in findings]

    return judged


def test_a_good_ending_has_no_findings(found) -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("UPDATE job_queue SET status = 'queued', attempt = 3 WHERE id = '2'",
         (STUCK, "a: job 2 of second is still queued, attempt 3: None")),
        ("UPDATE job_queue SET status = 'dead', last_error = 'E' WHERE id = '2'",
         (LOST, "a: job 2 of second is dead: E")),
        ("INSERT INTO job_log VALUES ('2', 'succeeded')", (DOUBLED, "a: job 2 of second succeeded 2 times")),
        ("DELETE FROM job_log WHERE status = 'orphaned'", (DOUBLED, "a: job 1 of first ran 2 times in 1 attempts")),
        ("UPDATE job_log SET status = 'failed' WHERE job_id = '2'",
         (LOST, "a: job 2 of second is succeeded and no attempt of it was logged so")),
        ("UPDATE job_queue SET parent_job_id = NULL",
         (LOST, "a: job 1 of first has succeeded and the pipeline's next step was never queued")),
        (f"INSERT INTO job_queue VALUES ('3', 'second', 'dead', '{EVENT}', '1', 'pair', NULL, NULL, 1)",
         (DOUBLED, "a: 2 jobs of second")),
        ("UPDATE plugin_state SET state = '{}' WHERE plugin_name = 'first'",
         (LOST, "the state of first counts 0 successes, the queue 1")),
        ("UPDATE plugin_state SET state = '{\"count_first\": 2}' WHERE plugin_name = 'first'",
         (DOUBLED, "the state of first counts 2 successes, the queue 1")),
    ],
)
def test_what_the_database_says_wrong_is_found(found, change: str, finding: tuple[str, str]) -> None:
    assert finding in found(change)


def test_an_acknowledged_job_that_is_gone_is_found(found) -> None:
    assert found(told={"a": "1", "b": "9"}) == [(LOST, "b: job 9 was acknowledged and is not in the database")]


def test_a_success_that_its_plugin_knows_nothing_of_is_found(found) -> None:
    assert found(records=RECORDS[:-1]) == [(LOST, "a: job 2 of second is succeeded and its plugin was never done")]


def test_two_runs_side_by_side_are_found(found) -> None:
    assert found(records=[*RECORDS, ["overlap", "2", "1", "second", "a"]]) == [
        (DOUBLED, "a: job 2 of second ran twice at the same time")]


def test_two_answers_for_one_webhook_are_found() -> None:
    told = Told()
    assert list(told.note("a", "1")) + list(told.note("a", "1")) == []
    assert [finding.kind for finding in told.note("a", "2")] == [DOUBLED]


def test_a_database_that_is_gone_or_damaged_is_found(tmp_path: Path) -> None:
    (tmp_path / "damaged.db").write_bytes(b"no database" * 1000)
    for name in ("gone.db", "damaged.db"):
        assert [finding.kind for finding in judge(tmp_path / name, {}, [])] == [LOST]
