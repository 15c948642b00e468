#!/usr/bin/env python3
"""Emits an event for each new entry of RSS, Atom and JSON feeds."""

from __future__ import annotations

import os
import re
import sys
import time
from datetime import UTC, datetime, timedelta

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

from documents import Document, Entry, digest, read
from ductile_plugin import (
    MIB,
    URL,
    Failed,
    Permanent,
    Retry,
    http,
    is_line,
    is_number,
    is_url,
    log,
    main,
    seconds_left,
    settings,
    where,
    within,
)

LIMIT_BYTES = 10 * MIB
REDIRECTS = 5
MOST_FEEDS = 50
SECONDS_PER_FEED = 15
# Events of one run; what is more comes with the next.
MOST_NEW = 200
# Ids that are remembered of each feed, at least; they are twice those of its document where that is more.
LEAST_SEEN = 300
# Of this many new entries, where that is nearly all, a feed has rather changed its ids than written so much.
SUSPICIOUS, MOST_UNDATED = 10, 3
# After so many runs a feed that fails is told of.
FAILURES_TOLD = 5
LONGEST_WAIT = timedelta(days=1)
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


class Wait(Exception):
    """The server asks to be left alone until a time."""

    def __init__(self, until: datetime) -> None:
        super().__init__(until)
        self.until = until


def fetched(url: str, known: dict, timeout: float, now: datetime) -> object | None:
    """Return an answer with a document, or None where there is nothing new. Raises Failed and Wait."""
    validators = {"If-None-Match": known.get("etag"), "If-Modified-Since": known.get("modified")}
    answer = http("GET", url, headers=HEADERS | {name: value for name, value in validators.items() if value},
                  timeout=timeout, limit=LIMIT_BYTES, redirects=REDIRECTS)
    if answer.status == 304:
        return None
    if answer.status in (429, 503) and answer.retry_after is not None:
        raise Wait(now + min(timedelta(seconds=answer.retry_after), LONGEST_WAIT))
    if not answer.ok:
        raise answer.error(": it is gone permanently, remove it from the configuration" if answer.status == 410 else "")
    return None if known.get("body") == digest(answer.body) else answer


def look(name: str, url: str, known: dict, config: dict, timeout: float, now: datetime) -> tuple[Document, list, dict]:
    """Return the document, its new entries, the oldest first, and what is known from now on. Raises Failed and Wait."""
    # Another url is another feed: nothing of what is known counts.
    known = known if known.get("url") == digest(url) else {"url": digest(url)}
    rest = {key: value for key, value in known.items() if key not in ("failures", "wait_until")}
    answer = fetched(url, known, timeout, now)
    if answer is None:
        return Document(title="", entries=()), [], rest
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
    rest |= {"seen": _remembered(document, known), "aliases": "".join(each.alias or "" for each in document.entries),
             "since": now.isoformat(timespec="seconds"), "body": digest(answer.body),
             "etag": answer.headers.get("etag", "")[:1000], "modified": answer.headers.get("last-modified", "")[:100]}
    return document, list(reversed(new)), rest


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


class Round:
    """One look at all feeds: what is new, what is known afterwards, what failed."""

    def __init__(self, request: dict, config: dict) -> None:
        state = (request.get("state") or {}).get("feeds")
        self.config, self.before = config, state if isinstance(state, dict) else {}
        self.known = {name: self.before[name] for name in config["feeds"] if isinstance(self.before.get(name), dict)}
        self.new, self.events, self.errors, self.waiting, self.good = [], [], {}, [], 0
        self.now = datetime.now(UTC)
        self.end = time.monotonic() + seconds_left(request)

    def look_at(self, name: str, url: str) -> None:
        known = self.known.get(name, {})
        # Beyond the longest wait the clock has been set back.
        if self.now.isoformat() < known.get("wait_until", "") <= (self.now + LONGEST_WAIT).isoformat():
            self.waiting.append(name)
            return
        left = self.end - time.monotonic()
        if left <= 0:
            self.errors[name] = Retry("there was no time left for it: raise timeouts.poll")
            return
        try:
            document, new, self.known[name] = look(
                name, url, known, self.config, min(self.config["timeout"], left), self.now)
        except Wait as wait:
            self.known[name] = known | {"wait_until": wait.until.isoformat()}
            self.waiting.append(name)
            log(f"{name}: {where(url)} asks to wait until {wait.until:%Y-%m-%d %H:%M} UTC", "warn")
            return
        except Failed as error:
            self.errors[name] = error
            return
        self.good += 1
        room = MOST_NEW - len(self.new)
        if len(new) > room:
            log(f"{name}: {len(new) - room} new entries are left for the next run")
            self.known[name] = without(self.known[name], new[room:])
        self.new += [(payload(name, document, entry), f"{name} {entry.key}") for entry in new[:room]]

    def note_failures(self) -> None:
        """Count the failures of single feeds; each is told of once."""
        for name, error in self.errors.items():
            log(f"{name}: {error}", "warn")
            known = self.known.setdefault(name, {})
            count = known.get("failures", 0) + 1
            self.known[name] = known | {"failures": min(count, FAILURES_TOLD)}
            if count == FAILURES_TOLD:
                self.events.append({"type": "feed.failing", "payload": {
                    "feed": name, "error": str(error), "message": f"{name}: {error}"}})

    def response(self) -> dict:
        if self.errors and not self.good and not self.waiting:
            first = next(iter(self.errors))
            more = f" ({len(self.errors)} feeds failed)" if len(self.errors) > 1 else ""
            raise Failed(f"{first}: {self.errors[first]}{more}",
                         retry=any(error.retry for error in self.errors.values()))
        self.note_failures()
        if self.config["digest"] and self.new:
            self.events.append({"type": "feed.digest", "payload": digest_of([entry for entry, _ in self.new])})
        elif self.new:
            self.events += [{"type": "feed.entry", "payload": entry, "dedupe_key": key} for entry, key in self.new]
        failed = f", {len(self.errors)} failed" if self.errors else ""
        waiting = f", {len(self.waiting)} waiting" if self.waiting else ""
        found = {"status": "ok", "events": self.events,
                 "result": f"{len(self.new)} new in {len(self.config['feeds'])} feeds{failed}{waiting}"}
        return found | ({} if self.known == self.before else {"state_updates": {"feeds": self.known}})


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
    found = Round(request, config)
    for name, url in config["feeds"].items():
        found.look_at(name, url)
    return found.response()


if __name__ == "__main__":
    main(respond)
