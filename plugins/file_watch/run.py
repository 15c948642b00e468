#!/usr/bin/env python3
"""Emits events for new, changed and removed files of a directory, once they are complete."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from datetime import UTC, datetime

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

from ductile_plugin import (
    MIB,
    Permanent,
    Retry,
    counted,
    digest,
    is_absolute,
    is_line,
    is_number,
    log,
    main,
    seconds_left,
    settings,
    workspace_of,
)
from looks import Entry, Version, compare, pack, scan, unpack

# No file is begun with less time than this, in seconds.
SPARE_SECONDS = 5
MESSAGES = {"file.new": "is new", "file.changed": "has changed", "file.removed": "was removed"}


def is_patterns(value: object) -> bool:
    return isinstance(value, list) and value != [] and all(map(is_line, value))


KEYS = {
    "directory": (is_absolute, "an absolute path, or one that begins with ~"),
    "recursive": ((True, False), None, True),
    "include": (is_patterns, "a list of patterns such as *.pdf", ["*"]),
    "ignore": (lambda value: value == [] or is_patterns(value), "a list of patterns such as *.bak", []),
    "stable": (is_number(0, 86_400), "seconds, at most 86400", 10),
    "content": (("copy", "link", "none"), None, "copy"),
    "max_size": (is_number(0, 1024**4, whole=True), "bytes", 100 * MIB),
    "most": (is_number(1, 500, whole=True), "a whole number, 1 to 500", 50),
    "removed": ((True, False), None, True),
}


def now() -> int:
    return int(time.time())


def copy(source: str, target: str) -> None:
    shutil.copyfile(source, target, follow_symlinks=False)


class Look:
    """One look at the directory: what is told of, and what is known afterwards."""

    def __init__(self, request: dict, config: dict) -> None:
        self.config, self.root = config, os.path.realpath(os.path.expanduser(config["directory"]))
        self.workspace = workspace_of(request)
        self.end = time.monotonic() + seconds_left(request)
        self.now = now()
        self.events: list[dict] = []
        self.left = 0

    def tell_complete(self, known: dict[str, Entry], path: str) -> None:
        """Note the event of a complete file, unless it changes meanwhile; with its content where that is wanted."""
        entry = known[path]
        payload = self.payload(path, entry.waiting)
        if self.config["content"] != "none":
            if entry.waiting.size > self.config["max_size"]:
                log(f"{payload['path']}: has {entry.waiting.size} bytes, more than max_size; not copied")
            elif not self.take(path, entry.waiting, payload):
                known[path] = Entry(told=entry.told, waiting=entry.waiting, since=self.now)
                return
        known[path] = Entry(told=entry.waiting)
        self.emit("file.changed" if entry.told else "file.new", payload, entry.since)

    def take(self, path: str, version: Version, payload: dict) -> bool:
        """Put the content into the workspace, and say whether it is that of the version. Raises OSError."""
        source = os.path.join(self.root, path)
        target = os.path.join(self.workspace, payload["path"])
        os.makedirs(os.path.dirname(target), exist_ok=True)
        # Two names that are no UTF-8 can look the same.
        while os.path.lexists(target):
            target += "_"
        try:
            if self.config["content"] == "link":
                os.link(source, target, follow_symlinks=False)
            else:
                copy(source, target)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            if self.config["content"] != "link" or error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                log(f"{payload['path']}: {error.strerror}", "warn")
                return False
            copy(source, target)
        after = os.stat(target if self.config["content"] == "link" else source, follow_symlinks=False)
        if Version(after.st_mtime_ns, after.st_size) != version or os.path.getsize(target) != version.size:
            os.unlink(target)
            return False
        payload["file"] = target
        return True

    def payload(self, path: str, version: Version) -> dict:
        modified = datetime.fromtimestamp(version.mtime // 10**9, UTC).isoformat().replace("+00:00", "Z")
        # A name that is no UTF-8 is told with marks in place of what is none.
        text = os.fsencode(path).decode("utf-8", "replace")
        return {"path": text, "name": os.path.basename(text), "directory": self.root, "size": version.size,
                "modified": modified}

    def emit(self, kind: str, payload: dict, since: int) -> None:
        key = f"{kind} {payload['path']} {payload['modified']} {payload['size']} {since}"
        said = {"message": f"{payload['path']} {MESSAGES[kind]}"}
        self.events.append({"type": kind, "payload": payload | said, "dedupe_key": key})

    def has_room(self) -> bool:
        return len(self.events) < self.config["most"] and self.end - time.monotonic() > SPARE_SECONDS

    def after(self, known: dict[str, Entry], complete: list[str], gone: list[str]) -> dict[str, Entry]:
        """Return what is known after telling of what there is room and time for; the rest is told by the next run."""
        for path in complete:
            if self.has_room():
                self.tell_complete(known, path)
            else:
                self.left += 1
        for path in gone:
            if not self.config["removed"]:
                del known[path]
            elif self.has_room():
                entry = known.pop(path)
                self.emit("file.removed", self.payload(path, entry.told), entry.gone)
            else:
                self.left += 1
        return known


def poll(request: dict, config: dict) -> dict:
    state = request.get("state") or {}
    look = Look(request, config)
    rules = digest([look.root, config["recursive"], config["include"], config["ignore"]])
    found, unreadable = scan(look.root, **{key: config[key] for key in ("recursive", "include", "ignore")})
    device = os.stat(look.root).st_dev
    if state.get("rules") != rules or not isinstance(state.get("known"), str):
        known = {path: Entry(told=version) for path, version in found.items()}
        return {"status": "ok", "result": f"first run, {counted(len(known), 'file')}",
                "state_updates": {"rules": rules, "device": device, "known": pack(known)}}
    before = unpack(state["known"])
    if before and not found and state.get("device") != device:
        raise Retry(f"{look.root}: is empty and on another file system than before; is its disk mounted?")
    known = look.after(*compare(before, found, unreadable, look.now, config["stable"]))
    more = f", {look.left} left for the next run" if look.left else ""
    waiting = sum(entry.waiting is not None or entry.gone > 0 for entry in known.values()) - look.left
    looked = f"{counted(len(look.events), 'event')}, {counted(len(found), 'file')}"
    answer = {"status": "ok", "events": look.events, "result": f"{looked}, {waiting} not complete yet{more}"}
    updates = {"known": pack(known)} if known != before else {}
    return answer | {"state_updates": updates | ({"device": device} if found and state.get("device") != device else {})}


def respond(request: dict) -> dict:
    config = settings(request, KEYS)
    root = os.path.realpath(os.path.expanduser(config["directory"]))
    if request.get("command") not in ("poll", "health"):
        raise Permanent("file_watch has no such command")
    try:
        if request.get("command") == "health":
            with os.scandir(root):
                return {"status": "ok", "result": f"would watch {root}"}
        return poll(request, config)
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else root
        raise Retry(f"{os.fsencode(name).decode('utf-8', 'replace')}: {error.strerror}") from None


if __name__ == "__main__":
    main(respond)
