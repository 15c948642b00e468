#!/usr/bin/env python3
"""Emits an event when a web page, a part of it or a JSON document has changed, with what was added and removed."""

from __future__ import annotations

import base64
import difflib
import json
import os
import re
import sys
import time
import zlib
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

from ductile_plugin import (
    MIB,
    URL,
    ConfigError,
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
    write_file,
)
from extract import extract, steps, title

LIMIT_BYTES = 5 * MIB
REDIRECTS = 5
MOST_PAGES = 20
SECONDS_PER_PAGE = 15
# What is kept of a page to compare the next with, compressed; of a longer one only that it has changed is known.
MOST_KEPT_BYTES = 32 * 1024
MOST_LINES = 20
MOST_VALUE_CHARACTERS = 1000
LONGEST_PATTERN = 500
FAILURES_TOLD = 5
LONGEST_WAIT = timedelta(days=1)
HEADERS = {"User-Agent": "ductile-page-watch", "Accept": "text/html, application/json;q=0.9, */*;q=0.8"}
# The title of a page that stands in the way of the one that was asked for.
_BLOCKED = re.compile(r"captcha|just a moment|attention required|access denied|are you (?:a )?(?:human|robot)|"
                      r"unusual traffic", re.IGNORECASE)


def is_pattern(value: object) -> bool:
    try:
        return isinstance(value, str) and 0 < len(value) <= LONGEST_PATTERN and bool(re.compile(value))
    except (re.error, RecursionError, OverflowError):
        return False


def is_patterns(value: object) -> bool:
    return isinstance(value, list) and all(map(is_pattern, value))


def is_headers(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for pair in value.items() for each in pair)


PATTERN = f"a regular expression of at most {LONGEST_PATTERN} characters"
PAGE_KEYS = {
    "url": (is_url, URL),
    "select": (steps, "tag, #id, .class, [name=value] and :nth(2), with blanks or > in between", None),
    "match": (is_pattern, PATTERN, None),
    "json": (is_line, "a name in the document, such as a.b.0, or . for all of it", None),
    "remove": (is_patterns, f"a list, each {PATTERN}", []),
    "sort": ((True, False), None, False),
    "headers": (is_headers, "a mapping of strings", {}),
    "missing_after": (is_number(1, 100, whole=True), "a whole number, 1 to 100", 3),
}
KEYS = {
    "pages": (lambda value: isinstance(value, dict) and 0 < len(value) <= MOST_PAGES,
              f"a mapping of 1 to {MOST_PAGES} names to pages"),
    "timeout": (is_number(0.01, 600), "seconds, at most 600", 20),
}


def checked(request: dict) -> dict:
    """Return the configuration with the defaults of each page. Raises ConfigError."""
    config = settings(request, KEYS)
    pages = {}
    for name, page in config["pages"].items():
        if not is_line(name) or len(name) > 64 or "/" in name:
            raise ConfigError("pages: expected names of at most 64 characters, without a slash")
        page = {"url": page} if isinstance(page, str) else page
        try:
            pages[name] = settings({"config": page}, PAGE_KEYS)
        except ConfigError as error:
            raise ConfigError(f"pages.{name}: {str(error).removeprefix('config: ')}") from None
        if page.get("json") is not None and page.get("select") is not None:
            raise ConfigError(f"pages.{name}: expected json or select, got both")
    return config | {"pages": pages}


def digest(value: str) -> str:
    return blake2b(value.encode("utf-8", "replace"), digest_size=9).hexdigest()


def packed(text: str) -> str | None:
    """Return a text as the state keeps it, or None where it is too long for that."""
    found = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    return found if len(found) <= MOST_KEPT_BYTES else None


def unpacked(kept: object) -> str | None:
    return zlib.decompress(base64.b64decode(kept)).decode() if isinstance(kept, str) else None


class Wait(Exception):
    """The server asks to be left alone until a time."""

    def __init__(self, until: datetime) -> None:
        super().__init__(until)
        self.until = until


