"""The keys of every JSON document that `ductilectl --json` shows: a promise to the programs that read them.

A key is added here and in the manual when it is added there; one that is here never goes, or means something else.
"""

from __future__ import annotations

from typing import Any

VALUE = "value"    # a text, a number, true, false, null, or a list of those
ANY = "any"        # JSON that belongs to a plugin, or to the operator


def keys(names: str) -> dict[str, str]:
    """Return plain values by these names. A name that ends in `?` may be absent."""
    return dict.fromkeys(names.split(), VALUE)


_WAY = keys("plugin job_id? duplicate_of? step_id?")
_ATTEMPT = {
    **keys("id job_id attempt plugin command status started_at completed_at seconds exit_code last_error stderr"
           " printed"),
    "result": ANY,
}
_JOB = {
    **keys("id plugin command status attempt max_attempts submitted_by dedupe_key created_at started_at completed_at"
           " next_retry_at last_error parent_job_id root_job_id source_event_id event_context_id pipeline_name"
           " pipeline_hash step_id replay_of core_event schedule_id"),
    "payload": ANY,
}
_CHAIN = {
    **keys("job_id parent_job_id plugin command pipeline_name step_id submitted_by replay_of status attempt"
           " max_attempts created_at started_at completed_at next_retry_at last_error depth asked"),
    "baggage_added": ANY, "baggage_before": ANY,
    "attempts": [{
        **keys("attempt status started_at completed_at seconds last_error notes"),
        "passed_on": [keys("plugin job_id step_id")],
        "events": [{**keys("type"), "ways": [_WAY]}],
    }],
    "files": [keys("path size digest inherited")],
}
_PIPELINE = keys("pipeline on hash steps")

# By what is typed after `ductilectl --json`. An object is a mapping, a list has the form of its one item here.
DOCUMENTS: dict[str, Any] = {
    "(any that only reads, before ductiled has run)": keys("database message"),
    "init DIR": keys("config listen"),
    "check": keys("problems faults warnings database"),
    "status": {
        "daemon": keys("running pid since listen"),
        "config_load": keys("loaded_at ok errors edited_at"),
        "queue": keys("queued waiting running"),
        "oldest_waiting": VALUE,
        "ended_24h": keys("succeeded dead deduped"),
        "busy_24h": VALUE,
        "held_log_bytes": VALUE,
        "running": [keys("job_id plugin command attempt started_at")],
        "plugins": [{
            **keys("plugin version enabled last_run last_outcome last_error last_job_id next_run held state_bytes"
                   " paused_since"),
            "schedules": [keys("schedule_id next_run_at last_run_at held_reason overdue_at")],
            "breakers": [keys("command state failure_count opened_at")],
        }],
    },
    "plugins": [{**keys("plugin version protocol commands description configured_as enabled not_loaded directory"),
                 "command_details": [keys("name type description")]}],
    "pipelines": [_PIPELINE],
    "pipelines NAME": {**_PIPELINE, **keys("entry"), "nodes": [
        {**keys("step_id plugin command workspace next"), "with": ANY}]},
    "schedule": [{**keys("plugin schedule_id command rule jitter_seconds window held overdue_at last_success_at"),
                  "runs": [keys("at earliest latest drawn")]}],
    "queue": [keys("job_id plugin command status next_retry_at attempt max_attempts created_at age_seconds"
                   " submitted_by")],
    "jobs": [keys("job_id plugin command status attempt max_attempts created_at started_at completed_at next_retry_at"
                  " last_error parent_job_id root_job_id pipeline_name step_id replay_of submitted_by seconds")],
    "run PLUGIN": keys("job_id plugin command status"),
    "run PLUGIN --wait": {**keys("job_id plugin command status last_error"), "attempts": [_ATTEMPT]},
    "emit EVENT": {**keys("event_id"), "jobs": [keys("job_id plugin command step_id")]},
    "emit EVENT --dry-run": {"jobs": [{**keys("plugin command pipeline_name step_id error"), "payload": ANY}]},
    "logs": [_ATTEMPT],
    "logs -f": _ATTEMPT,    # on each line
    "inspect JOB": {**_JOB, "attempts": [_ATTEMPT], "chain": [_CHAIN]},
    "inspect JOB --context": {**_JOB, "attempts": [_ATTEMPT], "chain": [{**_CHAIN, "context": ANY}]},
    "retry JOB": keys("job_id status attempt max_attempts"),
    "retry --all-failed": keys("retried skipped"),
    "replay JOB": keys("job_id replay_of"),
    "cancel JOB": keys("job_id status last_error"),
    "pause PLUGIN": keys("plugin paused since"),
    "resume PLUGIN": keys("plugin paused since"),
    "reset PLUGIN": keys("plugin breakers_cleared init_job_id"),
    "health": [keys("plugin healthy seconds says stderr hint")],
    "test PLUGIN": {
        **keys("plugin command outcome retried error seconds exit_code signal printed faults ignored stderr"),
        "request": ANY, "response": ANY, "files": [keys("path kind size")],
    },
    "edit": keys("config changed"),
    "reload": keys("loaded_at ok changes errors unavailable"),
    "wait": keys("pid version started_at ready_at"),
    "state PLUGIN": ANY,
    "state PLUGIN --set FILE": keys("plugin state_bytes"),
    "state PLUGIN --clear": keys("plugin had_state"),
    "backup FILE": keys("file bytes taken_at removed"),
    "restore FILE": keys("file database version queued running replaced"),
    "completion SHELL": keys("shell script"),
    "new-plugin NAME": keys("plugin directory files"),
    "attempt DIR": {**keys("status retry_in error"), "state": ANY, "job": ANY, "artifacts": ANY, "jobs": ANY,
                    "log": ANY, "response": ANY, "warnings": ANY},
    "webhook test PATH": {**keys("path address status"), "body": ANY},
    "webhook presets": [keys("preset senders enter docs needs signature_header signed dedupe success_status"
                             " handshake")],
}

# What has no document, and why.
WITHOUT = {"monitor": "it is a screen", "report": "it is a page"}


def differences(form: Any, value: Any, place: str = "", seen: set[str] | None = None) -> list[str]:
    """Return where a document has other keys than its form. Every place of the form that was met goes into `seen`."""
    if seen is not None:
        seen.add(place)
    if form is ANY:
        return []
    if isinstance(form, list):
        if not isinstance(value, list):
            return [] if value is None else [f"{place}: expected a list"]
        return [text for item in value for text in differences(form[0], item, f"{place}[]", seen)]
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return [] if value is None else [f"{place}: expected an object"]
        return _of_object(form, value, place, seen)
    items = value if isinstance(value, list) else [value]
    return [f"{place}: has keys of its own"] if any(isinstance(item, dict | list) for item in items) else []


def _of_object(form: dict[str, Any], value: dict[str, Any], place: str, seen: set[str] | None) -> list[str]:
    known = {name.rstrip("?"): below for name, below in form.items()}
    found = [f"{place}.{name} is new" for name in value if name not in known]
    found += [f"{place}.{name} is missing" for name in form if not name.endswith("?") and name not in value]
    for name, below in known.items():
        if name in value:
            found += differences(below, value[name], f"{place}.{name}", seen)
    return found


def places(form: Any, place: str = "") -> set[str]:
    """Return every place of a form."""
    found = {place}
    if isinstance(form, list):
        found |= places(form[0], f"{place}[]")
    elif isinstance(form, dict):
        for name, below in form.items():
            found |= places(below, f"{place}.{name.rstrip('?')}")
    return found
