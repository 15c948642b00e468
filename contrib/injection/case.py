"""One run of one operation with a fault at one call, what follows it, and the verdict."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from injection.control import Control, Fault
from injection.oracle import BUG, STUCK, Finding, Told, judge
from injection.site import Daemon, Site, Stuck, wait_until

# After a call has failed: a retry that is due at once is within it, and a disk is full for so long.
_GRACE_SECONDS = 1.0
_MOST_STARTS = 4
_EXIT_DATA = 65
_LOOK_SECONDS = 0.02
_OPEN_JOBS = "SELECT count(*) FROM job_queue WHERE status IN ('queued', 'running')"
_JOB = ("SELECT id FROM job_queue WHERE plugin = ? AND status = ? AND json_extract(payload, '$.payload.token') = ?"
        " ORDER BY seq DESC LIMIT 1")
_TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one run. `calls` were counted; `met` is the call that was struck, empty where none was."""

    calls: int
    met: str
    findings: tuple[Finding, ...]


class Case:
    """What an operation works with: a site, a shim that is armed when it says so, and the record of what was told."""

    def __init__(self, site: Site, library: Path, fault: Fault, target: int) -> None:
        self.site = site
        self.told = Told()
        self.findings: list[Finding] = []
        self.daemon: Daemon | None = None
        self._fault = fault
        self._control = Control(site.directory / "control", library, site.home, fault, target)
        self._unanswered: list[str] = []
        self._shimmed_ended: Callable[[], bool] = lambda: False
        self._calls = 0

    # What an operation does

    def start(self, *, with_shim: bool = False, armed: bool = False) -> None:
        """Start the daemon, and wait until it is ready unless the fault is already armed."""
        if armed:
            self._control.arm()
        self._close_daemon()
        self.daemon = daemon = Daemon(self.site, self._control.environ if with_shim else {})
        if with_shim:
            self._shimmed_ended = lambda: daemon.exit_code is not None
        if not armed:
            self._await_ready()

    def arm(self) -> None:
        self._control.arm()

    def disarm(self) -> None:
        """End the fault and the counting."""
        self._control.disarm()
        self._calls = self._control.counted

    def starts(self) -> bool:
        """Start the daemon, and say whether it becomes ready. It may refuse a database that is half restored (65)."""
        self._close_daemon()
        self.daemon = Daemon(self.site)
        self.daemon.await_ready()
        if self.daemon.exit_code == _EXIT_DATA:
            self._close_daemon()
            self.daemon = None
            return False
        return self.daemon.exit_code is None

    def post(self, token: str) -> None:
        """Send a webhook; one that is not acknowledged is sent again later, as its sender would."""
        answer = self.site.post(token)
        if answer.is_acknowledged:
            self.findings += self.told.note(token, answer.job_id)
        else:
            self._unanswered.append(token)

    def emit(self, token: str, *, until_begun: bool = False, with_shim: bool = False) -> None:
        """Hand in an event by `ductilectl`; with `until_begun` its job waits at the gate afterwards."""
        if until_begun:
            self.site.close_gate()
        done = self.operate("--json", "emit", "posted", "--payload", json.dumps({"token": token}), with_shim=with_shim)
        if done.returncode == 0:
            self.findings += self.told.note(token, _job_ids(done.stdout)[0])
        if until_begun:
            self.wait(lambda: self.begun(token) > 0, f"the plugin to begin with {token}")

    def operate(self, *arguments: str | Path, with_shim: bool = False) -> subprocess.CompletedProcess[str]:
        return self.site.operate(*arguments, environ=self._control.environ if with_shim else {})

    def run_to_the_end(self, token: str) -> None:
        """Have an event's jobs succeed under a daemon that is stopped afterwards."""
        self.start()
        self.emit(token)
        self.wait(lambda: self.job_of(token, "second", "succeeded") is not None, "the pipeline to end")
        self.daemon.stop()

    def go_on(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until the condition holds, or what the fault has done can be seen, and end the counting."""
        met_at: float | None = None

        def is_over() -> bool:
            nonlocal met_at
            if met_at is None and self._control.is_met:
                met_at = time.monotonic()
            late = met_at is not None and time.monotonic() >= met_at + _GRACE_SECONDS
            return self._shimmed_ended() or late or condition()

        wait_until(is_over, self._look, what)
        self.disarm()

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until the condition holds before or after the fault. Raises Stuck."""
        wait_until(condition, self._look, what)

    # What it sees

    def begun(self, token: str) -> int:
        """Return how often plugins have begun with a token."""
        return sum(line[0] == "begin" and line[-1] == token for line in self.site.records())

    def job_of(self, token: str, plugin: str, status: str) -> str | None:
        rows = self.site.rows(_JOB, plugin, status, token)
        return rows[0][0] if rows else None

    def has_succeeded(self, token: str) -> bool:
        return self.job_of(token, "first", "succeeded") is not None

    # What follows

    def settle(self) -> None:
        """Lift the fault, start again where it killed, send again what was not acknowledged, and wait for rest."""
        self.disarm()
        self.site.open_gate()
        starts = 0
        while True:
            if self.daemon is None or self.daemon.exit_code is not None:
                self._explain_end()
                starts += 1
                if starts > _MOST_STARTS:
                    raise Stuck(f"ductiled ended {_MOST_STARTS} times: {self._last_words()}")
                self.start()
            if self._rests():
                break
        code = self.daemon.stop()
        if code != 0:
            text = f"ductiled stopped with exit code {code}: {self._last_words()}"
            self.findings.append(Finding(kind=BUG, text=text))

    def outcome(self) -> Outcome:
        """Return the verdict, after `settle`."""
        findings = [*self.findings, *judge(self.site.database, self.told.jobs, self.site.records())]
        log = self.site.log.read_text(encoding="utf-8", errors="replace")
        if _TRACEBACK in log:
            findings.append(Finding(kind=BUG, text=f"a traceback in {self.site.log.name}"))
        return Outcome(calls=self._calls, met=self._control.met, findings=tuple(findings))

    def stuck(self, error: Exception) -> Outcome:
        """Return the verdict of a run that did not come to rest."""
        return Outcome(calls=self._calls, met=self._control.met,
                       findings=(*self.findings, Finding(kind=STUCK, text=f"{error}; {self._last_words()}")))

    def close(self) -> None:
        self._close_daemon()
        self.site.kill_leftovers()
        self.site.forget_gate()
        self._control.close()

    def _rests(self) -> bool:
        """Wait until no job is open. Return false where the daemon ended before."""
        for token in self._unanswered[:]:
            self._unanswered.remove(token)
            self.post(token)
        self.wait(lambda: self.daemon.exit_code is not None or self.site.rows(_OPEN_JOBS) == [(0,)],
                  "the queue to be empty")
        return self.daemon.exit_code is None and not self._unanswered

    def _await_ready(self) -> None:
        self.daemon.await_ready()
        if self.daemon.exit_code is not None:
            raise Stuck(f"ductiled does not start: exit code {self.daemon.exit_code}")

    def _explain_end(self) -> None:
        """Note an end that neither a kill nor an error that ductiled may end on explains."""
        code = None if self.daemon is None else self.daemon.exit_code
        allowed = (None, 0, -9) if self._fault.kills else (None, 0, 65, 71, 78)
        if code not in allowed:
            self.findings.append(Finding(kind=BUG, text=f"ductiled ended with {code}: {self._last_words()}"))

    def _look(self) -> None:
        if self.daemon is None:
            time.sleep(_LOOK_SECONDS)
        else:
            self.daemon.look()

    def _last_words(self) -> str:
        if not self.site.log.exists():
            return "nothing was logged"
        return self.site.log.read_text(encoding="utf-8", errors="replace").rstrip().rpartition("\n")[2][:300]

    def _close_daemon(self) -> None:
        if self.daemon is not None:
            self.daemon.close()


def _job_ids(printed: str) -> list[str]:
    return [job["job_id"] for job in json.loads(printed)["jobs"]]