def fetched(page: dict, known: dict, timeout: float, now: datetime) -> object | None:
    """Return a good answer, or None where the server says that nothing has changed. Raises Failed and Wait."""
    validators = {"If-None-Match": known.get("etag"), "If-Modified-Since": known.get("modified")}
    headers = HEADERS | page["headers"] | {name: value for name, value in validators.items() if value}
    answer = http("GET", page["url"], headers=headers, timeout=timeout, limit=LIMIT_BYTES, redirects=REDIRECTS)
    if answer.status == 304 and validators:
        return None
    if answer.status in (429, 503) and answer.retry_after is not None:
        raise Wait(now + min(timedelta(seconds=answer.retry_after), LONGEST_WAIT))
    if not answer.ok:
        raise answer.error()
    kind = answer.headers.get("content-type", "")
    if page["select"] is None and page["json"] is None and _BLOCKED.search(title(answer.body, kind)):
        raise Retry(f"{where(page['url'])} answered with a page that blocks programs")
    return answer


class Round:
    """One look at all pages: what has changed, what is known afterwards, what failed."""

    def __init__(self, request: dict, config: dict) -> None:
        state = (request.get("state") or {}).get("pages")
        self.config, self.before = config, state if isinstance(state, dict) else {}
        self.known = {name: self.before[name] for name in config["pages"] if isinstance(self.before.get(name), dict)}
        self.events, self.errors, self.waiting, self.good = [], {}, [], 0
        self.workspace = os.path.realpath(request.get("workspace_dir") or ".")
        self.now = datetime.now(UTC)
        self.end = time.monotonic() + seconds_left(request)

    def look_at(self, name: str, page: dict) -> None:
        known = self.known.get(name, {})
        # Beyond the longest wait the clock has been set back.
        if self.now.isoformat() < known.get("wait_until", "") <= (self.now + LONGEST_WAIT).isoformat():
            self.waiting.append(name)
            return
        # A page that is looked at in another way begins anew: nothing of it has changed.
        version = digest(json.dumps(page, sort_keys=True))
        known = known if known.get("version") == version else {"version": version}
        try:
            left = self.end - time.monotonic()
            if left <= 0:
                raise Retry("there was no time left for it: raise timeouts.poll")
            answer = fetched(page, known, min(self.config["timeout"], left), self.now)
            if answer is not None:
                text = self.text_of(page, answer)
        except Wait as wait:
            self.known[name] = known | {"wait_until": wait.until.isoformat()}
            self.waiting.append(name)
            log(f"{name}: {where(page['url'])} asks to wait until {wait.until:%Y-%m-%d %H:%M} UTC", "warn")
            return
        except Failed as error:
            self.errors[name] = error
            return
        self.good += 1
        known = {key: value for key, value in known.items() if key not in ("failures", "wait_until")}
        if answer is None:
            self.known[name] = known
        elif text is None:
            self.known[name] = self.missing(name, page, known)
        else:
            etag, modified = (answer.headers.get(each, "")[:1000] for each in ("etag", "last-modified"))
            self.known[name] = self.compared(name, page, known, text) | {"etag": etag, "modified": modified}

    def text_of(self, page: dict, answer: object) -> str | None:
        try:
            # Python's HTML parser takes the square of the time for some pages.
            with within(SECONDS_PER_PAGE, "is a page that"):
                return extract(page, answer.body, answer.headers.get("content-type", ""))
        except Permanent as error:
            raise Permanent(f"{where(page['url'])} {error}") from None

    def missing(self, name: str, page: dict, known: dict) -> dict:
        """Return what is known of a page without its part: the next look is compared with what was there before."""
        count = known.get("missing", 0) + 1
        log(f"{name}: the selected part is not on the page, {count} times in a row", "warn")
        if count == page["missing_after"]:
            self.events.append({"type": "page.missing", "payload": {
                "page": name, "url": shown(page["url"]), "message": f"{name}: the selected part is gone"}})
        # With validators the server would say "unchanged" of the page that lacks it.
        return {key: value for key, value in known.items() if key not in ("etag", "modified")} | {
            "missing": min(count, page["missing_after"])}

    def compared(self, name: str, page: dict, known: dict, text: str) -> dict:
        """Return what is known of a page from now on, and note the event if it has changed."""
        now, kept = digest(text), packed(text)
        found = {"version": known["version"], "digest": now, "since": self.now.isoformat(timespec="seconds")}
        found |= {"text": kept} if kept else {}
        if "digest" not in known:
            log(f"{name}: first run, {len(text.splitlines())} lines")
        elif known["digest"] != now:
            # The same change again is another event, the same run again is not.
            self.events.append({"type": "page.changed", "dedupe_key": f"{name} {known['since']} {now}",
                                "payload": self.changed(name, page, unpacked(known.get("text")), text)})
        else:
            return {key: value for key, value in known.items() if key != "missing"}
        return found

    def changed(self, name: str, page: dict, before: str | None, text: str) -> dict:
        """Return what there is to say of a change."""
        payload = {"page": name, "url": shown(page["url"])}
        if before is None:
            payload["message"] = f"{name} has changed"
        else:
            added, removed, diff = differences(before, text, name)
            path = os.path.join(self.workspace, f"{name}.diff")
            write_file(path, diff.encode())
            lines = [*(f"- {line}" for line in removed), *(f"+ {line}" for line in added)]
            payload |= {"added": added, "removed": removed, "diff": path,
                        "message": "\n".join([f"{name} has changed", *lines])}
            if max(len(before), len(text)) <= MOST_VALUE_CHARACTERS:
                payload |= {"old": before, "new": text}
        return payload

    def note_failures(self) -> None:
        """Count the failures of single pages; each is told of once."""
        for name, error in self.errors.items():
            log(f"{name}: {error}", "warn")
            known = self.known.get(name, {})
            count = known.get("failures", 0) + 1
            self.known[name] = known | {"failures": min(count, FAILURES_TOLD)}
            if count == FAILURES_TOLD:
                self.events.append({"type": "page.failing", "payload": {
                    "page": name, "error": str(error), "message": f"{name}: {error}"}})

    def response(self) -> dict:
        if self.errors and not self.good and not self.waiting:
            first = next(iter(self.errors))
            more = f" ({len(self.errors)} pages failed)" if len(self.errors) > 1 else ""
            raise Failed(f"{first}: {self.errors[first]}{more}",
                         retry=any(error.retry for error in self.errors.values()))
        self.note_failures()
        changed = sum(event["type"] == "page.changed" for event in self.events)
        failed = f", {len(self.errors)} failed" if self.errors else ""
        waiting = f", {len(self.waiting)} waiting" if self.waiting else ""
        found = {"status": "ok", "events": self.events,
                 "result": f"{changed} of {len(self.config['pages'])} pages changed{failed}{waiting}"}
        return found | ({} if self.known == self.before else {"state_updates": {"pages": self.known}})


