"""The process that runs plugins for a worker: one attempt a line, JSON in and out, by `ductile.embed`.

A process of its own, because a run ends every orphan of its process. When the worker is gone, it ends the plugin as at
its deadline, within 6 s, and itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from ductile import embed
from ductile.errors import EXIT_DATA, DuctileError


def main() -> None:
    """Serve the worker that is the parent of this process: `runner CONFIG DIRECTORY RUNNING`."""
    config, directory, running = map(Path, sys.argv[1:])
    worker = os.getppid()
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    # ^C is for the worker, which stops this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    site = embed.open_site(config, directory, os.environ, running=running)
    for line in sys.stdin.buffer:
        given = json.loads(line)
        result = _attempt(site, given, lambda: bool(stopped) or os.getppid() != worker)
        if os.getppid() != worker:
            return
        _answer(result)
        if stopped:
            return


def _attempt(site: embed.Site, given: dict[str, Any], is_stopped: Any) -> dict[str, Any]:
    try:
        return embed.attempt(site, given["job"], given["state"], is_stopped)
    except DuctileError as error:
        return {"refused": str(error), "is_final": error.exit_code == EXIT_DATA}


def _answer(result: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(result).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
