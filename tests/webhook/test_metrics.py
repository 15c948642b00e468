from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from ductile import db
from ductile.queue.job import Status
from ductile.scheduler import schedule_table
from ductile.scheduler.breaker import Breaker
from ductile.units import utc_text
from ductile.webhook.health import Health
from ductile.webhook.metrics import Metrics
from support import ledger
from support.clock import START

HEALTH = Health(uptime_seconds=7, reasons=("gone",), plugins_loaded=2)
SAMPLE = re.compile(r'ductile_[a-z_]+(\{[a-z]+="([^"\\\n]|\\["\\n])*"(,[a-z]+="([^"\\\n]|\\["\\n])*")*\})? [0-9.e+-]+')


def samples(text: str) -> dict[str, float]:
    """Return the samples of a text, and see that it is in the format of Prometheus."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP ductile_[a-z_]+ .+|TYPE ductile_[a-z_]+ (gauge|counter))", line)
            continue
        assert SAMPLE.fullmatch(line), line
        name, _, value = line.rpartition(" ")
        assert name not in found
        found[name.removeprefix("ductile_")] = float(value)
    return found


def test_the_state_is_shown_and_what_has_ended_is_counted_from_the_start_on(tmp_path: Path) -> None:
    with ledger.opened(tmp_path) as conn:
        ledger.put_ended(conn, [1], at=utc_text(START - timedelta(hours=1)))
        metrics = Metrics(conn, START)
        ledger.put_job(conn, "a")
        ledger.put_job(conn, "b", Status.RUNNING, plugin='we"ird\\')
        ledger.put_ended(conn, [2, 3], at=utc_text(START + timedelta(seconds=1)))
        with db.transaction(conn):
            conn.execute("UPDATE job_log SET started_at = ? WHERE seq > 1", (utc_text(START),))
            schedule_table.put_breaker(conn, "echo", "poll", Breaker(state="open", failure_count=3, opened_at=START),
                                       START)
        now = START + timedelta(seconds=10)
        seen = [samples(metrics.text(conn, health=HEALTH, answers={("/a", 202): 5, ("/a", 403): 1}, now=now))
                for _ in range(2)]
    assert seen[0] == seen[1]
    assert {name: value for name, value in seen[0].items() if not name.startswith("info")} == {
        "healthy": 0, "uptime_seconds": 7, "plugins_loaded": 2,
        'jobs{plugin="echo",status="queued"}': 1, 'jobs{plugin="we\\"ird\\\\",status="running"}': 1,
        "queue_oldest_seconds": 10, 'circuit_breaker_open{plugin="echo",command="poll"}': 1,
        'jobs_ended_total{plugin="echo",status="succeeded"}': 2,
        'attempts_total{plugin="echo",command="poll",status="succeeded"}': 2,
        'attempt_seconds_total{plugin="echo",command="poll"}': 2,
        'webhook_answers_total{path="/a",status="202"}': 5, 'webhook_answers_total{path="/a",status="403"}': 1,
    }