def shown(url: str) -> str:
    """Return a url to follow, without its query, which may hold a secret."""
    return re.split("[?#]", url)[0]


def differences(before: str, text: str, name: str) -> tuple[list[str], list[str], str]:
    """Return the lines that were added and removed, a few of each, and the whole unified diff."""
    try:
        with within(10, "the comparison"):
            diff = list(difflib.unified_diff(
                before.splitlines(), text.splitlines(), f"{name} before", f"{name} now", lineterm=""))
    except Permanent:
        diff = ["", "", *(f"-{line}" for line in before.splitlines()), *(f"+{line}" for line in text.splitlines())]
    added = [line[1:][:MOST_VALUE_CHARACTERS] for line in diff[2:] if line.startswith("+")]
    removed = [line[1:][:MOST_VALUE_CHARACTERS] for line in diff[2:] if line.startswith("-")]
    return added[:MOST_LINES], removed[:MOST_LINES], "\n".join(diff) + "\n"


def respond(request: dict) -> dict:
    config = checked(request)
    if request.get("command") == "health":
        return {"status": "ok", "result": f"would fetch {', '.join(config['pages'])}"}
    if request.get("command") != "poll":
        raise Permanent("page_watch has no such command")
    found = Round(request, config)
    for name, page in config["pages"].items():
        found.look_at(name, page)
    return found.response()


if __name__ == "__main__":
    main(respond)
