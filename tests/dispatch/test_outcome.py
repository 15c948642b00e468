from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from ductile.dispatch.outcome import (
    Facts,
    Failed,
    Interrupted,
    Outcome,
    Refused,
    Succeeded,
    TimedOut,
    Unrunnable,
    classify,
    log_status,
    retryable,
)
from ductile.protocol import LogLine

KEPT = {"state_updates": {"token": "new"}, "logs": [{"level": "info", "message": "rotated"}]}
OK = json.dumps({"status": "ok", **KEPT}).encode()
ERROR = json.dumps({"status": "error", "error": "no such user", **KEPT}).encode()
FINAL = json.dumps({"status": "error", "error": "no such user", "retry": False, **KEPT}).encode()
MANY = json.dumps({"status": "ok", "events": [{"type": "t"}] * 1234, **KEPT}).encode()


WORKSPACE = "/var/lib/ductile/ws/0f5a2c1e-7f7a-4a53-9d0c-3a1c8c8d2b10"
FILE, PORTABLE = f"{WORKSPACE}/a b/é.txt", "workspace://a b/é.txt"


def outcome(**facts: Any) -> Outcome:
    return classify(Facts(**facts), timeout=60)


# Each row of the table, in its order, with facts that would fit every row below it as well.
ROWS = [
    pytest.param({"ended_by": "stop", "exit_code": 78, "stdout": FINAL},
                 Interrupted, "interrupted by a stop of the daemon", id="ended by a stop"),
    pytest.param({"ended_by": "deadline", "exit_code": 78, "stdout": FINAL},
                 TimedOut, "timed out after 60s", id="ended at the deadline"),
    pytest.param({"exit_code": 78, "stdout": OK}, Refused, "exited 78 (configuration error)", id="exit code 78"),
    pytest.param({"exit_code": 78, "stdout": ERROR},
                 Refused, "exited 78 (configuration error): no such user", id="exit code 78 with its reason"),
    pytest.param({"exit_code": 78, "stdout": b"{}", "stdout_overflowed": True},
                 Refused, "exited 78 (configuration error)", id="exit code 78 before a flood"),
    pytest.param({"could_not_start": "run.sh: Permission denied"},
                 Unrunnable, "could not be started: run.sh: Permission denied", id="not started"),
    pytest.param({"signal": 9, "stdout": OK, "stdout_overflowed": True},
                 Failed, "printed more than 10 MiB", id="flood"),
    pytest.param({"signal": 11, "stdout": FINAL}, Failed, "killed by SIGSEGV", id="signal"),
    pytest.param({"signal": 11, "stdout": b"half"}, Failed, "killed by SIGSEGV", id="signal before protocol error"),
    pytest.param({"signal": 34}, Failed, "killed by signal 34", id="signal without a name"),
    pytest.param({"stdout": OK}, Failed, "how it ended is unknown", id="unknown end"),
    pytest.param({"exit_code": 0}, Failed, "protocol error: printed nothing", id="nothing printed"),
    pytest.param({"exit_code": 1}, Failed, "exited 1", id="nothing and exit 1"),
    pytest.param({"exit_code": 1, "stderr": b"Traceback\nValueError: boom\n\n"}, Failed, "exited 1: ValueError: boom",
                 id="nothing and exit 1 with a traceback"),
    pytest.param({"exit_code": 1, "stdout": b" \n", "stderr": f"no {FILE}".encode()}, Failed, f"exited 1: no {FILE}",
                 id="blanks and exit 1"),
    pytest.param({"exit_code": 1, "stderr": b"half a", "stderr_dropped": 9}, Failed, "exited 1",
                 id="a last line that was not kept"),
    pytest.param({"exit_code": 0, "stderr": b"ValueError: boom"}, Failed, "protocol error: printed nothing",
                 id="nothing printed, exit 0, and a word on standard error"),
    pytest.param({"exit_code": 2, "stdout": b"{}", "stderr": b"boom"}, Failed,
                 "protocol error: the key 'status' is missing (exited 2: boom)", id="protocol error and exit code"),
    pytest.param({"exit_code": 78, "stderr": b"set api_url\n"}, Refused,
                 "exited 78 (configuration error): set api_url", id="exit code 78 with standard error"),
    pytest.param({"exit_code": 0, "stdout": b'{"status":"error","retry":1}'},
                 Failed, "protocol error: retry: expected true or false, got 1", id="protocol error"),
    pytest.param({"exit_code": 0, "stdout": ERROR}, Failed, "no such user", id="status error"),
    pytest.param({"exit_code": 3, "stdout": ERROR}, Failed, "no such user", id="status error and exit code"),
    pytest.param({"exit_code": 0, "stdout": FINAL}, Refused, "no such user", id="status error, retry false"),
    pytest.param({"exit_code": 0, "stdout": b'{"status":"error"}'},
                 Failed, "said error without a reason", id="status error without a reason"),
    pytest.param({"exit_code": 0, "stdout": b'{"status":"error","error":" \\n"}'},
                 Failed, "said error without a reason", id="status error with a blank reason"),
    pytest.param({"exit_code": 3, "stdout": OK}, Failed, "said ok but exited 3", id="ok, exit code not 0"),
    pytest.param({"exit_code": 3, "stdout": MANY}, Failed, "said ok but exited 3", id="ok, exit code, many events"),
    pytest.param({"exit_code": 0, "stdout": MANY},
                 Refused, "emitted 1,234 events, at most 1,000 are allowed", id="too many events"),
    pytest.param({"exit_code": 0, "stdout": OK}, Succeeded, None, id="ok"),
    pytest.param({"exit_code": 0, "stdout": b'{"status":"ok","retry":false,"error":"x"}'},
                 Succeeded, None, id="ok whatever else it says"),
]


