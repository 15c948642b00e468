#!/usr/bin/env python3
"""Runs a command without a shell: the event's payload on its standard input, its output as result and event."""

from __future__ import annotations

import codecs
import json
import os
import select
import signal
import sys

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

from ductile_plugin import ARGV, Permanent, Retry, collect, event_of, is_argv, main, one_line, settings, start

# Between SIGTERM and SIGKILL for the command; the group has 5 s.
GRACE_SECONDS = 4


KEYS = {
    "argv": (is_argv, ARGV),
    "retry": ((True, False), "true or false", True),
}


def run(argv: list[str], given: bytes) -> tuple[int, str, bool, str]:
    """Return the exit code (under zero: the signal), the output, whether it was cut, and the last line of complaint.

    Raises Failed.
    """
    pidfd, asked = None, False

    def stop(*_: object) -> None:
        """Take the command along, with time to clean up. Until it is started the wish is only noted."""
        nonlocal asked
        asked = True
        if pidfd is None:
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if not select.select([pidfd], [], [], GRACE_SECONDS)[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    with start(argv, given) as child:
        pidfd = os.pidfd_open(child.pid)
        if asked:
            stop()
        kept, truncated, tail = collect(child, cut=True)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(pidfd)
    # A character cut in two at the end is left out; other bytes that are not UTF-8 are replaced.
    output = codecs.getincrementaldecoder("utf-8")("replace").decode(kept, final=not truncated)
    lines = [line for line in map(one_line, tail.decode("utf-8", "replace").splitlines()) if line]
    return child.returncode, output.replace("\0", ""), truncated, lines[-1] if lines else ""


def respond(request: dict) -> dict:
    config = settings(request, KEYS)
    argv = config["argv"]
    if request.get("command") == "health":
        if "/" not in argv[0] and not any(os.access(os.path.join(d, argv[0]), os.X_OK) for d in os.get_exec_path()):
            raise Permanent(f"{argv[0]}: not found in PATH")
        return {"status": "ok", "result": f"would run {argv[0]}"}
    if request.get("command") not in ("poll", "handle"):
        raise Permanent("command has no such command")
    payload = event_of(request).get("payload", {})
    try:
        os.chdir(request.get("workspace_dir") or ".")
    except (OSError, TypeError, ValueError):
        raise Retry("workspace_dir: cannot be entered") from None
    code, output, truncated, complaint = run(argv, json.dumps(payload, separators=(",", ":")).encode() + b"\n")
    if code == 0:
        done = {"exit_code": code, "output": output, "truncated": truncated}
        return {"status": "ok", "result": output, "events": [{"type": "command.done", "payload": done}]}
    text = f"{argv[0]} exited {code}" if code > 0 else f"{argv[0]} was ended by signal {-code}"
    return {"status": "error", "error": f"{text}: {complaint}" if complaint else text, "retry": config["retry"],
            "result": output}


if __name__ == "__main__":
    main(respond)
