#!/usr/bin/env python3
"""Keeps the daily values of health data, and sums them up when it is polled."""

from __future__ import annotations

import os
import sys
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

import daily
import show
from ductile_plugin import ZONE, Permanent, counted, event_of, is_line, is_number, is_zone, log, main, settings

# In this order, of those that there are.
METRICS = ["weight", "fat_ratio", "systolic", "diastolic", "resting_heart_rate", "hrv", "sleep", "sleep_score", "steps",
           "active"]
KEYS = {
    "metrics": (lambda value: isinstance(value, list) and value != [] and all(map(is_line, value)),
                "a list of metrics such as weight", METRICS),
    "chart_days": (is_number(7, daily.KEPT_DAYS, whole=True), f"a whole number of days, 7 to {daily.KEPT_DAYS}", 90),
    "timezone": (is_zone, ZONE, None),
}


def respond(request: dict) -> dict:
    config = settings(request, KEYS)
    # Each series is a key of the state, so that an event stores only those that it changes.
    series = request.get("state") or {}
    day = datetime.now(ZoneInfo(config["timezone"]) if config["timezone"] else None).date()
    command = request.get("command")
    if command == "health":
        return {"status": "ok", "result": f"keeps {len(series)} series of at most {daily.MOST_SERIES}"}
    if command == "handle":
        return keep(request, series, day)
    if command == "poll":
        return summarize(request, config, series, day)
    raise Permanent("health_analyzer has no such command")


def keep(request: dict, series: dict, day: date) -> dict:
    """Add an event's values. The same event again changes nothing."""
    found = daily.measurement(event_of(request).get("payload"))
    if found["kind"] == "workout":
        return {"status": "ok", "result": "workouts are not kept"}
    changed, refused = daily.add(series, found, day)
    if refused:
        log(f"not kept, it is too old, in the future, or one series too many: {', '.join(refused)[:300]}", "warn")
    return {"status": "ok", "result": f"kept values of {found['date']}", "state_updates": changed}


def summarize(request: dict, config: dict, series: dict, day: date) -> dict:
    """Return the summary as an event, with its files in the workspace."""
    names = [name for metric in config["metrics"] for name in sorted(series) if name.partition(".")[2] == metric]
    described = [found for found in (daily.describe(name, series[name], day) for name in names) if found is not None]
    if not described:
        return {"status": "ok", "result": "no values yet"}
    workspace = Path(request["workspace_dir"])
    (workspace / "summary.md").write_text(show.markdown(described, day), encoding="utf-8")
    (workspace / "chart.svg").write_text(show.chart(described, series, day, config["chart_days"]), encoding="utf-8")
    payload = {"date": day.isoformat(), "message": show.message(described), "metrics": described,
               "summary_path": str(workspace / "summary.md"), "chart_path": str(workspace / "chart.svg")}
    return {"status": "ok", "result": counted(len(described), "metric"),
            "events": [{"type": "health.summary", "payload": payload,
                        "dedupe_key": f"health.summary:{request.get('job_id', day.isoformat())}"}]}


if __name__ == "__main__":
    main(respond)
