#!/usr/bin/env python3
"""Emits an event for each mail that arrives in an IMAP folder; marks or moves it once that is stored."""

from __future__ import annotations

import contextlib
import imaplib
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

import parse
from box import PORTS, Box
from ductile_plugin import (
    MIB,
    ConfigError,
    Failed,
    Permanent,
    Retry,
    connection,
    is_line,
    is_number,
    log,
    main,
    seconds_left,
    server_keys,
    settings,
    with_port,
    with_token,
)

TIMEOUT_SECONDS = 120
FLAGS = {"none": None, "seen": r"\Seen", "flagged": r"\Flagged"}
# How many mails wait to be marked, and how many are known by what they say.
MOST_DONE, MOST_KNOWN = 1000, 300
DAY = 86_400
# Characters in one response, which may have 10 MiB.
MOST_TEXT = 1_000_000
KEYS = server_keys("IMAP", PORTS) | {
    "username": (is_line, "one line"),
    "password": (lambda value: is_line(value) and value.isascii(), "one line of ASCII", None),
    "folder": (is_line, "the name of a folder", "INBOX"),
    "mark": (tuple(FLAGS), None, "none"),
    "move_to": (is_line, "the name of a folder", None),
    "max_messages": (is_number(1, 200, whole=True), "a whole number, 1 to 200", 20),
    "max_size": (is_number(1, 200), "a number of MiB, 1 to 200", 25),
}


def respond(request: dict) -> dict:
    config, now = settings(request, KEYS), time.time()
    if (config["password"] is None) == (config["oauth"] is None):
        raise ConfigError("password, oauth: expected one of them")
    config = with_port(config, PORTS, has_secret=True)
    command, state = request.get("command"), request.get("state") or {}
    if command not in ("poll", "health"):
        raise Permanent("mail_in has no such command")
    if config["oauth"] is None:
        return run(request, config, state, now, None)
    if command == "health":
        # A renewed token would be lost.
        return {"status": "ok", "result": "the token is tried at the next poll"}
    return with_token(config["oauth"], state, lambda token: run(request, config, state, now, token))


def run(request: dict, config: dict, state: dict, now: float, token: str | None) -> dict:
    with opened(request, config, token) as box:
        if request["command"] == "poll":
            return poll(request, config, state, box, now)
        box.open(readonly=True)
        return {"status": "ok", "result": f"{config['host']} accepts the login, {config['folder']} is there"}


@contextlib.contextmanager
def opened(request: dict, config: dict, token: str | None) -> Iterator[Box]:
    """Give a connection that is logged in. Raises Failed for whatever goes wrong on it."""
    place = f"{config['host']}:{config['port']}"
    seconds = min(TIMEOUT_SECONDS, seconds_left(request))
    box = Box(config, place, max(seconds, 0.1))
    try:
        # The library stumbles over answers that it does not know.
        with connection(place, "IMAP", seconds, LookupError, AttributeError, TypeError):
            box.connect()
            box.log_in(token)
            yield box
    except imaplib.IMAP4.error:
        raise Retry(f"{place} broke off, or its answer is not IMAP") from None
    finally:
        box.close()


def poll(request: dict, config: dict, state: dict, box: Box, now: float) -> dict:
    """Return the events for new mails, with the state after them; mark those that the last poll emitted."""
    done = state.get("done") or []
    validity, following = box.open(readonly=not done)
    updates = {"uidvalidity": validity, "polled_at": int(now), "done": []}
    if state.get("uidvalidity") is None:
        return {"status": "ok", "result": "started: mails from now on are emitted",
                "state_updates": updates | {"uid": following - 1, "known": []}}
    known = state.get("known") or []
    if validity == state["uidvalidity"]:
        updates["done"] = mark(config, box, done)
        new, floor = box.since(state["uid"] + 1), state["uid"]
    else:
        log("the server has numbered the mails of the folder anew", "warn")
        since = datetime.fromtimestamp(min(state.get("polled_at", now), now) - DAY, UTC)
        # English whatever the locale says; a day has the server's zone, so it is only a coarse filter.
        month = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()[since.month - 1]
        new, floor = box.search("SINCE", f"{since.day}-{month}-{since.year}"), following - 1
    events, last, seen = collect(request, config, box, new, set(known))
    is_complete = not new or last == new[-1]
    # In a folder as before, the number that the next mail gets proves nothing of what a search has left out.
    uid = max(last or 0, floor) if is_complete else last
    if config["mark"] != "none" or config["move_to"]:
        updates["done"] = (updates["done"] + [event["payload"]["uid"] for event in events])[-MOST_DONE:]
    updates |= {"uid": uid, "known": (known + [each for each in seen if each not in known])[-MOST_KNOWN:]}
    more = "" if is_complete else ", more at the next poll"
    return {"status": "ok", "result": f"{len(events)} new{more}", "events": events, "state_updates": updates}