@pytest.mark.parametrize(("facts", "kind", "error"), ROWS)
def test_the_first_row_that_fits_decides(facts: dict[str, Any], kind: type, error: str | None) -> None:
    found = outcome(**facts)
    assert (type(found), found.error) == (kind, error)
    assert found.exit_code == facts.get("exit_code")


@pytest.mark.parametrize("facts", [
    {"ended_by": "stop", "signal": 15},
    {"ended_by": "stop", "exit_code": 0},
    {"ended_by": "deadline", "signal": 9},
    {"ended_by": "deadline", "exit_code": 0},
    {"exit_code": 78},
    {"signal": 11},
    {"exit_code": 3},
    {"exit_code": 0},
])
@pytest.mark.parametrize("stdout", [OK, ERROR, FINAL, MANY], ids=["ok", "error", "final", "many"])
def test_a_valid_response_is_kept_whatever_the_outcome(facts: dict[str, Any], stdout: bytes) -> None:
    found = outcome(stdout=stdout, **facts)
    assert found.response is not None
    assert found.response.state_updates == {"token": "new"}
    assert found.response.logs == (LogLine(level="info", message="rotated"),)
    assert found.printed is None


def test_the_last_line_of_standard_error_names_files_so_that_they_can_be_found_later() -> None:
    found = classify(Facts(exit_code=1, stderr=f"cannot read {FILE}\n".encode()), timeout=60, workspace_dir=WORKSPACE)
    assert found.error == f"exited 1: cannot read {PORTABLE}"


def test_a_flood_holds_no_response_even_where_its_beginning_is_one() -> None:
    found = outcome(signal=9, stdout=OK, stdout_overflowed=True)
    assert found.response is None
    assert found.printed == OK.decode()


@pytest.mark.parametrize(("count", "kind", "error"), [
    (1000, Succeeded, None), (1001, Refused, "emitted 1,001 events, at most 1,000 are allowed"),
])
def test_a_thousand_events_are_the_most(count: int, kind: type, error: str | None) -> None:
    stdout = json.dumps({"status": "ok", "events": [{"type": "t"}] * count}).encode()
    found = outcome(exit_code=0, stdout=stdout)
    assert (type(found), found.error, found.is_overruled) == (kind, error, count > 1000)


