#!/usr/bin/env python3
"""Emits an event when a web page, a part of it or a JSON document has changed, with what was added and removed."""

from __future__ import annotations

import base64
import difflib
import json
import os
import re
import sys
import zlib
from datetime import UTC, datetime
from functools import partial

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

from ductile_plugin import (
    MIB,
    URL,
    ConfigError,
    Permanent,
    Retry,
    Watched,
    changed,
    digest,
    is_headers,
    is_line,
    is_number,
    is_url,
    log,
    main,
    settings,
    validators,
    where,
    within,
    workspace_of,
    write_file,
)
from extract import extract, steps, title

LIMIT_BYTES = 5 * MIB
MOST_PAGES = 20
SECONDS_PER_PAGE = 15
# What is kept of a page to compare the next with, compressed; of a longer one only that it has changed is known.
MOST_KEPT_BYTES = 32 * 1024
MOST_LINES = 20
MOST_VALUE_CHARACTERS = 1000
LONGEST_PATTERN = 500
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


PATTERN = f"a regular expression of at most {LONGEST_PATTERN} characters"
PAGE_KEYS = {
    "url": (is_url, URL),
    "select": (steps, "tag, #id, .class, [name=value] and :nth(2), with blanks or > in between", None),
    "match": (is_pattern, PATTERN, None),
    "json": (is_line, "a name in the document, such as a.b.0, or . for all of it", None),
    "remove": (is_patterns, f"a list, each {PATTERN}", []),
    "sort": ((True, False), None, False),
    "headers": (is_headers, "a mapping of header names to strings", {}),
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


def packed(text: str) -> str | None:
    """Return a text as the state keeps it, or None where it is too long for that."""
    found = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    return found if len(found) <= MOST_KEPT_BYTES else None


def unpacked(kept: object) -> str | None:
    return zlib.decompress(base64.b64decode(kept)).decode() if isinstance(kept, str) else None


class Round:
    """One look at all pages: what has changed, and what is known afterwards."""

    def __init__(self, request: dict, config: dict) -> None:
        self.config, self.watched = config, Watched(request, "page", config["pages"])
        self.events = self.watched.events
        self.workspace, self.now = workspace_of(request), datetime.now(UTC)

    def look_at(self, name: str, page: dict, known: dict, timeout: float) -> dict:
        """Return what is known of a page from now on. Raises Failed and Wait."""
        # A page that is looked at in another way begins anew: nothing of it has changed.
        version = digest(json.dumps(page, sort_keys=True))
        known = known if known.get("version") == version else {"version": version}
        answer = changed(page["url"], known, headers=HEADERS | page["headers"], timeout=timeout, limit=LIMIT_BYTES)
        if answer is None:
            return known
        kind = answer.headers.get("content-type", "")
        if page["select"] is None and page["json"] is None and _BLOCKED.search(title(answer.body, kind)):
            raise Retry(f"{where(page['url'])} answered with a page that blocks programs")
        text = self.text_of(page, answer)
        if text is None:
            return self.missing(name, page, known)
        return self.compared(name, page, known, text) | validators(answer)

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

    def response(self) -> dict:
        for name, page in self.config["pages"].items():
            self.watched.look(name, page["url"], self.config["timeout"], partial(self.look_at, name, page))
        changes = sum(event["type"] == "page.changed" for event in self.events)
        return self.watched.response(f"{changes} of {len(self.config['pages'])} pages changed")


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
    return Round(request, config).response()


if __name__ == "__main__":
    main(respond)