def mark(config: dict, box: Box, uids: list[int]) -> list[int]:
    """Mark or move the mails whose events are stored: they stand in the state. Return those to be tried again."""
    if not uids:
        return []
    try:
        # Mails that have gone meanwhile are none to mark.
        present = box.search("UID", ",".join(map(str, uids)))
        if present and FLAGS[config["mark"]]:
            box.flag(present, FLAGS[config["mark"]])
        if present and config["move_to"] and not box.move(present, config["move_to"]):
            log(f"moved mails stay in {config['folder']}, marked as deleted: the server cannot remove them alone",
                "warn")
    except Failed as error:
        log(f"{error}; it is tried again at the next poll", "warn")
        return uids
    return []


def collect(request: dict, config: dict, box: Box, uids: list[int],
            skipped: set[str]) -> tuple[list[dict], int | None, list[str]]:
    """Return the events for mails, the last UID that was dealt with, and the identities of these mails.

    It stops early when half of the time or of the space is gone; the rest is for the next poll.
    """
    events, last, seen, size_left, text_left = [], None, [], 4 * config["max_size"] * MIB, MOST_TEXT
    begun, half = time.monotonic(), seconds_left(request) / 2
    for uid in uids:
        if len(events) == config["max_messages"] or (last is not None and (
                min(size_left, text_left) <= 0 or time.monotonic() - begun > half)):
            break
        found, last = read_mail(config, box, uid), uid
        if found is None:
            continue
        about, data = found
        size_left -= len(data)
        identity = parse.identity(data, about["size"])
        seen.append(identity)
        if identity not in skipped:
            payload = parse.read(data, Path(request["workspace_dir"], f"mail-{uid}")) | about
            text_left -= len(payload["text"])
            events.append({"type": "mail.received", "payload": payload,
                           "dedupe_key": f"mail:{config['username']}:{identity}"})
    return events, last, seen


def read_mail(config: dict, box: Box, uid: int) -> tuple[dict, bytes] | None:
    """Return what the server says of a mail, and the mail; None where it has gone.

    One that the server cannot give is without content: it must not keep the others back.
    """
    about = {"uid": uid, "folder": config["folder"], "size": 0, "received": None}
    try:
        found = box.describe(uid)
        if found is None:
            return None
        about |= {"size": found[0], "received": received(found[1])}
        is_large = found[0] > config["max_size"] * MIB
        data = box.fetch(uid, header_only=is_large)
    except Failed as error:
        if error.retry:
            raise
        log(f"mail {uid}: {error}", "warn")
        return about | {"unreadable": str(error)}, f"Message-ID: <{uid}@{config['folder']}>\r\n\r\n".encode()
    return None if data is None else (about | ({"too_large": True} if is_large else {}), data)


def received(arrived: str | None) -> str | None:
    """Return the server's date of a mail in ISO 8601; that of the sender may be absurd."""
    if arrived is None:
        return None
    try:
        parsed = imaplib.Internaldate2tuple(f'INTERNALDATE "{arrived}"'.encode())
        return None if parsed is None else datetime.fromtimestamp(time.mktime(parsed), UTC).isoformat()
    except (ValueError, LookupError, OverflowError):
        return None


if __name__ == "__main__":
    main(respond)