@pytest.mark.parametrize(("stdout", "printed"), [
    (b"", None),
    (b"Traceback\n", "Traceback\n"),
    (b"a\0b\xff", "a\ufffdb\ufffd"),
    (b"x" * 65536, "x" * 65536),
    (b"x" * 65537, "x" * 65536),
])
def test_the_beginning_of_what_is_no_response_is_kept(stdout: bytes, printed: str | None) -> None:
    assert outcome(exit_code=0, stdout=stdout).printed == printed


@pytest.mark.parametrize(("stderr", "dropped", "expected"), [
    (b"", 0, ""),
    (b"warning\n", 0, "warning\n"),
    (b"caf\xc3\xa9 \xff a\0b", 0, "caf\u00e9 \ufffd a\ufffdb"),
    (b"line", 1, "line\n[… 1 byte more dropped]"),
    (b"line\n", 1234567, "line\n[… 1,234,567 bytes more dropped]"),
    (b"", 5, "[… 5 bytes more dropped]"),
])
@pytest.mark.parametrize("end", [{"exit_code": 0, "stdout": OK}, {"exit_code": 1}, {"ended_by": "deadline"}])
def test_stderr_is_kept_readable(end: dict[str, Any], stderr: bytes, dropped: int, expected: str) -> None:
    assert outcome(stderr=stderr, stderr_dropped=dropped, **end).stderr == expected


@pytest.mark.parametrize(("said", "error"), [
    ("two\nlines\x1b[31m", "two\\nlines\\x1b[31m"),
    ("x" * 5000, "x" * 999 + "…"),
])
def test_an_error_is_one_short_line(said: str, error: str) -> None:
    stdout = json.dumps({"status": "error", "error": said}).encode()
    assert outcome(exit_code=0, stdout=stdout).error == error
    assert "\n" not in outcome(exit_code=78, stdout=stdout).error
    assert len(outcome(exit_code=78, stdout=stdout).error) <= 1000
    assert "\n" not in outcome(could_not_start=said).error
    assert len(outcome(could_not_start=said).error) <= 1000


@pytest.mark.parametrize("number", range(1, 32))
def test_a_signal_is_named_as_the_system_names_it(number: int) -> None:
    assert outcome(signal=number).error == f"killed by {signal.Signals(number).name}"


@pytest.mark.parametrize(("found", "again", "status"), [
    (Succeeded(), False, "succeeded"),
    (Failed(error="e"), True, "failed"),
    (Refused(error="e"), False, "failed"),
    (TimedOut(error="e"), True, "timed_out"),
    (Unrunnable(error="e"), True, "failed"),
    (Interrupted(by="stop"), True, "interrupted"),
    (Interrupted(by="crash"), True, "orphaned"),
])
def test_an_outcome_says_whether_to_try_again_and_how_the_ledger_calls_it(
    found: Outcome, again: bool, status: str,
) -> None:
    assert (retryable(found), log_status(found)) == (again, status)


# Paths into the workspace


def ended(answer: Any, **facts: Any) -> Outcome:
    stdout = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return classify(Facts(**{"exit_code": 0, "stdout": stdout} | facts), timeout=60, workspace_dir=WORKSPACE)


@pytest.mark.parametrize("spelled", ["/", "\\/", "\\u002f", "\\u002F"])
def test_a_path_becomes_portable_however_its_letters_are_spelled(spelled: str) -> None:
    stdout = ('{{"status":"ok","result":"{}"}}'.format(f"{WORKSPACE}/a".replace("/", spelled))).encode()
    found = classify(Facts(exit_code=0, stdout=stdout), timeout=60, workspace_dir=WORKSPACE)
    assert found.response.result == "workspace://a"


