#!/usr/bin/env python3
"""Emits the event type of the first rule whose conditions the payload fulfils, with the payload as it came."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

from conditions import check, holds
from ductile_plugin import ZONE, ConfigError, Permanent, counted, event_of, is_line, is_zone, main, settings

# Only Ductile emits events of these types.
RESERVED = ("ductile.job.", "ductile.breaker.", "ductile.step.", "ductile.schedule.", "ductile.plugin.")


def is_event_type(value: object) -> bool:
    return is_line(value) and not value.startswith(RESERVED)


TYPE = "the type of an event, in one line and not one of Ductile's own"
KEYS = {
    "rules": (lambda value: isinstance(value, list) and value != [], "a list of rules with when and emit"),
    "otherwise": (is_event_type, TYPE, None),
    "timezone": (is_zone, ZONE, None),
}


def checked(request: dict) -> dict:
    """Return the configuration, every condition in it checked. Raises ConfigError."""
    config = settings(request, KEYS)
    for index, rule in enumerate(config["rules"]):
        name = f"rules[{index}]"
        if not isinstance(rule, dict) or rule.keys() != {"when", "emit"}:
            raise ConfigError(f"{name}: expected a mapping with when and emit")
        if not is_event_type(rule["emit"]):
            raise ConfigError(f"{name}.emit: expected {TYPE}")
        check(rule["when"], f"{name}.when")
    return config


def handle(request: dict, config: dict) -> dict:
    event = event_of(request)
    sources = (event.get("payload", {}), request.get("context"))
    zone = ZoneInfo(config["timezone"]) if config["timezone"] else None
    now = datetime.now(UTC)
    for index, rule in enumerate(config["rules"]):
        if holds(rule["when"], sources, f"rules[{index}].when", zone, now):
            return emitted(event, rule["emit"], f"rule {index + 1} applies: {rule['emit']}")
    if config["otherwise"] is None:
        return {"status": "ok", "result": "no rule applies"}
    return emitted(event, config["otherwise"], f"no rule applies: {config['otherwise']}")


def emitted(event: dict, kind: str, result: str) -> dict:
    """Return the answer with one event: payload and dedupe key are those of the event that came."""
    found = {"type": kind, "payload": event.get("payload", {})}
    if event.get("dedupe_key") is not None:
        found["dedupe_key"] = event["dedupe_key"]
    return {"status": "ok", "result": result, "events": [found]}


def respond(request: dict) -> dict:
    config = checked(request)
    if request.get("command") == "health":
        return {"status": "ok", "result": counted(len(config["rules"]), "rule")}
    if request.get("command") != "handle":
        raise Permanent("switch has no such command")
    return handle(request, config)


if __name__ == "__main__":
    main(respond)
