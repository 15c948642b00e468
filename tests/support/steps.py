"""A shipped plugin as a step of a pipeline, with a workspace of its own: in this process, or as one of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from ductile.protocol import Response, decode_response, encode_request
from ductile.units import utc_text
from support import in_process
from support.notified import ENVIRON, SECRET, Answer

# The root of the chain that the step is in, and the time of its event.
ROOT_JOB = "7d0c4b0e-52f1-4f5c-8f44-0d8a5a1f6c11"
TIMESTAMP = "2026-02-08T10:00:00.000Z"


def request(workspace: Path, config: object, payload: object = None, *, command: str = "handle", job_id: str = "j-1",
            state: Mapping[str, object] | None = None, seconds_left: float = 60, **event: object) -> bytes:
    """Return a request as Ductile writes it; `payload` as the plugin sees it, with the whole baggage."""
    deadline = datetime.now(UTC) + timedelta(seconds=seconds_left)
    event = {"type": "t", "payload": {} if payload is None else payload, "source": "before", "timestamp": TIMESTAMP,
             "event_id": "e-1"} | event
    return encode_request(
        protocol=2, job_id=job_id, command=command, config=config, state=state or {}, event=event,
        deadline_at=utc_text(deadline), context={}, workspace_dir=os.fspath(workspace))


def run(plugin: Path, given: bytes, workspace: Path, *, environ: Mapping[str, str] = ENVIRON) -> Response:
    """Have a plugin answer in this process, in its workspace; nothing of the secret is told in the answer."""
    response = in_process.answer(plugin, given, workspace, environ)
    assert SECRET not in repr(response)
    return response


def run_process(plugin: Path, given: bytes, workspace: Path, *, environ: Mapping[str, str] = ENVIRON,
                stderr: bytes = b"", code: int = 0, as_user: int | None = None) -> Response:
    """Do the same with the plugin as a process of its own, which exits with `code`."""
    argv = [os.fspath(plugin / "run.py")]
    if as_user is not None:
        argv = ["setpriv", f"--reuid={as_user}", f"--regid={as_user}", "--clear-groups", *argv]
    done = subprocess.run(
        argv, input=given, env=environ, cwd=workspace, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (code, stderr)
    assert SECRET.encode() not in done.stdout
    return decode_response(done.stdout)


def said(status: int, body: object = None, **headers: str) -> Answer:
    """Answer with a status and JSON; a header's name has `_` for `-`."""
    data = json.dumps({} if body is None else body).encode()

    def give(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return give
