"""From a link in a Discord channel to a summary there and a note by the shipped plugins, whatever is killed."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from support import hooks
from support.chains import AGAIN, await_rest, await_that, ends, files, is_sound, job_of, workspace
from support.channel import Channel
from support.daemon import RealDaemon
from support.gate import Gate
from support.transcripts import ID, LINK, Site, body, page, player, track
from support.wire import ask, signed

_SHIPPED = Path(__file__).resolve().parents[2]
_PATH = "/webhooks/discord"
_NAMES = ("discord", "youtube_transcript", "summarize", "discord_notify", "note")
_WORDS = "Iron is hard, steel is harder."
_SUMMARY = "Steel is harder than iron."
_CAPTIONS = json.dumps({"wireMagic": "pb3", "events": [
    {"tStartMs": 0, "dDurationMs": 2000, "segs": [{"utf8": _WORDS}]}]})
_MESSAGE = {"id": "1162047182345678901", "channel_id": "1162000000000000001", "content": f"look: {LINK}",
            "author": {"id": "80351110224678912", "username": "ann"}}
_TOKEN = "token-of-the-bot"


@pytest.fixture
def site() -> Iterator[Site]:
    """Where the video is."""
    with closing(Site()) as running:
        running.has(track(), json3=_CAPTIONS)
        yield running


@pytest.fixture
def channel() -> Iterator[Channel]:
    """Where the summary goes."""
    with closing(Channel()) as running:
        yield running


@pytest.fixture
def address(daemon: RealDaemon, site: Site, channel: Channel, gate: Gate) -> hooks.Address:
    """Where the message comes in of a daemon that is configured; its summary waits at the gate."""
    (daemon.home / "pipelines").mkdir()
    shutil.copy(_SHIPPED / "pipelines" / "video-wisdom.yaml", daemon.home / "pipelines")
    daemon.config["plugins_dir"] = os.fspath(_SHIPPED / "plugins")
    waits = f"echo $$ >{gate.config['arrived']}; read -r _ <{gate.config['go']}; echo '{_SUMMARY}'"
    daemon.environ["DISCORD_BOT_TOKEN"] = _TOKEN
    configs = {
        "discord": {"hosts": ["youtube.com"]},
        "youtube_transcript": {"base_url": site.url, "ytdlp": False},
        "summarize": {"command": ["/bin/sh", "-c", waits]},
        "discord_notify": {"bot_token": "${DISCORD_BOT_TOKEN}", "api_base": channel.url},
        "note": {"directory": os.fspath(notes(daemon))},
    }
    daemon.configure(plugins={name: {"config": config, "retry": AGAIN} for name, config in configs.items()})
    return hooks.listen(daemon, path=_PATH, plugin="discord")


def notes(daemon: RealDaemon) -> Path:
    return daemon.home / "notes"


def post(address: hooks.Address) -> str:
    """Post the message as a bot does, and return the id of its job."""
    answer = ask(address, signed(json.dumps(_MESSAGE).encode(), path=_PATH))
    assert answer.status == 202
    return answer.json["job_id"]


def is_done(daemon: RealDaemon, channel: Channel, root: str) -> None:
    """Hold what came of the message against what should: in the ledger, the workspaces, the channel and the notes."""
    assert is_sound(daemon)
    assert ends(daemon) == [(name, "succeeded", None) for name in _NAMES]
    jobs = {name: job_of(daemon, name) for name in _NAMES}
    before = (None, "discord", "youtube_transcript", "summarize", "summarize")
    assert daemon.rows("SELECT plugin, parent_job_id, root_job_id, step_id FROM job_queue ORDER BY seq") == [
        (name, jobs.get(parent), root, step) for name, parent, step in zip(
            _NAMES, before, (None, "transcript", "summary", "reply", "file"), strict=False)]
    for job in jobs.values():
        *orphaned, last = daemon.attempts(job)
        assert ({status for _, status in orphaned}, last[1]) in ((set(), "succeeded"), ({"orphaned"}, "succeeded"))
    [(path, authorization, message)] = channel.messages
    assert (path, authorization) == (f"/channels/{_MESSAGE['channel_id']}/messages", f"Bot {_TOKEN}")
    assert message["content"].endswith(f"\n\n{_SUMMARY}") and LINK in message["content"]
    [note] = notes(daemon).iterdir()
    text = note.read_text()
    assert (note.suffix, text.count(_SUMMARY), text.count(_WORDS), root in text) == (".md", 1, 1, True)
    made = {"transcript.txt": f"{_WORDS}\n", "summary.txt": f"{_SUMMARY}\n"}
    for name, expected in (("youtube_transcript", {"transcript.txt"}), ("summarize", {"transcript.txt", "summary.txt"}),
                           ("discord_notify", {"transcript.txt", "summary.txt"})):
        found = files(workspace(daemon, jobs[name]))
        assert json.loads(found.pop("video.json"))["id"] == ID
        assert found == {each: made[each] for each in expected}
    assert not workspace(daemon, jobs["discord"]).exists()
    # The secret is nobody's but its plugin's.
    assert [row for row in daemon.rows("SELECT * FROM job_log") if _TOKEN in repr(row)] == []
    assert [row for row in daemon.rows("SELECT * FROM event_context") if _TOKEN in repr(row)] == []


def test_a_link_becomes_a_summary_in_the_channel_and_a_note(
        daemon: RealDaemon, channel: Channel, gate: Gate, address: hooks.Address) -> None:
    daemon.start()
    root = post(address)
    gate.arrived()
    gate.let_through()
    await_rest(daemon)
    is_done(daemon, channel, root)
    assert [daemon.attempts(job_of(daemon, name)) for name in _NAMES] == [[(1, "succeeded")]] * 5
    known = json.loads(daemon.rows("SELECT accumulated_json FROM event_context c JOIN job_queue j"
                                   " ON j.event_context_id = c.id WHERE j.plugin = 'note'")[0][0])
    expected = {"origin_plugin": "discord", "origin_event_type": "discord.link", "origin_job_id": root,
                "origin_user_id": "80351110224678912", "url": LINK, "channel_id": _MESSAGE["channel_id"],
                "transcript_path": "workspace://transcript.txt", "summary_path": "workspace://summary.txt"}
    assert expected.items() <= known.items()
    # The same message once more: it is read, and its link is known.
    post(address)
    await_rest(daemon)
    daemon.stop()
    assert [row[:2] for row in ends(daemon)][5:] == [("discord", "succeeded")]
    assert [line["target"] for line in daemon.log("event deduped")] == ["youtube_transcript"]
    assert len(channel.messages) == 1


def stall_once(site: Site) -> Callable[[], None]:
    """Have the site say nothing to the first who asks; return what waits for that one."""
    arrived = threading.Event()
    answer = body(page(player(track())))

    def give(handler: BaseHTTPRequestHandler) -> None:
        first = not arrived.is_set()
        arrived.set()
        if first:
            site.stall(handler)
        else:
            answer(handler)

    def await_first() -> None:
        assert arrived.wait(20), "nobody asked for the video"

    site.answers["/watch"] = give
    return await_first


def test_killed_at_every_step_one_message_arrives_and_one_note_is_filed(
        daemon: RealDaemon, site: Site, channel: Channel, gate: Gate, address: hooks.Address) -> None:
    asked = stall_once(site)
    channel.hold()
    daemon.start()
    root = post(address)
    runs(daemon, "discord")
    kill(daemon)
    asked()
    kill(daemon)
    gate.arrived()
    kill(daemon)
    gate.arrived()
    gate.let_through()
    # It is posted, and nobody is told so.
    channel.await_held()
    kill(daemon)
    runs(daemon, "note")
    kill(daemon)
    await_rest(daemon)
    daemon.stop()
    is_done(daemon, channel, root)
    assert channel.posts == 2
    cut = dict(daemon.rows("SELECT plugin, attempt FROM job_queue"))
    assert all(cut[name] > 1 for name in ("youtube_transcript", "summarize", "discord_notify")), cut


def runs(daemon: RealDaemon, plugin: str) -> None:
    """Wait until a plugin runs, or has: it does nothing that a test could hold up."""
    await_that(daemon, lambda: daemon.rows(
        "SELECT count(*) FROM job_queue WHERE plugin = ? AND started_at IS NOT NULL", plugin) == [(1,)])


def kill(daemon: RealDaemon) -> None:
    daemon.kill()
    daemon.start()
