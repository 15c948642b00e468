from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from ductile.dispatch.outcome import (
    STDERR_LIMIT_BYTES,
    STDOUT_LIMIT_BYTES,
    Failed,
    Outcome,
    Refused,
    Succeeded,
    classify,
)
from support.launch import Attempt, attending

OK = b'{"status": "ok"}'
KEPT = b'"state_updates": {"token": "new"}'
LIMIT = 10 * 1024 * 1024


def attempt(directory: Path, name: str, *, stdin: bytes = b"{}\n", timeout: int = 30, **variables: str) -> Attempt:
    """Run a plugin to its end and see that nothing of it is left."""
    done = attending(name, directory / "job", stdin=stdin, timeout=timeout, variables=variables).result()
    assert (done.survivors(), done.children, done.leaked) == ([], [], [])
    assert done.lock_is_free
    assert done.seconds <= timeout + 6
    return done


def saying(directory: Path, printed: bytes, **variables: str) -> Outcome:
    """Return the outcome of a plugin that prints this, and ends as the variables say."""
    said = directory / "said"
    said.write_bytes(printed)
    return classify(attempt(directory, "says", SAY=str(said), **variables).facts, timeout=30)


def test_a_flood_of_output_is_cut_at_ten_mebibytes_and_ended_at_once(tmp_path: Path) -> None:
    done = attempt(tmp_path, "floods_stdout")
    outcome = classify(done.facts, timeout=30)
    assert (type(outcome), outcome.error) == (Failed, "printed more than 10 MiB")
    assert done.facts.stdout_overflowed
    assert len(done.facts.stdout) == STDOUT_LIMIT_BYTES == LIMIT
    assert done.seconds < 30


@pytest.mark.parametrize(("size", "kind", "error"), [
    (LIMIT, Succeeded, None), (LIMIT + 1, Failed, "printed more than 10 MiB"),
])
def test_ten_mebibytes_are_the_most_that_may_be_printed(tmp_path: Path, size: int, kind: type, error: str) -> None:
    outcome = saying(tmp_path, OK.ljust(size))
    assert (type(outcome), outcome.error) == (kind, error)


def test_a_flood_of_complaints_is_counted_past_its_first_64_kib_and_fails_nothing(tmp_path: Path) -> None:
    done = attempt(tmp_path, "floods_stderr")
    outcome = classify(done.facts, timeout=30)
    whole = (b"complain!\n" * 300_000)
    assert type(outcome) is Succeeded
    assert done.facts.stderr == whole[:STDERR_LIMIT_BYTES]
    assert len(done.facts.stderr) == 65_536
    assert done.facts.stderr_dropped == 3_000_000 - 65_536
    assert outcome.stderr.endswith("\n[… 2,934,464 bytes more dropped]")


def test_a_flood_on_both_pipes_is_ended_by_the_one_that_has_a_limit(tmp_path: Path) -> None:
    done = attempt(tmp_path, "floods_both")
    outcome = classify(done.facts, timeout=30)
    assert (type(outcome), outcome.error) == (Failed, "printed more than 10 MiB")
    assert (len(done.facts.stdout), len(done.facts.stderr)) == (LIMIT, 65_536)
    assert done.facts.stderr_dropped > 0
    assert done.seconds < 30


def test_a_plugin_that_does_not_read_a_large_input_is_no_error(tmp_path: Path) -> None:
    outcome = classify(attempt(tmp_path, "reads_nothing", stdin=b"x" * 1024**2).facts, timeout=30)
    assert type(outcome) is Succeeded


@pytest.mark.parametrize("size", [0, 1, 65_537, 8 * 1024**2])
def test_a_plugin_is_given_the_whole_request_and_then_its_end(tmp_path: Path, size: int) -> None:
    outcome = classify(attempt(tmp_path, "counts_its_input", stdin=b"x" * size).facts, timeout=30)
    assert outcome.response.result.strip() == str(size)


