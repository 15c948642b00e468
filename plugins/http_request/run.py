#!/usr/bin/env python3
"""Sends one HTTP request from configuration and event, and emits what was answered."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from functools import partial
from urllib.parse import urljoin, urlsplit

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

from ductile_plugin import (
    MIB,
    URL,
    ConfigError,
    Failed,
    Permanent,
    Retry,
    digest,
    event_of,
    http,
    is_headers,
    is_line,
    is_number,
    is_url,
    log,
    lookup,
    main,
    one_line,
    seconds_left,
    settings,
    where,
    workspace_of,
    write_file,
)
from request import METHODS, RESERVED_HEADERS, Request, check, is_auth, is_fields, is_url_template, render

REDIRECTS = 5
# Of one event; a context takes 1 MiB.
MOST_BYTES = 512 * 1024
# The requests whose last answer is remembered, for `on_change`.
MOST_DIGESTS = 200
_NEXT = re.compile(r"<([^<>]*)>\s*((?:;[^,]*)?)")
_MISSING = object()


def is_statuses(value: object) -> bool:
    return isinstance(value, list) and value != [] and all(map(is_number(100, 599, whole=True), value))


def is_pages(value: object) -> bool:
    return (isinstance(value, dict) and value.keys() <= {"next", "items", "most"} and is_line(value.get("next"))
            and is_line(value.get("items", "x")) and is_number(1, 100, whole=True)(value.get("most", 10)))


def is_file_name(value: object) -> bool:
    return is_line(value) and "/" not in value and value not in (".", "..")


def is_hosts(value: object) -> bool:
    return isinstance(value, list) and all(is_line(each) and "/" not in each for each in value)


KEYS = {
    "url": (is_url_template, f"{URL}; placeholders in its path and query, or one that is all of it"),
    "method": (METHODS, None, "GET"),
    "query": (is_fields, "a mapping", {}),
    "headers": (partial(is_headers, reserved=RESERVED_HEADERS),
                "a mapping of header names to strings, without those of the connection itself", {}),
    "json": (lambda value: True, "", None),
    "form": (is_fields, "a mapping", None),
    "text": (lambda value: isinstance(value, str), "a string", None),
    "auth": (is_auth, "{bearer: TOKEN}, {user: NAME, password: WORD}, {header: NAME, value: KEY} or "
                      "{query: NAME, value: KEY}", None),
    "expect": (is_statuses, "a list of HTTP statuses", None),
    "response": (("json", "text", "file", "none"), None, "json"),
    "file": (is_file_name, "a file name", None),
    "select": (is_line, "a name in the response, such as a.b.0", None),
    "emit": (("always", "on_change"), None, "always"),
    "event": (is_line, "the type of the event, in one line", "http_request.done"),
    "pages": (is_pages, "{next: link} or {next: NAME}, with items: NAME and most: 1 to 100", None),
    "hosts": (is_hosts, "a list of hosts", None),
    "timeout": (is_number(0.01, 3600), "seconds, at most 3600", 30),
    "limit": (is_number(1, 1024 * MIB, whole=True), "bytes, at most 1 GiB", 5 * MIB),
}


class Asker:
    """Asks for one page or several within the job's time."""

    def __init__(self, request: dict, config: dict, wanted: Request) -> None:
        self.config, self.wanted = config, wanted
        self.end = time.monotonic() + seconds_left(request, default=config["timeout"] + 1)

    def allowed(self, url: str) -> None:
        """Raise Permanent for a host that is not among `hosts`, where they are given."""
        hosts = self.config["hosts"]
        if hosts is not None and is_url(url) and not {urlsplit(url).netloc, urlsplit(url).hostname} & set(hosts):
            raise Permanent(f"{where(url)} is not among the hosts of the configuration")

    def ask(self, url: str, body: bytes | None) -> object:
        """Return a good answer. Raises Failed, with the start of what a refusal says."""
        timeout = min(self.config["timeout"], self.end - time.monotonic())
        answer = http(self.wanted.method, url, headers=self.wanted.headers, body=body, timeout=timeout,
                      limit=self.config["limit"], redirects=REDIRECTS, check=self.allowed)
        expect = self.config["expect"]
        if answer.ok if expect is None else answer.status in expect:
            return answer
        if expect is not None and answer.ok:
            raise Permanent(f"{where(url)} answered {answer.status}, expected {', '.join(map(str, expect))}")
        raise answer.error(self.reason(answer))

    def reason(self, answer: object) -> str:
        """Return what there is to say behind the status of a refusal, without the secrets that it repeats."""
        wait = "" if answer.retry_after is None else f", asks to wait {answer.retry_after:.0f} s"
        line = one_line(answer.text, 200, self.wanted.secrets)
        return f"{wait}: {line}" if line else wait

    def json(self, answer: object) -> object:
        """Return the JSON of an answer; no body is null. Raises Failed, with the start of what came instead."""
        if not answer.body.strip():
            return None
        try:
            return answer.json()
        except Retry as error:
            kind = one_line(answer.headers.get("content-type", "no content type"), 60)
            raise Failed(f"{error} ({kind}{self.reason(answer)})", retry=True) from None

    def pages(self) -> list:
        """Return the items of all pages, from the first. Raises Failed."""
        rule = self.config["pages"]
        url, seen, items = self.wanted.url, set(), []
        for _ in range(rule.get("most", 10)):
            seen.add(url)
            answer = self.ask(url, self.wanted.body)
            document = self.json(answer)
            found = lookup(rule["items"], document) if "items" in rule else document
            if not isinstance(found, list):
                raise Permanent(f"{where(url)}: {rule.get('items', 'the response')} is not a list, see pages.items")
            items += found
            url = self.following(answer, document, rule["next"]) if found else None
            if url is None or url in seen:
                return items
        log(f"{where(self.wanted.url)} has more than {len(seen)} pages; the rest was not read", "warn")
        return items

    def following(self, answer: object, document: object, rule: str) -> str | None:
        """Return the url of the next page. Raises Permanent for one on another host: it would get the credentials."""
        target = _linked(answer.headers.get("link", "")) if rule == "link" else lookup(rule, document)
        if not isinstance(target, str) or not target:
            return None
        try:
            url = urljoin(answer.url, target)
        except ValueError:
            url = ""
        here, there = urlsplit(answer.url), urlsplit(url) if is_url(url) else None
        if there is None or (here.scheme, here.netloc) != (there.scheme, there.netloc):
            raise Permanent(f"{where(answer.url)} has its next page on another host, which is not followed")
        return url


