"""Classifies the facts of a run as one of a closed set of outcomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ductile.protocol import ProtocolError, Response, parse_response, read_response
from ductile.routing.portable_paths import to_portable
from ductile.text import counted, one_line
from ductile.workspace.artifact import Artifact

STDOUT_LIMIT_BYTES = 10 * 1024 * 1024
STDERR_LIMIT_BYTES = 64 * 1024
PRINTED_LIMIT_BYTES = 64 * 1024
EVENTS_LIMIT = 1000

CANCELLED = "cancelled by operator"

# EX_CONFIG of sysexits.h: a retry would change nothing.
_EXIT_CONFIG = 78

# Linux's numbers, signal(7). They differ on Alpha, SPARC, MIPS and PA-RISC.
_SIGNALS = dict(enumerate((
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1",
    "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP",
    "SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR",
    "SIGSYS"), start=1))


EndedBy: TypeAlias = Literal["deadline", "stop", "cancel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was observed of one run. A process that ended has an `exit_code` or a `signal`, never both."""

    exit_code: int | None = None
    signal: int | None = None
    stdout: bytes = b""
    stdout_overflowed: bool = False
    stderr: bytes = b""
    stderr_dropped: int = 0    # bytes that came after those in `stderr`
    ended_by: EndedBy | None = None    # what ended it before it exited
    could_not_start: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    error: str | None = None            # one line; None for a success only
    response: Response | None = None    # a valid response, whatever the outcome
    exit_code: int | None = None
    stderr: str = ""
    printed: str | None = None          # the first 64 KiB of output that is no valid response
    is_overruled: bool = False          # the plugin succeeded, but the core refused its response or files


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded(_Ended):
    """It said ok and exited with 0. Its events and files count."""

    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(_Ended):
    """It failed, and another attempt may succeed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(_Ended):
    """It failed permanently: another attempt would end the same way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut(_Ended):
    """It was ended at its deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrunnable(_Ended):
    """It could not be started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled(_Ended):
    """An operator cancelled the job while it ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted(_Ended):
    """It was interrupted by a stop or a crash of the daemon."""

    by: Literal["stop", "crash"]


Outcome: TypeAlias = Succeeded | Failed | Refused | TimedOut | Unrunnable | Cancelled | Interrupted


def overruled(outcome: Outcome, by: type[Failed] | type[Refused], error: str) -> Failed | Refused:
    """Return the outcome of an attempt whose response or files the core refuses: its events do not count."""
    return by(error=error, response=outcome.response, exit_code=outcome.exit_code, stderr=outcome.stderr,
              printed=outcome.printed, is_overruled=True)


def cancelled(outcome: Outcome) -> Cancelled:
    """Return what an attempt counts as if its job was cancelled meanwhile; it keeps what a failure keeps."""
    return Cancelled(error=CANCELLED, response=outcome.response, exit_code=outcome.exit_code, stderr=outcome.stderr,
                     printed=outcome.printed, is_overruled=outcome.is_overruled)


def retryable(outcome: Outcome) -> bool:
    """Return whether the job may be retried."""
    return not isinstance(outcome, Succeeded | Refused | Cancelled)


def log_status(outcome: Outcome) -> Literal["succeeded", "failed", "timed_out", "orphaned", "interrupted"]:
    """Return the status of the attempt's row in `job_log`."""
    match outcome:
        case Succeeded():
            return "succeeded"
        case TimedOut():
            return "timed_out"
        case Interrupted(by="crash"):
            return "orphaned"
        case Interrupted():
            return "interrupted"
        case Failed() | Refused() | Unrunnable() | Cancelled():
            return "failed"


