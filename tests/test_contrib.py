"""What a newcomer types: the quickstart, the benchmark."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contrib.benchmarks.figures import Figure, table
from support import processes
from support.newcomer import PATIENCE_SECONDS, ROOT, Shell, environment, killed_when_late, make_clone
from support.wheels import Built

CONTRIB = ROOT / "contrib"
HAS_COMPILER = shutil.which("cc", path=os.defpath) is not None
INSTALLING_SECONDS = 300   # from the package index, over whatever network there is


def run(command: list[str | Path], cwd: Path, *, seconds: int = PATIENCE_SECONDS,
        **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program with an environment of its own to its end. A late one is killed with all that it started."""
    with subprocess.Popen(command, cwd=cwd, env=environment(cwd, **environ), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            # What it left behind would hold the pipes, and the test would wait for ever.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


# The benchmark


def test_a_quick_benchmark_prints_every_figure_without_a_verdict(tmp_path: Path) -> None:
    done = run([sys.executable, "-m", "benchmarks", "--quick"], CONTRIB, seconds=300, TMPDIR=str(tmp_path))
    assert (done.returncode, list(tmp_path.iterdir())) == (0, []), done.stderr
    header, *rows = done.stdout.splitlines()
    columns = [header.index(title) for title in ("what", "figure", "must be")]
    assert [row[columns[0]:columns[1]].strip() for row in rows] == [
        "draining 5 queued jobs, of a bare loop's rate",
        *(f"ductilectl {name}, 50 jobs waiting and finished" for name in ("queue", "jobs", "logs", "inspect")),
        "ready after start, 50 jobs waiting and finished",
        "a job's cost with 50 rows waiting and finished, of that with 5",
        "the longest call while 50 chains are pruned, beyond a bare spawn",
        "a signal acted on, idle daemon, the longest of 3",
        "a call to its plugin's start, idle daemon, beyond a bare spawn",
        "an accepted webhook to its plugin's start, idle daemon, beyond a bare spawn",
        "durable webhooks over 1 connection, of a bare server's rate",
        "durable webhooks over 8 connections, of a bare server's rate",
        "durable webhooks over 32 connections, of a bare server's rate",
        *(["durable webhooks over 32 connections, every fsync 5 ms slower, the same"] if HAS_COMPILER else []),
        "idle for 0.1 s, context switches of all threads",
        "idle, processor time a day",
        "resident memory, idle, 2 plugins, 2 pipelines",
        "resident memory, idle, 2 plugins, 2 pipelines, a listener",
        "the same after 8 webhooks of 0.002 MB",
        "ductilectl status, 50 jobs in the database",
        "clone of 20 files, verified, of cp -al's time",
        "completing an artifact of 1 MiB in the page cache, of BLAKE3's rate",
        "2 chains of 5 steps with their files, of the rate of bare spawns",
        "compiling 5 pipelines of 20 steps",
    ]
    assert [row[columns[2]:].split("  ")[0] for row in rows] == [
        "at least 0.85", *["at most 150 ms"] * 4, "at most 0.5 s", "at most 1.2", "at most 50 ms", "at most 50 ms",
        "at most 50 ms", "at most 2 ms", "at least 0.8", "at least 0.85", "at least 1",
        *(["at least 10"] if HAS_COMPILER else []), "at most 1", "at most 10 s", "at most 30 MiB", "at most 35 MiB",
        "at most 45 MiB", "at most 150 ms", "at most 1.5 times", "at least 0.5", "at least 0.82", "at most 1 s",
    ]
    assert {row.split()[-1] for row in rows} == {"-"}


def test_a_benchmark_that_needs_a_compiler_is_skipped_where_there_is_none(tmp_path: Path) -> None:
    done = run([sys.executable, "-m", "benchmarks", "--quick", "webhooks-slow"], CONTRIB, TMPDIR=str(tmp_path),
               PATH=str(tmp_path))
    assert (done.returncode, done.stdout.splitlines()[1:], done.stderr) == (0, [], (
        "bench: webhooks-slow\n"
        "bench: webhooks-slow skipped: no C compiler (cc) to build what slows the disk\n"))


def test_the_benchmark_names_what_it_has_where_it_has_not_what_is_asked_for() -> None:
    done = run([sys.executable, "-m", "benchmarks", "drian"], CONTRIB)
    assert (done.returncode, done.stdout, done.stderr) == (64, "", (
        "contrib/bench: argument NAME: no benchmark 'drian': there are drain, million, pruning, signals,"
        " wake, hook-wake, webhooks, webhooks-slow, idle, status, clone, digest, chain, compiling; see"
        " contrib/bench --help\n"))


@pytest.mark.parametrize(
    ("value", "limit", "is_floor", "verdict"),
    [
        (0.85, 0.85, True, "ok"), (0.849, 0.85, True, "MISSED"), (2.0, 0.85, True, "ok"),
        (5.0, 5, False, "ok"), (5.01, 5, False, "MISSED"), (0.0, 5, False, "ok"),
    ],
)
def test_a_figure_is_judged_by_its_mark(value, limit, is_floor, verdict) -> None:
    figure = Figure(what="it", value=value, limit=limit, is_floor=is_floor)
    assert table([figure], judged=True).splitlines()[1].split()[-1] == verdict


def test_the_table_is_aligned_and_shows_what_a_figure_was_made_from() -> None:
    figures = [
        Figure(what="a rate", value=0.91234, limit=0.85, is_floor=True, detail="9,120 of 10,000 jobs/s"),
        Figure(what="a longer name", value=12345.6, limit=5, unit="ms"),
    ]
    assert table(figures, judged=True) == (
        "what           figure                          must be\n"
        "a rate         0.912 (9,120 of 10,000 jobs/s)  at least 0.85  ok\n"
        "a longer name  12,346 ms                       at most 5 ms   MISSED"
    )


# The quickstart


@pytest.fixture
def clone(built: Built) -> Iterator[Path]:
    """A clone as the quickstart leaves it: installed."""
    yield built.clone
    shutil.rmtree(built.clone / ".quickstart", ignore_errors=True)


def files_of(directory: Path) -> set[Path]:
    return {path for path in directory.rglob("*") if not path.relative_to(directory).parts[0].startswith(".")}


def steps(printed: str) -> list[str]:
    return re.findall(r"^== (.*)$", printed, re.MULTILINE)


# New enough, makes environments of its own kind, and its pip finds nothing. Called with -c TEXT, -m MODULE ARGUMENT...
PYTHON_WITHOUT_NETWORK = """\
#!/bin/sh
case $1$2 in
    -mvenv) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    -mpip) echo 'ERROR: no matching distribution' >&2; exit 1 ;;
esac
"""
ANNOUNCED = [
    "Start the daemon: it runs echo at once, and then every five minutes",
    "Post a push as GitHub does, signed: echo gets it, and a route passes its event on to webhook_log",
    "Kill the daemon in the middle of a job, and start it again: the job runs once more",
    "Run a pipeline: a link in a channel becomes a summary in that channel and a note on the disk",
    "What you have seen",
]
MOST_LINES, MOST_COLUMNS = 75, 100
# In place of programs that not every machine has: they must not be needed.
ABSENT = "#!/bin/sh\necho 'a program that need not be there was called' >&2\nexit 127\n"


@pytest.mark.parametrize("script", ["bench", "quickstart", "run-tests", "try-on"])
def test_each_script_is_executable_and_free_of_syntax_errors(script: str) -> None:
    done = run(["bash", "-n", CONTRIB / script], ROOT)
    assert (done.returncode, done.stderr, os.access(CONTRIB / script, os.X_OK)) == (0, "", True)


def without(directory: Path, *programs: str) -> str:
    """Return a PATH on which these programs fail."""
    directory.mkdir()
    for name in programs:
        (directory / name).write_text(ABSENT, encoding="utf-8")
        (directory / name).chmod(0o755)
    return f"{directory}:{Path(sys.executable).parent}:{os.defpath}"


def test_the_quickstart_does_what_it_says(clone: Path, tmp_path: Path) -> None:
    before = files_of(clone)
    path = without(tmp_path / "absent", "curl", "wget", "jq", "flock", "sqlite3")
    done = run([clone / "contrib" / "quickstart"], clone, PATH=path)
    assert (done.returncode, done.stderr, steps(done.stdout)) == (0, "", ANNOUNCED), done.stdout
    said = done.stdout.splitlines()
    assert (len(said) <= MOST_LINES, [line for line in said if len(line) > MOST_COLUMNS]) == (True, [])
    _, _, posted, killed, chain, recap = done.stdout.split("\n== ")
    jobs = r"^ *[*-] \w{8} (\w+) handle.*: (\w+),"
    assert re.findall(jobs, posted, re.MULTILINE) == [("echo", "succeeded"), ("webhook_log", "succeeded")]
    assert re.findall(r"attempt (\d) (\w+) in", killed)[1:] == [("2", "succeeded")]
    assert re.findall(jobs, chain, re.MULTILINE) == [
        (plugin, "succeeded") for plugin in ("discord", "youtube_transcript", "summarize", "discord_notify", "note")]
    assert chain.count("#1123456789012345678: **How a blade is made**") == 1
    assert re.search(r"^\d{4}-\d\d-\d\d-how-a-blade-is-made\.md$", chain, re.MULTILINE)
    assert files_of(clone) == before
    goes_on_as_the_recap_says(recap, tmp_path / "elsewhere")


def goes_on_as_the_recap_says(recap: str, directory: Path) -> None:
    """Paste the commands at the end of the quickstart in a directory of one's own."""
    commands = re.findall(r"^  (.*)$", recap, re.MULTILINE)
    assert [command.split()[0] for command in commands] == [".", "export", "ductiled", "ductilectl", "ductilectl",
                                                            "kill"]
    directory.mkdir()
    shell = Shell(directory)
    try:
        said = shell.paste("".join(f"{command}\n" for command in commands if "monitor" not in command))
    finally:
        errors = shell.close()
    running = re.match(r"daemon: running as PID (\d+) ", said)
    assert (running is not None, errors) == (True, ""), said
    processes.await_end(int(running[1]), PATIENCE_SECONDS)


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_quickstarts_help_is_the_head_of_the_script(option: str) -> None:
    done = run([CONTRIB / "quickstart", option], ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Shows Ductile at work: ")
    assert done.stdout.endswith(" that is 3.11 or newer)\n")


def test_the_quickstart_refuses_what_it_does_not_know() -> None:
    done = run([CONTRIB / "quickstart", "--fast"], ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (
        64, "", "quickstart: no such argument: '--fast'; see contrib/quickstart --help\n")


def test_a_second_quickstart_that_is_stopped_leaves_no_process_behind_and_the_first_alone(clone: Path) -> None:
    mine = clone / ".quickstart" / "1"
    mine.mkdir(parents=True)
    for changed in (mine / "config.yaml", clone / ".quickstart" / "letter"):
        changed.write_text("not to be lost", encoding="utf-8")
    said = []
    with subprocess.Popen([clone / "contrib" / "quickstart"], cwd=clone, env=environment(clone), stdout=subprocess.PIPE,
                          stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, text=True) as process:
        watchdog = killed_when_late(process)
        try:
            for line in process.stdout:
                said.append(line)
                if "kill -9" in line:
                    process.send_signal(signal.SIGTERM)
        finally:
            watchdog.cancel()
    assert process.returncode == 128 + signal.SIGTERM
    # That nothing of it lives is seen by the fixture that watches every test.
    assert "$ export DUCTILE_CONFIG=.quickstart/2\n" in said
    assert [path.name for path in mine.iterdir()] == ["config.yaml"]
    assert (mine / "config.yaml").read_text(encoding="utf-8") == "not to be lost"
    assert (clone / ".quickstart" / "letter").exists()


def test_a_quickstart_without_a_good_python_says_so(tmp_path: Path) -> None:
    clone = make_clone(tmp_path / "clone")
    done = run([clone / "contrib" / "quickstart"], clone, PYTHON="/no/such/python3")
    assert (done.returncode, done.stderr) == (1, "quickstart: no Python 3.11 or newer found in PYTHON=/no/such/python3:"
                                                 " install one, or name it with PYTHON=/path/to/python3\n")


def test_a_quickstart_that_cannot_install_says_so_in_one_line_and_where_to_read_on(tmp_path: Path) -> None:
    clone = make_clone(tmp_path / "clone")
    python = tmp_path / "python3"
    python.write_text(PYTHON_WITHOUT_NETWORK, encoding="utf-8")
    python.chmod(0o755)
    done = run([clone / "contrib" / "quickstart"], clone, PYTHON=str(python))
    assert (done.returncode, done.stderr) == (1, "quickstart: pip could not install Ductile: is the network there?"
                                                 " What it says is in .quickstart/pip.log\n")
    assert (clone / ".quickstart" / "pip.log").read_text(encoding="utf-8") == "ERROR: no matching distribution\n"


@pytest.mark.skipif(
    os.environ.get("CI") != "true" and "DUCTILE_TEST_INSTALL" not in os.environ,
    reason="installs from the package index: only in CI (CI=true), or with DUCTILE_TEST_INSTALL=1",
)
def test_a_fresh_clone_gets_going(tmp_path: Path) -> None:
    clone = make_clone(tmp_path / "clone")
    before = files_of(clone)
    passed_on = {name: os.environ[name] for name in os.environ if name.startswith("PIP_") or "proxy" in name.lower()}
    done = run([clone / "contrib" / "quickstart"], clone, seconds=INSTALLING_SECONDS, PYTHON=sys.executable,
               **passed_on)
    log = clone / ".quickstart" / "pip.log"
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + log.read_text(encoding="utf-8")
    assert steps(done.stdout) == ["Installing this checkout into .venv-quickstart", *ANNOUNCED]
    assert files_of(clone) == before


# Other releases


def test_a_release_that_cannot_be_tried_is_skipped_with_the_reason(tmp_path: Path) -> None:
    # debootstrap is in /usr/sbin, which is not on this path.
    done = run([CONTRIB / "try-on", "trixie", "sid"], tmp_path)
    why = "debootstrap is not installed" if os.geteuid() == 0 else "only root can make a chroot"
    assert (done.returncode, done.stdout, done.stderr) == (77, f"trixie: skipped: {why}\nsid: skipped: {why}\n", "")


def test_a_release_that_try_on_does_not_know_is_a_wrong_command_line(tmp_path: Path) -> None:
    done = run([CONTRIB / "try-on", "potato"], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (
        64, "", "try-on: unknown argument potato; see contrib/try-on --help\n")
