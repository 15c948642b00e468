#!/usr/bin/env python3
"""Reads a Withings account; a token that was renewed is stored before it is used, by a job of its own."""

from __future__ import annotations

import os
import sys
import time

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

import rows
from api import LONGEST_WAIT_SECONDS, TIMEOUT_SECONDS, Busy, Unauthorized, call, refreshed
from ductile_plugin import URL, Permanent, Retry, is_line, is_number, is_url, main, payload_of, seconds_left, settings

BASE_URL = "https://wbsapi.withings.net"
# A token that expires sooner is renewed.
SPARE_SECONDS = 300
KEYS = {
    "client_id": (is_line, "the client id of your Withings application"),
    "client_secret": (is_line, "the secret of your Withings application"),
    "kinds": (lambda value: isinstance(value, list) and value != [] and all(
        isinstance(each, str) and each in rows.KINDS for each in value), f"a list of {', '.join(rows.KINDS)}",
        list(rows.KINDS)),
    "first_days": (is_number(0, 365, whole=True), "a whole number of days, 0 to 365", 7),
    "base_url": (is_url, URL, BASE_URL),
}


def respond(request: dict) -> dict:
    config, now = settings(request, KEYS), time.time()
    command, state = request.get("command"), request.get("state") or {}
    if command == "health":
        return health(state, now)
    if command not in ("poll", "handle"):
        raise Permanent("withings has no such command")
    # A time further off than any that is stored: the clock was set back.
    if now < state.get("not_before", 0) <= now + LONGEST_WAIT_SECONDS:
        raise Retry(f"Withings asked to wait {state['not_before'] - now:.0f} s more")
    try:
        if is_valid(state, now):
            return fetch(request, config, state, now)
        return renew(request, config, state, now)
    except Busy as error:
        error.state_updates = {"not_before": int(now + error.seconds)}
        raise


def is_valid(state: dict, now: float) -> bool:
    return bool(state.get("access_token")) and state.get("expires_at", 0) > now + SPARE_SECONDS


def health(state: dict, now: float) -> dict:
    """Say whether there is something to work with. Nothing is asked: a token may be renewed only where it is kept."""
    if not state.get("refresh_token"):
        raise Permanent("not authorized: run plugins/withings/authorize, see the README of the plugin")
    left = (state.get("expires_at", 0) - now) / 60
    token = f"for {left:.0f} min more" if left > 0 else "expired and renewed at the next poll"
    return {"status": "ok", "result": f"authorized as user {state.get('userid', '')}, the access token is {token}"}


def renew(request: dict, config: dict, state: dict, now: float) -> dict:
    """Renew the tokens and have a job of its own use them: by then they are in the database."""
    again = times_renewed(request)
    if again > 1:
        raise Permanent("Withings refuses a token that it has just issued: authorize again")
    tokens = refreshed(config, state, now)
    return {"status": "ok", "result": "the access token is renewed", "state_updates": tokens,
            "events": [{"type": "withings.token", "payload": {"renewed": again + 1}}]}


def times_renewed(request: dict) -> int:
    """Return how often the token was renewed in this chain, so that it ends."""
    times = payload_of(request).get("renewed") if request.get("command") == "handle" else None
    return times if type(times) is int else 0


def fetch(request: dict, config: dict, state: dict, now: float) -> dict:
    """Return the events for all that is new, with the cursors after them."""
    cursors, known = dict(state.get("cursors") or {}), dict(state.get("known") or {})
    events, waiting = [], False

    def ask(path: str, form: dict) -> dict:
        timeout = min(TIMEOUT_SECONDS, seconds_left(request))
        return call(config["base_url"], path, form, token=state["access_token"], timeout=timeout)

    for name in config["kinds"]:
        since = cursors.get(name, int(now) - config["first_days"] * rows.DAY)
        try:
            items = rows.read(rows.KINDS[name], ask, since, now)
        except Unauthorized:
            return renew(request, config, state, now)
        except Permanent as error:
            raise Permanent(f"{name}: {error}") from None
        emitted, edited, known[name], cursors[name] = rows.select(items, known.get(name) or {}, since, now)
        events += rows.events(name, emitted, edited)
        waiting = waiting or len(emitted) == rows.MOST_EVENTS
    more = ", more at the next poll" if waiting else ""
    return {"status": "ok", "result": f"{len(events)} new or changed{more}", "events": events,
            "state_updates": {"cursors": cursors, "known": known, "not_before": 0}}


if __name__ == "__main__":
    main(respond)
