"""A file on its way from a watched directory into an archive, once and whole, on a daemon that is killed meanwhile."""

from __future__ import annotations

import fcntl
import json
from datetime import UTC, datetime
from pathlib import Path

from support.chains import AGAIN, await_rest, ends, is_sound
from support.daemon import RealDaemon

_SHIPPED = Path(__file__).resolve().parents[2] / "plugins"


def test_a_new_file_is_archived_once_whatever_is_killed(daemon: RealDaemon) -> None:
    watched, archive = daemon.home / "watched", daemon.home / "archive"
    watched.mkdir()
    archive.mkdir()
    daemon.config["plugins_dir"] = str(_SHIPPED)
    daemon.config["routes"] = [{"from": "scans", "event_type": "file.new", "to": "archive"}]
    daemon.configure(plugins={
        "scans": {"uses": "file_watch", "retry": AGAIN, "config": {"directory": str(watched), "stable": 0}},
        "archive": {"retry": AGAIN, "config": {"directory": str(archive), "files": True, "rotate": "never"}}})
    daemon.start()
    daemon.submit("scans")
    await_rest(daemon)
    (watched / "a.pdf").write_bytes(b"content" * 1000)
    with (archive / ".events.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        daemon.submit("scans")
        daemon.until("SELECT status FROM job_queue WHERE plugin = 'archive'", [("running",)])
        daemon.kill()
        daemon.start()
        daemon.until("SELECT status FROM job_queue WHERE plugin = 'archive'", [("running",)])
    await_rest(daemon)
    daemon.submit("scans")
    await_rest(daemon)
    daemon.stop()
    assert is_sound(daemon)
    assert ends(daemon) == [(name, "succeeded", None) for name in ("scans", "scans", "archive", "scans")]
    [record] = [json.loads(line) for line in (archive / "events.jsonl").read_text().splitlines()]
    [path] = [archive / each for each in record["files"]]
    assert (record["payload"]["path"], path.name, path.read_bytes()) == ("a.pdf", "a.pdf", b"content" * 1000)
    assert path.parent.name[:4] == str(datetime.now(UTC).year)
    # The watched file is as it was: nobody took its write permission.
    assert (watched / "a.pdf").stat().st_mode & 0o200