def _linked(header: str) -> str | None:
    """Return the target of `rel="next"` in a Link header (RFC 8288)."""
    for target, parameters in _NEXT.findall(header):
        relation = re.search(r";\s*rel\s*=\s*\"?([^\";]*)", parameters, re.IGNORECASE)
        if relation and "next" in relation[1].lower().split():
            return target
    return None


def checked(request: dict) -> dict:
    config = settings(request, KEYS)
    check(config)
    if config["event"].startswith("ductile."):
        raise ConfigError("event: the types that begin with ductile. are Ductile's own")
    return config


def send(request: dict, config: dict, wanted: Request) -> dict:
    """Return the payload of the event that the answer makes. Raises Failed."""
    asker = Asker(request, config, wanted)
    if config["pages"]:
        return {"status": 200, "json": _selected(asker.pages(), config["select"])}
    answer = asker.ask(wanted.url, wanted.body)
    found = {"status": answer.status}
    if config["response"] == "json":
        found["json"] = _selected(asker.json(answer), config["select"])
    elif config["response"] == "text":
        found["text"] = answer.text
    elif config["response"] == "file":
        path = os.path.join(workspace_of(request), config["file"] or "response")
        write_file(path, answer.body)
        found |= {"file": path, "size": len(answer.body),
                  "content_type": one_line(answer.headers.get("content-type", ""))}
    return found


def _selected(document: object, path: str | None) -> object:
    value = document if path is None else lookup(path, document, default=_MISSING)
    if value is _MISSING:
        raise Permanent(f"select: no {path!r} in the response")
    return value


def done(request: dict, config: dict, wanted: Request, found: dict) -> dict:
    """Return the answer of the job. With `on_change` the first look, and one like the last, emit nothing."""
    written = json.dumps(found, sort_keys=True, separators=(",", ":")).encode()
    if len(written) > MOST_BYTES:
        raise Permanent(f"the response has {len(written)} bytes, an event at most {MOST_BYTES}: use select, or "
                        f"response: file")
    result = f"{wanted.method} {where(wanted.url)}: {found['status']}"
    events = [{"type": config["event"], "payload": found}]
    if config["emit"] == "always":
        return {"status": "ok", "result": result, "events": events}
    if "file" in found:
        with open(found["file"], "rb") as file:
            written = file.read()
    known = (request.get("state") or {}).get("digests")
    known = dict(known) if isinstance(known, dict) else {}
    before, now = known.pop(wanted.digest, None), digest(written)
    if before == now:
        return {"status": "ok", "result": f"{result}, unchanged"}
    kept = dict(list(known.items())[1 - MOST_DIGESTS:]) | {wanted.digest: now}
    answer = {"status": "ok", "state_updates": {"digests": kept}}
    if before is None:
        return answer | {"result": f"{result}, first response stored; changes are emitted from now on"}
    return answer | {"result": f"{result}, changed", "events": events}


def respond(request: dict) -> dict:
    config = checked(request)
    command = request.get("command")
    if command == "health":
        fixed = config["url"].partition("{")[0]
        place = where(fixed) if is_url(fixed) else "what the event names"
        return {"status": "ok", "result": f"would {config['method']} {place}"}
    if command not in ("poll", "handle"):
        raise Permanent("http_request has no such command")
    event = event_of(request)
    key = f"{os.environ.get('DUCTILE_PLUGIN')}\n{event.get('event_id') or request.get('job_id')}"
    wanted = render(config, event.get("payload", {}), request.get("context"), key)
    return done(request, config, wanted, send(request, config, wanted))


if __name__ == "__main__":
    main(respond)