def classify(facts: Facts, *, timeout: int, workspace_dir: str | None = None) -> Outcome:
    """Return the outcome of a run. The first rule that matches decides.

    `timeout`, in seconds, is only for the error text. Paths into `workspace_dir` become portable in all output; pass
    None if nothing of it is stored.
    """

    may_be_named = workspace_dir is not None and _may_name(facts.stdout, workspace_dir)

    def portable(value: Any) -> Any:
        return value if workspace_dir is None else to_portable(value, workspace_dir)

    response, fault = _response(facts, portable, may_be_named)
    printed = _readable(facts.stdout[:PRINTED_LIMIT_BYTES]) if facts.stdout and response is None else None
    seen: dict[str, Any] = {
        "response": response, "exit_code": facts.exit_code, "stderr": portable(_stderr(facts)),
        "printed": portable(printed),
    }
    if facts.ended_by == "cancel":
        return Cancelled(error=CANCELLED, **seen)
    if facts.ended_by == "stop":
        return Interrupted(error="interrupted by a stop of the daemon", by="stop", **seen)
    if facts.ended_by == "deadline":
        return TimedOut(error=f"timed out after {timeout}s", **seen)
    if facts.exit_code == _EXIT_CONFIG:
        return Refused(error=_misconfigured(response, facts, seen["stderr"]), **seen)
    if facts.could_not_start is not None:
        return Unrunnable(error=one_line(f"could not be started: {facts.could_not_start}"), **seen)
    broken = _broken(facts, fault, seen["stderr"])
    if broken is not None:
        return Failed(error=one_line(broken), **seen)
    assert response is not None, "without one it is broken"
    return _answered(response, seen)


def _may_name(stdout: bytes, workspace_dir: str) -> bool:
    """Return whether JSON may contain the path, perhaps escaped. Searching all its values would take long."""
    return b"\\u" in stdout or b"\\/" in stdout or workspace_dir.encode("utf-8", "surrogateescape") in stdout


def _response(facts: Facts, portable: Callable[[Any], Any],
              may_be_named: bool) -> tuple[Response | None, str | None]:
    if facts.stdout_overflowed:
        return None, f"printed more than {STDOUT_LIMIT_BYTES // 1024**2} MiB"
    try:
        raw = parse_response(facts.stdout)
        return read_response(portable(raw) if may_be_named else raw), None
    except ProtocolError as error:
        # The error may name a key with a path.
        return None, f"protocol error: {portable(str(error))}"


def _broken(facts: Facts, fault: str | None, stderr: str) -> str | None:
    # Too much output comes first: it is why the group was killed.
    if facts.stdout_overflowed:
        return fault
    if facts.signal is not None:
        return f"killed by {_SIGNALS.get(facts.signal, f'signal {facts.signal}')}"
    if facts.exit_code is None:
        return "how it ended is unknown"
    if fault is None or facts.exit_code == 0:
        return fault
    exited = _with_reason(f"exited {facts.exit_code}", _last_line(facts, stderr))
    return f"{fault} ({exited})" if facts.stdout.strip() else exited


def _last_line(facts: Facts, stderr: str) -> str | None:
    """Return the last line of stderr, which names the error of most programs, None if it was dropped."""
    lines = stderr.strip().splitlines()
    return lines[-1] if lines and not facts.stderr_dropped else None


def _with_reason(text: str, reason: str | None) -> str:
    return f"{text}: {reason}" if reason else text


def _answered(response: Response, seen: dict[str, Any]) -> Outcome:
    if response.status == "error":
        error = one_line(response.error or "") or "said error without a reason"
        return Failed(error=error, **seen) if response.retry else Refused(error=error, **seen)
    if seen["exit_code"] != 0:
        return Failed(error=f"said ok but exited {seen['exit_code']}", **seen)
    if len(response.events) > EVENTS_LIMIT:
        return overruled(Succeeded(**seen), Refused,
                         f"emitted {len(response.events):,} events, at most {EVENTS_LIMIT:,} are allowed")
    return Succeeded(**seen)


def _misconfigured(response: Response | None, facts: Facts, stderr: str) -> str:
    reason = response.error if response is not None else _last_line(facts, stderr)
    return one_line(_with_reason(f"exited {_EXIT_CONFIG} (configuration error)", reason))


def _stderr(facts: Facts) -> str:
    text = _readable(facts.stderr)
    if not facts.stderr_dropped:
        return text
    separator = "\n" if text and not text.endswith("\n") else ""
    return f"{text}{separator}[… {counted(facts.stderr_dropped, 'byte')} more dropped]"


def _readable(data: bytes) -> str:
    return data.decode("utf-8", errors="replace").replace("\0", "\ufffd")
