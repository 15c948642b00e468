"""What the log says of a job that has ended."""

from __future__ import annotations

from collections.abc import Mapping

from ductile.dispatch.conclude import Conclusion
from ductile.dispatch.transactions import Ended
from ductile.log import Component
from ductile.queue.job import Job, Status
from ductile.text import one_line
from ductile.units import utc_text

_log = Component("dispatch")
_plugin_log = Component("plugin")


def report_end(job: Job, ended: Ended, conclusion: Conclusion, seconds: float) -> None:
    """Log what a plugin said, and how its job ended. `seconds` have passed since its claim."""
    outcome = ended.outcome
    names = {"job_id": job.id, "plugin": job.plugin}
    for line in outcome.response.logs if outcome.response is not None else ():
        _plugin_log.at(line.level, line.message, **names)
    if outcome.response is not None and outcome.response.logs_dropped:
        _plugin_log.warn("more log lines were not kept", **names, count=outcome.response.logs_dropped)
    if outcome.stderr:
        _plugin_log.warn("standard error", **names, stderr=outcome.stderr)
    for warning in ended.warnings:
        _log.warn("files of a workspace", **names, warning=warning)
    if ended.workspace_fault is not None:
        _log.warn("workspace not removed", **names, error=ended.workspace_fault)
    if not ended.proved_dead:
        _log.warn("something of a run still lives; another attempt of its job waits", **names)
    _report_ways(conclusion, names)
    fields = {
        "command": job.command, "attempt": job.attempt, "outcome": conclusion.log.status,
        "status": conclusion.status, "seconds": round(seconds, 3),
        "error": conclusion.error, "next_retry_at": conclusion.retry_at and utc_text(conclusion.retry_at),
    }
    _log.info("job ended", **names, **{name: value for name, value in fields.items() if value is not None})
    if conclusion.breaker is not None and conclusion.breaker.state != "closed":
        _log.warn("circuit breaker open", plugin=job.plugin, command=job.command,
                  failures=conclusion.breaker.failure_count)


def _report_ways(conclusion: Conclusion, names: Mapping[str, str]) -> None:
    """Say which keys were refused or misnamed, and of each event that became no job why."""
    for warning in conclusion.warnings:
        _log.warn("misnamed key", **names, reason=warning)
    for way in conclusion.ways:
        if not way.is_new:
            _log.info("event deduped", **names, target=way.plugin, dedupe_key=way.dedupe_key,
                      earlier_job_id=way.job_id)
    if conclusion.status is Status.SUCCEEDED and conclusion.response is not None:
        taken = {way.event for way in conclusion.ways}
        for number, event in enumerate(conclusion.response.events):
            if number not in taken:
                _log.debug("event taken by nobody", **names, event_type=one_line(event.type))
