"""Logs the end of a job."""

from __future__ import annotations

from collections.abc import Mapping

from ductile.dispatch.attempt import AttemptEnd
from ductile.dispatch.conclude import Conclusion
from ductile.log import Component
from ductile.queue.job import Job, Status
from ductile.text import one_line
from ductile.units import utc_text

_log = Component("dispatch")
_plugin_log = Component("plugin")


def report_end(job: Job, end: AttemptEnd, conclusion: Conclusion, seconds: float, known: set[str]) -> None:
    """Log the plugin's log lines and stderr, and how its job ended, `seconds` after its claim.

    `known` are the plugins whose large state has been reported since the start: a cursor is large each time.
    """
    outcome = end.outcome
    names = {"job_id": job.id, "plugin": job.plugin}
    for line in outcome.response.logs if outcome.response is not None else ():
        _plugin_log.at(line.level, line.message, **names)
    if outcome.response is not None and outcome.response.logs_dropped:
        _plugin_log.warn("further log lines dropped", **names, count=outcome.response.logs_dropped)
    if outcome.stderr:
        _plugin_log.warn("plugin stderr", **names, stderr=outcome.stderr)
    for warning in end.warnings:
        _log.warn("odd file in the workspace", **names, warning=warning)
    if end.workspace_fault is not None:
        _log.warn("workspace not removed", **names, error=end.workspace_fault)
    if not end.proved_dead:
        _log.warn("processes of an earlier run are still alive; the job is blocked", **names)
    _report_deliveries(conclusion, names)
    if job.plugin not in known:
        for note in conclusion.large_state:
            known.add(job.plugin)
            _log.warn("large state not passed on", **names, reason=note)
    fields = {
        "command": job.command, "attempt": job.attempt, "outcome": conclusion.log.status,
        "status": conclusion.status, "seconds": round(seconds, 3),
        "error": conclusion.error, "next_retry_at": conclusion.retry_at and utc_text(conclusion.retry_at),
    }
    _log.info("job ended", **names, **{name: value for name, value in fields.items() if value is not None})
    if conclusion.breaker is not None and conclusion.breaker.state != "closed":
        _log.warn("circuit breaker open", plugin=job.plugin, command=job.command,
                  failures=conclusion.breaker.failure_count)


def _report_deliveries(conclusion: Conclusion, names: Mapping[str, str]) -> None:
    """Log each key that was refused or is reserved, and each event that became no job."""
    for warning in conclusion.warnings:
        _log.warn("reserved baggage key", **names, reason=warning)
    for delivery in conclusion.deliveries:
        if not delivery.is_new:
            _log.info("event deduped", **names, target=delivery.plugin, dedupe_key=delivery.dedupe_key,
                      earlier_job_id=delivery.job_id)
    if conclusion.status is Status.SUCCEEDED and conclusion.response is not None:
        matched = {delivery.event for delivery in conclusion.deliveries}
        for number, event in enumerate(conclusion.response.events):
            if number not in matched:
                _log.debug("event matched nothing", **names, event_type=one_line(event.type))
