"""The answer of `/metrics`: numbers of the daemon in the text format of Prometheus."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import ductile
from ductile.queue import attempt_table, job_table
from ductile.scheduler import schedule_table
from ductile.units import parse_utc
from ductile.webhook.health import Health

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r'\"', "\n": r"\n"})
# Jobs that end in the millisecond of a look may be committed after it.
_SETTLED = timedelta(seconds=1)
_WAITING_LIMIT = 100_000

Labels = tuple[str, ...]


class Metrics:
    """Counts what has ended since the start; looking costs the same however much is stored."""

    def __init__(self, conn: sqlite3.Connection, now: datetime) -> None:
        """Count from now on."""
        self._lock = threading.Lock()
        self._seq = attempt_table.last_seq(conn)
        self._ended_until = now
        self._attempts: Counter[Labels] = Counter()         # by plugin, command and status
        self._seconds: defaultdict[Labels, float] = defaultdict(float)    # by plugin and command
        self._ended: Counter[Labels] = Counter()            # by plugin and status

    def text(self, conn: sqlite3.Connection, *, health: Health, answers: Mapping[tuple[str, int], int],
             now: datetime) -> str:
        """Return the metrics. `answers` counts answers by endpoint and status."""
        with self._lock:
            self._look(conn, now)
            lines = [*_state(conn, health, now), *self._counters(answers)]
        return "".join(f"{line}\n" for line in lines)

    def _look(self, conn: sqlite3.Connection, now: datetime) -> None:
        """Add what has ended since the last look."""
        last = attempt_table.last_seq(conn)
        for plugin, command, status, count, seconds in attempt_table.totals(conn, after=self._seq, upto=last):
            self._attempts[plugin, command, status] += count
            self._seconds[plugin, command] += seconds
        self._seq = last
        upto = now - _SETTLED
        if upto > self._ended_until:
            for plugin, status, count in job_table.ended_totals(conn, since=self._ended_until, before=upto):
                self._ended[plugin, status] += count
            self._ended_until = upto

    def _counters(self, answers: Mapping[tuple[str, int], int]) -> Iterable[str]:
        yield from _family("jobs_ended_total", "counter", "Jobs that have ended since the start.", (
            ({"plugin": plugin, "status": status}, count) for (plugin, status), count in self._ended.items()))
        yield from _family("attempts_total", "counter", "Attempts that have ended since the start.", (
            ({"plugin": plugin, "command": command, "status": status}, count)
            for (plugin, command, status), count in self._attempts.items()))
        yield from _family("attempt_seconds_total", "counter", "Time that attempts have taken since the start.", (
            ({"plugin": plugin, "command": command}, round(seconds, 3))
            for (plugin, command), seconds in self._seconds.items()))
        yield from _family("webhook_answers_total", "counter", "Answers of endpoints since the start.", (
            ({"path": path, "status": str(status)}, count) for (path, status), count in sorted(answers.items())))


def _state(conn: sqlite3.Connection, health: Health, now: datetime) -> Iterable[str]:
    yield from _family("info", "gauge", "The version.", [({"version": ductile.__version__}, 1)])
    yield from _family("healthy", "gauge", "1 if /healthz is ok as far as the main loop knows.",
                       [({}, int(not health.reasons))])
    yield from _family("uptime_seconds", "gauge", "Time since the start.", [({}, health.uptime_seconds)])
    yield from _family("plugins_loaded", "gauge", "Enabled plugins that are loaded.", [({}, health.plugins_loaded)])
    yield from _family("jobs", "gauge", "Queued and running jobs.", (
        ({"plugin": plugin, "status": status}, count)
        for plugin, status, count in job_table.open_totals(conn, _WAITING_LIMIT)))
    oldest = job_table.oldest_waiting(conn)
    yield from _family("queue_oldest_seconds", "gauge", "How long the oldest queued job has waited.", [
        ({}, 0 if oldest is None else max(0.0, round((now - parse_utc(oldest)).total_seconds(), 3)))])
    yield from _family("circuit_breaker_open", "gauge", "1 if the circuit breaker is not closed.", (
        ({"plugin": plugin, "command": command}, int(each.state != "closed"))
        for (plugin, command), each in schedule_table.breakers(conn).items()))
    yield from _family("schedule_last_success_timestamp_seconds", "gauge", "When a schedule's job last succeeded.", (
        ({"plugin": plugin, "schedule": schedule}, parse_utc(moment).timestamp())
        for plugin, schedule, moment in schedule_table.last_successes(conn)))


def _family(name: str, kind: str, help_text: str,
            samples: Iterable[tuple[Mapping[str, str], float]]) -> Iterable[str]:
    found = list(samples)
    if not found:
        return
    yield f"# HELP ductile_{name} {help_text}"
    yield f"# TYPE ductile_{name} {kind}"
    for labels, value in found:
        text = ",".join(f'{label}="{each.translate(_ESCAPES)}"' for label, each in labels.items())
        yield f"ductile_{name}{f'{{{text}}}' if text else ''} {value}"
