from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ductile.dispatch.attempt import AttemptEnd
from ductile.dispatch.conclude import Conclusion
from ductile.dispatch.outcome import Succeeded
from ductile.dispatch.report import report_end
from ductile.queue.job import LogEntry, Status
from support.clock import START
from support.ledger import opened, put_job
from support.logs import kept, lines

NOTE = "the state key 'seen' is not passed on: longer than 4,096 bytes as JSON"


def test_large_state_is_a_warning_once_for_each_plugin(tmp_path: Path) -> None:
    with opened(tmp_path) as conn:
        job = put_job(conn, "a", Status.RUNNING)
    end = AttemptEnd(outcome=Succeeded(exit_code=0), proved_dead=True)
    log = LogEntry(id="l", status="succeeded", completed_at=START)
    conclusion = Conclusion(job=job, status=Status.SUCCEEDED, attempt=1, max_attempts=4, log=log,
                            large_state=(NOTE,), notes=("the result is not passed on",))
    known: set[str] = set()
    with kept(tmp_path) as path:
        for plugin in ("echo", "echo", "other"):
            report_end(replace(job, plugin=plugin), end, conclusion, 1.0, known)
    assert [(line["plugin"], line["reason"]) for line in lines(path) if line["level"] == "warn"] == [
        ("echo", NOTE), ("other", NOTE)]
