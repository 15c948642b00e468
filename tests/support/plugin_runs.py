"""A shipped plugin run again and again in this process, with its state kept between the runs as Ductile keeps it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ductile import runtime_config, strictjson
from ductile.protocol import Response, decode_response, encode_request
from ductile.state import merge
from ductile.units import utc_text
from support import in_process
from support.notified import ENVIRON, SECRET

TIMESTAMP = "2026-02-08T10:00:00.000Z"
# What a state may measure at most in a test: no shipped plugin has business near the limit of Ductile.
_STATE_BYTES = merge.LIMIT_BYTES * 3 // 4


class Plugin:
    """A shipped plugin with its configuration, and the state and workspace that its runs leave behind."""

    def __init__(self, directory: Path, workspace: Path, config: object = None, state: dict | None = None) -> None:
        self.directory, self.workspace = directory, workspace
        self.config, self.state = {} if config is None else config, state or {}
        self.jobs = 0

    def request(self, command: str, payload: object = None, *, context: dict | None = None, seconds_left: float = 60,
                job_id: str | None = None, **event: object) -> bytes:
        """Return the next request as Ductile writes it; a `poll` has an event only where a payload is given."""
        self.jobs += 1
        given = None
        if command == "handle" or payload is not None:
            given = {"type": "t", "payload": {} if payload is None else payload, "source": "before",
                     "timestamp": TIMESTAMP, "event_id": f"e-{self.jobs}"} | event
        return encode_request(
            protocol=2, job_id=job_id or f"j-{self.jobs}", command=command, config=self.config, state=self.state,
            event=given, deadline_at=utc_text(datetime.now(UTC) + timedelta(seconds=seconds_left)),
            context=context or {}, workspace_dir=str(self.workspace))

    def run(self, command: str, payload: object = None, *, killed: bool = False, **more: Any) -> Response:
        """Return the answer, in which nothing of the secret is told; where it is `killed` before it, nothing is kept.

        The state of a failed attempt is kept, its events are not: so a plugin must not have moved on by itself.
        """
        response = in_process.answer(self.directory, self.request(command, payload, **more), self.workspace, ENVIRON)
        assert SECRET not in repr((response.error, response.result, response.logs, response.events))
        assert response.status == "ok" or response.events == ()
        if not killed:
            self.state = json.loads(strictjson.encode(merge.merge(self.state, response.state_updates)))
            assert merge.size_bytes(self.state) < _STATE_BYTES
        return response

    def run_process(self, command: str, payload: object = None, *, code: int = 0) -> Response:
        """Do the same with a process of its own, which exits with `code`; its state is not kept."""
        done = subprocess.run([self.directory / "run.py"], input=self.request(command, payload), env=ENVIRON,
                              cwd=self.workspace, capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (code, b"")
        response = decode_response(done.stdout)
        assert SECRET not in repr((response.error, response.result, response.logs, response.events))
        return response

    def poll(self, **more: Any) -> Response:
        """Run `poll`."""
        return self.run("poll", **more)

    def handle(self, payload: object = None, **more: Any) -> Response:
        """Run `handle` with an event of this payload."""
        return self.run("handle", {} if payload is None else payload, **more)

    def health(self) -> Response:
        """Run `health`, which changes nothing."""
        before = self.state
        response = self.run("health")
        assert (self.state, response.events) == (before, ())
        return response


def told(response: Response) -> list[tuple[str, Any]]:
    """Return type and payload of the events of an answer, which is a good one."""
    assert (response.status, response.error) == ("ok", None)
    return [(event.type, event.payload) for event in response.events]


def logged(response: Response, level: str = "warn") -> list[str]:
    """Return the messages of an answer's log lines of one level."""
    return [line.message for line in response.logs if line.level == level]


def readme_config(directory: Path, home: Path, environ: Mapping[str, str] | None = None, *,
                  example: int = 0) -> Mapping[str, Any]:
    """Return by name the `config` of the plugins in an example of the README, which loads without a word."""
    blocks = re.findall(r"```yaml\n(.*?)```", (directory / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    file = home / "config.yaml"
    file.write_text(f"plugins_dir: {directory.parent}\n{blocks[example]}", encoding="utf-8")
    loaded = runtime_config.read(file, {"TZ": "UTC", "HOME": str(home), **(environ or {})})
    assert (loaded.problems, loaded.faults, loaded.warnings) == ((), (), ())
    return {name: plugin.settings.config for name, plugin in loaded.runtime.plugins.items()}