@pytest.mark.parametrize(("printed", "error"), [
    (b"", "protocol error: printed nothing"),
    (b" \n", "protocol error: printed nothing"),
    (b'{"status": "ok", "result": "\xff"}', "protocol error: not one strict JSON object: byte 29: not UTF-8"),
    (b'{"status": "ok", "state_updates": {"a": NaN}}',
     "protocol error: not one strict JSON object: NaN is not allowed"),
    (OK + b"\n" + OK,
     "protocol error: not one strict JSON object: line 2, column 1: expected the end, got more after the first value;"
     " standard output must hold the JSON alone, print to standard error"),
    (b"[" * 100_000 + b"]" * 100_000, "protocol error: not one strict JSON object: nested more than 100 deep"),
    (b'{"status": "ok", "result": "\\ud800"}',
     "protocol error: not one strict JSON object: line 1, column 29: a lone surrogate is not allowed"),
    (b'["ok"]', "protocol error: expected one JSON object, got a list"),
], ids=["nothing", "blank", "not UTF-8", "NaN", "two objects", "100,000 lists", "lone surrogate", "no object"])
def test_what_is_not_one_strict_object_is_a_protocol_error_and_kept(tmp_path: Path, printed: bytes, error: str) -> None:
    outcome = saying(tmp_path, printed)
    assert (type(outcome), outcome.error, outcome.response) == (Failed, error, None)
    assert outcome.printed == (printed[:65_536].decode("utf-8", "replace") or None)


@pytest.mark.parametrize(("printed", "ending", "kind", "error"), [
    (b'{"status": "ok", %s}', {"EXIT": "78"}, Refused, "exited 78 (configuration error)"),
    (b'{"status": "error", "error": "no key", %s}', {"EXIT": "78"}, Refused, "exited 78 (configuration error): no key"),
    (b'{"status": "ok", %s}', {"EXIT": "3"}, Failed, "said ok but exited 3"),
    (b'{"status": "ok", %s}', {"DIE_OF": "SEGV"}, Failed, "killed by SIGSEGV"),
    (b'{"status": "ok", %s}', {"DIE_OF": "KILL"}, Failed, "killed by SIGKILL"),
    (b'{"status": "error", "error": "down", %s}', {}, Failed, "down"),
    (b'{"status": "error", "error": "gone", "retry": false, %s}', {}, Refused, "gone"),
    (b'{"status": "error", "error": "gone", "retry": false, %s}', {"EXIT": "1"}, Refused, "gone"),
])
def test_a_failure_keeps_what_a_readable_answer_wants_remembered(
    tmp_path: Path, printed: bytes, ending: dict[str, str], kind: type, error: str,
) -> None:
    outcome = saying(tmp_path, printed % KEPT, **ending)
    assert (type(outcome), outcome.error) == (kind, error)
    assert outcome.response.state_updates == {"token": "new"}
    assert outcome.exit_code == (None if "DIE_OF" in ending else int(ending.get("EXIT", "0")))


def test_a_process_gets_a_session_its_workspace_and_four_descriptors(tmp_path: Path) -> None:
    done = attempt(tmp_path, "describes_itself", LANG="C.UTF-8")
    said = json.loads(classify(done.facts, timeout=30).response.result)
    environ = said.pop("environ")
    environ.pop("PATH")
    environ.pop("LC_CTYPE", None)    # Python's own, in a plugin that is a Python program
    assert environ == {"DUCTILE_JOB_ID": done.job_id, "LANG": "C.UTF-8"}
    assert said == {
        "leads": [True, True], "cwd": str(done.directory.resolve()),
        "descriptors": ["/memfd", "pipe", "pipe", str(done.directory / "running" / "current")],
    }


def test_a_process_starts_with_no_signal_blocked_and_none_ignored_that_python_ignores(tmp_path: Path) -> None:
    done = attempt(tmp_path, "tells_its_signals")
    words = classify(done.facts, timeout=30).response.result.split()
    signals = {name: int(mask, 16) for name, mask in zip(words[::2], words[1::2], strict=False)}
    ignored_by_python = sum(1 << (number - 1) for number in (signal.SIGPIPE, signal.SIGXFSZ))
    assert (signals["SigBlk:"], signals["SigIgn:"] & ignored_by_python) == (0, 0)
