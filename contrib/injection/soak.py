"""The soak: schedules each second and signed webhooks, while the daemon is killed and reloaded again and again."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from injection.oracle import BUG, STUCK, Finding, Told, judge
from injection.site import PATIENCE_SECONDS, Daemon, Site, Stuck, Tick, free_port, wait_until
from injection.table import Row

POSTS_A_SECOND = 10
KILL_SECONDS = 90.0
RELOAD_SECONDS = 20.0
# Of the reloads every third is one that must be rejected; the texts take turns.
_BROKEN = ("plugins: [", "", "plugins: {first: {uses: nowhere-to-be-found, schedul: 5}}\n", "plugins: {}\n")
# Only the last hundred are kept.
_LAST_LOAD = "SELECT rowid, ok FROM config_loads ORDER BY rowid DESC LIMIT 1"
_OPEN_JOBS = "SELECT count(*) FROM job_queue WHERE status IN ('queued', 'running')"
_RESENT_A_SECOND = 20


@dataclass(slots=True)
class _Sender:
    """Sends a webhook each tenth of a second, and again what was not acknowledged, from a thread of its own."""

    site: Site
    told: Told = field(default_factory=Told)
    findings: list[Finding] = field(default_factory=list)
    sent: int = 0
    resent: int = 0
    _ends: threading.Event = field(default_factory=threading.Event)
    _unanswered: deque[str] = field(default_factory=deque)

    def run(self) -> None:
        due = time.monotonic()
        while not self._ends.is_set():
            self._send(f"files-{self.sent}")
            self.sent += 1
            for _ in range(min(len(self._unanswered), _RESENT_A_SECOND // POSTS_A_SECOND)):
                self._resend()
            due += 1 / POSTS_A_SECOND
            self._ends.wait(max(0.0, due - time.monotonic()))

    def end(self) -> None:
        self._ends.set()

    def finish(self) -> None:
        """Send again what is left, while the daemon runs. Raises Stuck."""
        wait_until(self._resend_all, lambda: time.sleep(0.1), "every webhook to be acknowledged")

    def _resend_all(self) -> bool:
        for _ in range(len(self._unanswered)):
            self._resend()
        return not self._unanswered

    def _resend(self) -> None:
        self.resent += 1
        self._send(self._unanswered.popleft())

    def _send(self, token: str) -> None:
        answer = self.site.post(token)
        if answer.is_acknowledged:
            self.findings += self.told.note(token, answer.job_id)
        else:
            self._unanswered.append(token)


class _Soak:
    """The daemon of a soak, and what was done to it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.findings: list[Finding] = []
        self.kills = 0
        self.reloads = 0
        self.rejected = 0
        self.daemon = Daemon(site)
        self.daemon.await_ready()

    def run(self, seconds: float) -> None:
        """Kill and reload until so many seconds have passed. Raises Stuck."""
        started = time.monotonic()
        kill_at, reload_at = started + KILL_SECONDS, started + RELOAD_SECONDS
        while (now := time.monotonic()) < started + seconds:
            if self.daemon.exit_code is not None:
                raise Stuck(f"ductiled ended with {self.daemon.exit_code}")
            if now >= kill_at:
                kill_at += KILL_SECONDS
                self._kill()
            elif now >= reload_at:
                reload_at += RELOAD_SECONDS
                self._reload()
            self.daemon.look(max(0.0, min(kill_at, reload_at, started + seconds) - time.monotonic()))

    def _kill(self) -> None:
        self.kills += 1
        print(f"faults: soak, kill {self.kills}, {self.reloads} reloads so far", file=sys.stderr)
        self.daemon.kill()
        self._start()

    def _start(self) -> None:
        self.daemon.close()
        self.daemon = Daemon(self.site)
        self.daemon.await_ready()
        if self.daemon.exit_code is not None:
            raise Stuck(f"ductiled does not start again: exit code {self.daemon.exit_code}")

    def _reload(self) -> None:
        """Reload a configuration that is good, or one that must be rejected."""
        self.reloads += 1
        is_broken = self.reloads % 3 == 0
        text = _BROKEN[self.reloads // 3 % len(_BROKEN)] if is_broken else None
        self.site.dedupe_ttl = f"{24 + self.reloads % 100}h"
        self.site.configure(text)
        before = self.site.rows(_LAST_LOAD)
        self.daemon.send(signal.SIGHUP)
        wait_until(lambda: self.daemon.exit_code is not None or self.site.rows(_LAST_LOAD) not in ([], before),
                   self.daemon.look, "a reload to be noted")
        if self.daemon.exit_code is not None:
            raise Stuck(f"ductiled ended with {self.daemon.exit_code} at a reload of {text!r}")
        good = self.site.rows(_LAST_LOAD)[0][1]
        self.rejected += not good
        if is_broken:
            if good:
                self.findings.append(Finding(kind=BUG, text=f"a reload of {text!r} was not rejected"))
            self.site.configure()
        elif not good:
            self.findings.append(Finding(kind=BUG, text="a reload of a good configuration was rejected"))

    def _open_jobs(self) -> int:
        """Return how many jobs wait or run. Raises Stuck where the database cannot be read."""
        found: list[tuple] = []

        def is_read() -> bool:
            found[:] = self.site.rows(_OPEN_JOBS)
            return bool(found)

        wait_until(is_read, self.daemon.look, "the database to be readable")
        return found[0][0]

    def drain(self) -> None:
        """Take the schedule away, wait until the queue is empty, and stop. Raises Stuck."""
        self.site.tick = Tick.IDLE
        self.site.configure()
        self.daemon.send(signal.SIGHUP)
        least, seen_at = None, time.monotonic()
        while (left := self._open_jobs()) > 0:
            if self.daemon.exit_code is not None:
                raise Stuck(f"ductiled ended with {self.daemon.exit_code}, {left} jobs are open")
            if least is None or left < least:
                least, seen_at = left, time.monotonic()
            if time.monotonic() >= seen_at + PATIENCE_SECONDS:
                raise Stuck(f"{left} jobs are open and none has ended in {PATIENCE_SECONDS:.0f} s")
            self.daemon.look(0.5)
        code = self.daemon.stop()
        if code != 0:
            self.findings.append(Finding(kind=BUG, text=f"ductiled stopped with exit code {code}"))


def soak(directory: Path, *, minutes: float) -> Row:
    """Run for so many minutes and return what was found."""
    directory.mkdir()
    site = Site(directory=directory, port=free_port(), tick=Tick.EVERY_SECOND)
    site.make()
    running, sender = _Soak(site), _Sender(site)
    thread = threading.Thread(target=sender.run, name="sender")
    thread.start()
    try:
        try:
            running.run(60 * minutes)
        finally:
            sender.end()
            thread.join()
        sender.finish()
        running.drain()
        findings = judge(site.database, sender.told.jobs, site.records())
    except Stuck as error:
        findings = [Finding(kind=STUCK, text=str(error))]
    finally:
        running.daemon.close()
        site.kill_leftovers()
    if "Traceback (most recent call last)" in site.log.read_text(encoding="utf-8", errors="replace"):
        findings.append(Finding(kind=BUG, text=f"a traceback in {site.log}"))
    jobs = site.rows("SELECT count(*) FROM job_queue")
    tried = (f"{sender.sent:,} posts, {sender.resent:,} sent again, {running.kills} kills, {running.reloads} reloads"
             f" ({running.rejected} rejected), {jobs[0][0] if jobs else 0:,} jobs")
    findings = [*running.findings, *sender.findings, *findings]
    return Row(what="soak", fault=f"{minutes:g} min", tried=tried,
               findings=[(f"contrib/faults --minutes {minutes:g} soak: {finding.text}", finding.kind)
                         for finding in findings])
