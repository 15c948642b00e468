"""The gateway: takes webhooks, and answers once Temporal has the chains that they begin.

`ductile.embed` checks the signatures. Put a reverse proxy in front of it, as in front of `ductiled`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import threading
from collections.abc import Coroutine
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from ductile import embed
from ductile_temporal import workflows

_SECONDS = 10
_UNAVAILABLE = {"status": 503, "headers": [["Retry-After", "30"]], "body": "", "reason": "Temporal cannot be reached"}
T = TypeVar("T")


def chain_workflow(job: dict[str, Any]) -> str:
    """Return the id of a chain's workflow: one for all jobs that are duplicates of each other."""
    if job["dedupe_key"] is None:
        return str(job["id"])
    parts = [job[name] for name in ("plugin", "command", "pipeline_name", "step_id", "dedupe_key")]
    return f"chain/{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}"


async def start_chain(client: Client, job: dict[str, Any]) -> str | None:
    """Start a chain. Return None, or the id of the earlier job of which this is a duplicate.

    A duplicate is one of a chain that runs, or that has succeeded and is kept by Temporal (its retention).
    """
    try:
        await client.start_workflow(
            workflows.Chain.run, args=[job], id=chain_workflow(job), task_queue=workflows.TASK_QUEUE,
            memo={"job_id": job["id"]}, id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY)
    except WorkflowAlreadyStartedError:
        earlier: WorkflowHandle[Any, Any] = client.get_workflow_handle(chain_workflow(job))
        # A start that was repeated after a lost answer finds itself.
        found: str = await (await earlier.describe()).memo_value("job_id", "")
        return None if found == job["id"] else found
    return None


class Gateway(ThreadingHTTPServer):
    """Answers each request in a thread; the calls to Temporal are made on the loop of the main thread."""

    daemon_threads = True

    def __init__(self, client: Client, site: embed.Site, address: tuple[str, int]) -> None:
        super().__init__(address, Handler)
        self.site = site
        self._client = client
        self._loop = asyncio.get_running_loop()

    def take(self, head: dict[str, Any], body: bytes) -> dict[str, Any]:
        """Return the answer to a request, `status`, `headers`, `body` and `reason`, once its chains are stored."""
        found = embed.accept(self.site, head, body)
        try:
            earlier = [self._call(start_chain(self._client, job)) for job in found["jobs"]]
        except (RPCError, TimeoutError):
            return _UNAVAILABLE
        if earlier and None not in earlier:
            return {**found, "status": 200, "body": json.dumps({"deduped": True, "job_id": earlier[0]})}
        return found

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)


class Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    server: Gateway
    timeout = _SECONDS
    server_version, sys_version = "ductile", ""

    def do_POST(self) -> None:
        """Take a webhook."""
        length = self.headers.get_all("Content-Length", [])
        webhooks = self.server.site.runtime.config.webhooks
        largest = max((each.max_body_size for each in webhooks.endpoints), default=0) if webhooks else 0
        if len(length) != 1 or not length[0].isdecimal() or "Transfer-Encoding" in self.headers:
            self._answer(411, [], "", "no length")
        elif int(length[0]) > largest:
            self._answer(413, [], "", "too large")
        else:
            self._take(self.rfile.read(int(length[0])), int(length[0]))

    def do_GET(self) -> None:
        """Answer a handshake that has no body."""
        self._take(b"", 0)

    def _take(self, body: bytes, length: int) -> None:
        if len(body) < length:
            return
        path, _, query = self.path.partition("?")
        head = {"method": self.command, "path": path, "query": query, "headers": self.headers.items()}
        found = self.server.take(head, body)
        self._answer(found["status"], found["headers"], found["body"], found["reason"])

    def _answer(self, status: int, headers: list[list[str]], body: str, reason: str | None) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body.encode())))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body.encode())
        self.close_connection = True
        if reason is not None:
            print(f"refused {self.command} {self.path.partition('?')[0]}: {reason}", file=sys.stderr, flush=True)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing of what went well."""


async def serve(client: Client, config: Path, shared: Path, address: tuple[str, int], stopped: asyncio.Event) -> None:
    """Take webhooks until `stopped`. Raises DuctileError if the configuration cannot be used."""
    site = embed.open_site(config, shared, os.environ)
    gateway = Gateway(client, site, address)
    thread = threading.Thread(target=gateway.serve_forever, name="gateway")
    thread.start()
    print(f"gateway listening on {address[0]}:{gateway.server_port}", flush=True)
    await stopped.wait()
    await asyncio.to_thread(gateway.shutdown)
    gateway.server_close()
    thread.join()