def test_in_all_that_a_response_says_paths_become_portable() -> None:
    found = ended({
        "status": "ok", "result": f"made {FILE}", "error": f"odd: {FILE}", "unknown": {FILE: [FILE, 1, None]},
        "events": [{"type": f"made {FILE}", "dedupe_key": FILE,
                    "payload": {FILE: {"deep": [[FILE]]}, "top": WORKSPACE}}],
        "state_updates": {FILE: FILE}, "logs": [{"level": "info", "message": f"wrote {FILE}, {FILE}"}]})
    assert type(found) is Succeeded
    response = found.response
    assert (response.result, response.error) == (f"made {PORTABLE}", f"odd: {PORTABLE}")
    assert (response.events[0].type, response.events[0].dedupe_key) == (f"made {PORTABLE}", PORTABLE)
    assert response.events[0].payload == {PORTABLE: {"deep": [[PORTABLE]]}, "top": "workspace://"}
    assert response.state_updates == {PORTABLE: PORTABLE}
    assert response.logs[0].message == f"wrote {PORTABLE}, {PORTABLE}"
    assert response.raw["unknown"] == {PORTABLE: [PORTABLE, 1, None]}
    assert WORKSPACE not in repr(found)


@pytest.mark.parametrize(("answer", "facts", "error"), [
    ({"status": "error", "error": f"cannot read {FILE}"}, {}, f"cannot read {PORTABLE}"),
    ({"status": "error", "error": f"cannot read {FILE}", "retry": False}, {}, f"cannot read {PORTABLE}"),
    ({"status": "error", "error": f"no key in {FILE}"}, {"exit_code": 78},
     f"exited 78 (configuration error): no key in {PORTABLE}"),
    ({"status": FILE}, {}, f"protocol error: status: expected one of ok, error, got '{PORTABLE}'"),
    ({"status": "ok", "events": [FILE]}, {}, f"protocol error: events[0]: expected a mapping, got '{PORTABLE}'"),
    ({"status": "ok", "retry": FILE}, {"exit_code": 3},
     f"protocol error: retry: expected true or false, got '{PORTABLE}' (exited 3)"),
])
def test_an_error_names_files_by_portable_paths(answer: Any, facts: dict[str, Any], error: str) -> None:
    assert ended(answer, **facts).error == error


def test_a_repeated_key_is_named_by_its_portable_path() -> None:
    short = "/w/0f5a2c1e-7f7a-4a53-9d0c-3a1c8c8d2b10"
    stdout = json.dumps({"status": "ok"})[:-1].encode() + f', "{short}/a": 1, "{short}/a": 2}}'.encode()
    found = classify(Facts(exit_code=0, stdout=stdout), timeout=60, workspace_dir=short)
    assert found.error == "protocol error: not one strict JSON object: the key 'workspace://a' is repeated"
    assert short not in repr(found)


@pytest.mark.parametrize("end", [
    {}, {"exit_code": 1}, {"exit_code": None, "ended_by": "deadline"}, {"exit_code": None, "ended_by": "stop"},
    {"exit_code": None, "signal": 9, "stdout_overflowed": True}, {"exit_code": None, "signal": 11},
])
def test_what_was_printed_and_complained_has_portable_paths(end: dict[str, Any]) -> None:
    stderr = f"{FILE}: gone\n{WORKSPACE}\n".encode()
    found = ended(f"Traceback {FILE}\n".encode(), stderr=stderr, stderr_dropped=3, **end)
    assert found.printed == f"Traceback {PORTABLE}\n"
    assert found.stderr == f"{PORTABLE}: gone\nworkspace://\n[… 3 bytes more dropped]"
    assert WORKSPACE not in repr(found)


@pytest.mark.parametrize("text", [
    f"{WORKSPACE}2/x", f"{WORKSPACE}.old", f"{WORKSPACE}-x", WORKSPACE[:-1], "/etc/passwd",
])
def test_other_paths_stay_as_they_are(text: str) -> None:
    found = ended({"status": "error", "error": text}, stderr=text.encode())
    assert (found.error, found.stderr) == (text, text)


def test_without_a_workspace_nothing_is_changed() -> None:
    found = outcome(exit_code=0, stdout=json.dumps({"status": "error", "error": FILE}).encode(), stderr=FILE.encode())
    assert (found.error, found.stderr) == (FILE, FILE)
