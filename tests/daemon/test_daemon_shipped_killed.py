"""Shipped plugins on a daemon that is killed when each of them has done its work and has not answered yet.

The others are killed in the same way in the tests of the shipped configurations and of the chain of a video.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from support.chains import AGAIN, await_rest, ends, is_sound
from support.daemon import RealDaemon
from support.held_back import HeldBack
from support.imap import Imap, keeping_mail
from support.notified import SECRET
from support.standin import Service, serving

_TODAY = datetime.now(UTC).date().isoformat()
_MAIL = b"From: bob@example.org\r\nSubject: Invoice\r\nMessage-ID: <1@example.org>\r\n\r\nHello\r\n"
_SOON = datetime.now(UTC) + timedelta(hours=1)
_CALENDAR = (f"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nUID:1\r\nSUMMARY:Lunch\r\nDTSTART:{_SOON:%Y%m%dT%H%M%SZ}\r\n"
             "END:VEVENT\r\nEND:VCALENDAR\r\n")
_WEIGHT = {"source": "scale", "kind": "measure", "date": _TODAY,
           "values": [{"metric": "weight", "value": 80.1, "unit": "kg"}]}
# What the archive gets, each once.
_ROUTES = [("file_watch", "file.new"), ("calendar", "calendar.starts_soon"), ("mail_in", "mail.received"),
           ("health_analyzer", "health.summary"), ("switch", "measured"), ("relay", "relay.sent"),
           ("note", "note.filed")]


@pytest.fixture
def mailbox() -> Iterator[Imap]:
    with keeping_mail(SECRET) as running:
        yield running


@pytest.fixture
def other() -> Iterator[Service]:
    with serving(lambda asked: (202, {"job_id": "there"})) as running:
        yield running


@pytest.fixture
def held(daemon: RealDaemon, mailbox: Imap, other: Service) -> HeldBack:
    for name in ("watched", "archive", "notes"):
        (daemon.home / name).mkdir()
    (daemon.home / "calendar.ics").write_text(_CALENDAR)
    plugins = {
        "webhook_log": {"file": f"{daemon.home}/requests"},
        "file_watch": {"directory": f"{daemon.home}/watched", "stable": 0},
        "archive": {"directory": f"{daemon.home}/archive", "files": True, "rotate": "never"},
        "calendar": {"path": f"{daemon.home}/calendar.ics", "ahead": "2h"},
        "mail_in": {"host": "127.0.0.1", "port": mailbox.port, "security": "none", "username": "ann",
                    "password": SECRET, "mark": "seen"},
        "health_analyzer": {"timezone": "UTC"},
        "command": {"argv": ["sh", "-c", "echo said >summary.txt; echo 5"]},
        "switch": {"rules": [{"when": {"path": "output", "gt": 4}, "emit": "measured"}]},
        "relay": {"url": f"{other.url}/hook", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
        "note": {"directory": f"{daemon.home}/notes"},
    }
    daemon.config["routes"] = [{"from": source, "event_type": kind, "to": "archive"} for source, kind in _ROUTES] + [
        {"from": source, "event_type": kind, "to": target} for source, kind, target in (
            ("command", "command.done", "switch"), ("switch", "measured", "relay"), ("switch", "measured", "note"))]
    daemon.configure(plugins={name: {"config": config, "retry": AGAIN} for name, config in plugins.items()})
    return HeldBack(daemon)


def test_nothing_is_lost_and_nothing_done_twice(
        daemon: RealDaemon, held: HeldBack, mailbox: Imap, other: Service) -> None:
    daemon.start()
    for plugin in ("file_watch", "mail_in"):
        daemon.submit(plugin)
    await_rest(daemon)
    (daemon.home / "watched" / "a.pdf").write_bytes(b"content" * 1000)
    mailbox.arrives(_MAIL)
    held.hold("archive")
    daemon.submit("file_watch")
    held.kill_in("archive")
    for plugin, command, payload in (
            ("webhook_log", "handle", {"n": 1}),
            ("calendar", "poll", None), ("mail_in", "poll", None), ("health_analyzer", "handle", _WEIGHT),
            ("health_analyzer", "poll", None)):
        held.hold(plugin)
        daemon.submit(plugin, command, payload and {"type": "t", "payload": payload})
        held.kill_in(plugin)
    chain = ("command", "switch", "relay", "note")
    held.hold(*chain)
    daemon.submit("command")
    for plugin in chain:
        held.kill_in(plugin)
    # The second look marks the mail and finds nothing new anywhere.
    for plugin in ("file_watch", "calendar", "mail_in"):
        daemon.submit(plugin)
    await_rest(daemon)
    daemon.stop()
    assert is_sound(daemon)
    assert {status for _, status, _ in ends(daemon)} == {"succeeded"}
    cut = Counter(plugin for (plugin,) in daemon.rows("SELECT plugin FROM job_log WHERE status = 'orphaned'"))
    assert cut == Counter({"archive": 1, "webhook_log": 1, "calendar": 1, "mail_in": 1,
                           "health_analyzer": 2, **dict.fromkeys(chain, 1)})
    archive = daemon.home / "archive"
    records = [json.loads(line) for line in (archive / "events.jsonl").read_text().splitlines()]
    assert sorted(record["type"] for record in records) == sorted(kind for _, kind in _ROUTES)
    [path] = [archive / each for record in records if record["type"] == "file.new" for each in record["files"]]
    assert (path.name, path.read_bytes()) == ("a.pdf", b"content" * 1000)
    # The watched file is as it was: nobody took its write permission.
    assert (daemon.home / "watched" / "a.pdf").stat().st_mode & 0o200
    assert list(mailbox.flags().values()) == [{r"\Seen"}]
    assert len(list((daemon.home / "notes").iterdir())) == 1
    # Sent and logged again, and to be known by the same id.
    assert [len(set(ids)) for ids in (
        [asked.headers["webhook-id"] for asked in other.asked],
        [json.loads(line)["job_id"] for line in (daemon.home / "requests").read_text().splitlines()])] == [1, 1]
    [(state,)] = daemon.rows("SELECT state FROM plugin_state WHERE plugin_name = 'health_analyzer'")
    assert json.loads(state)["scale.weight"]["values"] == [80.1]
