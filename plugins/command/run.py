#!/usr/bin/env python3
"""Runs a command without a shell: the event's payload on its standard input, its output as result and event."""

from __future__ import annotations

import codecs
import errno
import json
import os
import select
import signal
import subprocess
import sys

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

from ductile_plugin import ConfigError, Failed, Permanent, Retry, main

LIMIT_BYTES = 64 * 1024
# Between SIGTERM and SIGKILL for the command; the group has 5 s.
GRACE_SECONDS = 4
# The machine lacks something for the moment, or the file is just being written.
PASSING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY)


def checked(config: object) -> tuple[list[str], bool]:
    """Return the command and whether it is tried again after a failure. Raises ConfigError."""
    if not isinstance(config, dict):
        raise ConfigError("config: expected a mapping")
    for key in config:
        if key not in ("argv", "retry"):
            raise ConfigError(f"config: unknown key {key!r}, expected one of argv, retry")
    argv = config.get("argv")
    if not isinstance(argv, list) or not argv:
        raise ConfigError("argv: expected a list of strings, the command and its arguments")
    for index, word in enumerate(argv):
        if not isinstance(word, str) or "\0" in word or (index == 0 and not word):
            raise ConfigError(f"argv[{index}]: expected a string (a number needs quotes)")
    retry = config.get("retry")
    if retry is not None and type(retry) is not bool:
        raise ConfigError("retry: expected true or false")
    return argv, retry is not False


def start(argv: list[str], given: bytes) -> subprocess.Popen:
    """Start the command. Its input is a file in memory, so that nothing waits for it to be read."""
    with open(os.memfd_create("payload"), "w+b") as file:
        file.write(given)
        file.seek(0)
        try:
            # What this process inherited goes on: the lock by which Ductile knows that something of the run lives.
            return subprocess.Popen(argv, stdin=file, stdout=subprocess.PIPE, close_fds=False)
        except (OSError, ValueError) as error:
            text = getattr(error, "strerror", None) or "not a string that a command line can hold"
            raise Failed(f"{argv[0]}: {text}", retry=getattr(error, "errno", None) in PASSING) from None


def collect(out: int, pidfd: int) -> tuple[bytes, bool]:
    """Return the start of the output and whether there was more, once the command has ended.

    What it leaves behind may hold the pipe open or write for ever: it is not waited for.
    """
    kept, truncated, watched = bytearray(), False, [out, pidfd]
    while True:
        has_ended = pidfd in select.select(watched, [], [])[0]
        # Looked at after that: the last words may have come between the looks at the pipe and at the command.
        has_output = out in watched and select.select([out], [], [], 0)[0]
        if has_ended and (truncated or not has_output):
            return bytes(kept), truncated
        data = os.read(out, LIMIT_BYTES)
        if not data:
            watched.remove(out)
        room = LIMIT_BYTES - len(kept)
        kept += data[:room]
        truncated = truncated or len(data) > room


def run(argv: list[str], given: bytes) -> tuple[int, str, bool]:
    """Return the exit code (under zero: the signal), the output and whether it was cut. Raises Failed."""
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
        kept, truncated = collect(child.stdout.fileno(), pidfd)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(pidfd)
    # A character cut in two at the end is left out; other bytes that are not UTF-8 are replaced.
    output = codecs.getincrementaldecoder("utf-8")("replace").decode(kept, final=not truncated)
    return child.returncode, output.replace("\0", ""), truncated


def respond(request: dict) -> dict:
    argv, retry = checked(request.get("config"))
    if request.get("command") == "health":
        if "/" not in argv[0] and not any(os.access(os.path.join(d, argv[0]), os.X_OK) for d in os.get_exec_path()):
            raise Permanent(f"{argv[0]}: not found in PATH")
        return {"status": "ok", "result": f"would run {argv[0]}"}
    if request.get("command") not in ("poll", "handle"):
        raise Permanent("command has no such command")
    event = request.get("event")
    payload = event.get("payload", {}) if isinstance(event, dict) else {}
    try:
        os.chdir(request.get("workspace_dir") or ".")
    except (OSError, TypeError, ValueError):
        raise Retry("workspace_dir: cannot be entered") from None
    code, output, truncated = run(argv, json.dumps(payload, separators=(",", ":")).encode() + b"\n")
    if code == 0:
        done = {"exit_code": code, "output": output, "truncated": truncated}
        return {"status": "ok", "result": output, "events": [{"type": "command.done", "payload": done}]}
    text = f"{argv[0]} exited {code}" if code > 0 else f"{argv[0]} was ended by signal {-code}"
    return {"status": "error", "error": text, "retry": retry, "result": output}


if __name__ == "__main__":
    main(respond)
