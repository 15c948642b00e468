#!/usr/bin/env python3
"""Emits an event for each new entry of RSS, Atom and JSON feeds."""

from __future__ import annotations

import os
import re
import sys
from datetime import UTC, datetime, timedelta
from functools import partial

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

from documents import Document, Entry, digest, read
from ductile_plugin import (
    MIB,
    URL,
    Permanent,
    Watched,
    changed,
    counted,
    is_line,
    is_number,
    is_url,
    log,
    main,
    settings,
    validators,
    where,
    within,
)

LIMIT_BYTES = 10 * MIB
MOST_FEEDS = 50
SECONDS_PER_FEED = 15
# Events of one run; what is more comes with the next.
MOST_NEW = 200
# Ids that are remembered of each feed, at least; they are twice those of its document where that is more.
LEAST_SEEN = 300
# Of this many new entries, where that is nearly all, a feed has rather changed its ids than written so much.
SUSPICIOUS, MOST_UNDATED = 10, 3
HEADERS = {"User-Agent": "ductile-feed", "Accept": "application/atom+xml, application/rss+xml, application/feed+json, "
                                                   "application/xml;q=0.9, application/json;q=0.8, */*;q=0.5"}


def is_feeds(value: object) -> bool:
    return (isinstance(value, dict) and 0 < len(value) <= MOST_FEEDS
            and all(is_line(name) and len(name) <= 64 and is_url(url) for name, url in value.items()))


KEYS = {
    "feeds": (is_feeds, f"a mapping of 1 to {MOST_FEEDS} names to urls, each {URL}"),
    "first": (is_number(0, 20, whole=True), "a whole number, at most 20", 0),
    "digest": ((True, False), "true or false", False),
    "timeout": (is_number(0.01, 600), "seconds, at most 600", 20),
}


def look(name: str, url: str, known: dict, config: dict, timeout: float, now: datetime) -> tuple[Document, list, dict]:
    """Return the document, its new entries, the oldest first, and what is known from now on. Raises Failed and Wait."""
    # Another url is another feed: nothing of what is known counts.
    known = known if known.get("url") == digest(url) else {"url": digest(url)}
    answer = changed(url, known, headers=HEADERS, timeout=timeout, limit=LIMIT_BYTES)
    if answer is None or known.get("body") == digest(answer.body):
        return Document(title="", entries=()), [], known
    charset = re.search(r"charset=[\"']?([\w.:-]+)", answer.headers.get("content-type", ""), re.IGNORECASE)
    try:
        # Python's HTML parser takes the square of the time for some texts.
        with within(SECONDS_PER_FEED, "is a document that"):
            document = read(answer.body, charset and charset[1], answer.url, now)
    except Permanent as error:
        raise Permanent(f"{where(url)} {error}") from None
    seen = set(_parts(known.get("seen", ""))) | set(_parts(known.get("aliases", "")))
    new = [entry for entry in document.entries if entry.key not in seen and entry.alias not in seen]
    new.sort(key=lambda entry: entry.published or now, reverse=True)
    if "seen" not in known:
        new = new[:config["first"]]
        log(f"{name}: first run, {len(document.entries)} entries marked as seen")
    elif len(new) >= SUSPICIOUS and len(new) > 0.8 * len(document.entries):
        since = datetime.fromisoformat(known["since"]) - timedelta(days=1)
        new = [entry for entry in new if entry.published and entry.published > since] or [
            entry for entry in new if not entry.published][:MOST_UNDATED]
        log(f"{name}: nearly all ids have changed; only entries with a later date, or a few without one, count as new",
            "warn")
    known |= {"seen": _remembered(document, known), "aliases": "".join(each.alias or "" for each in document.entries),
              "since": now.isoformat(timespec="seconds"), "body": digest(answer.body)} | validators(answer)
    return document, list(reversed(new)), known


def _parts(text: str) -> list[str]:
    return [text[start:start + 8] for start in range(0, len(text), 8)]


def _remembered(document: Document, known: dict) -> str:
    """Return the ids of the document, then earlier ones: one that a feed leaves out for a while stays known."""
    keys = [entry.key for entry in document.entries]
    earlier = [key for key in _parts(known.get("seen", "")) if key not in set(keys)]
    return "".join((keys + earlier)[:max(LEAST_SEEN, 2 * len(keys))])


def without(known: dict, left: list[Entry]) -> dict:
    """Return what is known of a feed when some entries are left for the next run: they and the document are not."""
    keys, aliases = {entry.key for entry in left}, {entry.alias for entry in left}
    return {key: value for key, value in known.items() if key not in ("body", "etag", "modified")} | {
        "seen": "".join(key for key in _parts(known["seen"]) if key not in keys),
        "aliases": "".join(key for key in _parts(known["aliases"]) if key not in aliases)}


def payload(name: str, document: Document, entry: Entry) -> dict:
    return {"feed": name, "feed_title": document.title, "id": entry.id, "title": entry.title, "link": entry.link,
            "author": entry.author, "published": entry.published and entry.published.isoformat().replace("+00:00", "Z"),
            "summary": entry.summary, "message": lines(entry.title, entry.link)}


def lines(title: str, link: str | None) -> str:
    return f"{title}\n{link or ''}".rstrip()


def digest_of(entries: list[dict]) -> dict:
    """Return the payload of a digest: all entries, and a text of two lines for each."""
    told = "\n".join(lines(f"{entry['feed']}: {entry['title']}", entry["link"]) for entry in entries)
    return {"count": len(entries), "entries": [entry | {"summary": entry["summary"][:300]} for entry in entries],
            "message": told}


def respond(request: dict) -> dict:
    config = settings(request, KEYS)
    if request.get("command") == "health":
        return {"status": "ok", "result": f"would fetch {', '.join(config['feeds'])}"}
    if request.get("command") != "poll":
        raise Permanent("feed has no such command")
    watched, now, new = Watched(request, "feed", config["feeds"]), datetime.now(UTC), []

    def look_at(name: str, url: str, known: dict, timeout: float) -> dict:
        document, entries, known = look(name, url, known, config, timeout, now)
        room = MOST_NEW - len(new)
        if len(entries) > room:
            log(f"{name}: {len(entries) - room} new entries are left for the next run")
            known = without(known, entries[room:])
        new.extend((payload(name, document, entry), f"{name} {entry.key}") for entry in entries[:room])
        return known

    for name, url in config["feeds"].items():
        watched.look(name, url, config["timeout"], partial(look_at, name, url))
    if config["digest"] and new:
        watched.events.append({"type": "feed.digest", "payload": digest_of([entry for entry, _ in new])})
    elif new:
        watched.events += [{"type": "feed.entry", "payload": entry, "dedupe_key": key} for entry, key in new]
    return watched.response(f"{len(new)} new in {counted(len(config['feeds']), 'feed')}")


if __name__ == "__main__":
    main(respond)
