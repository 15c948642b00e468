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

from ductile_plugin import ConfigError, Failed, Permanent, Retry, main, one_line

LIMIT_BYTES = 64 * 1024
# How much of the standard error is searched for its last line.
TAIL_BYTES = 4096
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
            return subprocess.Popen(argv, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, close_fds=False)
        except (OSError, ValueError) as error:
            text = getattr(error, "strerror", None) or "not a string that a command line can hold"
            raise Failed(f"{argv[0]}: {text}", retry=getattr(error, "errno", None) in PASSING) from None


def collect(out: int, err: int, pidfd: int) -> tuple[bytes, bool, bytes]:
    """Return the start of the output, whether there was more, and the end of the standard error, which is passed on.

    What the command leaves behind may hold the pipes open or write for ever: it is not waited for.
    """
    kept, truncated, tail, late, watched = bytearray(), False, b"", 0, [out, err, pidfd]
    while True:
        has_ended = pidfd in select.select(watched, [], [])[0]
        # Looked at after that: the last words may have come between the looks at the pipes and at the command.
        ready = select.select([fd for fd in watched if fd != pidfd], [], [], 0)[0]
        if has_ended and (truncated or out not in ready) and (late >= LIMIT_BYTES or err not in ready):
            return bytes(kept), truncated, tail
        for fd in ready:
            data = os.read(fd, LIMIT_BYTES)
            if not data:
                watched.remove(fd)
            elif fd == out:
                room = LIMIT_BYTES - len(kept)
                kept += data[:room]
                truncated = truncated or len(data) > room
            else:
                pass_on(data)
                tail = (tail + data)[-TAIL_BYTES:]
                late += len(data) if has_ended else 0


def pass_on(data: bytes) -> None:
    """Write to standard error what the command wrote to its own; a reader that is gone is none of its business."""
    while data:
        try:
            data = data[os.write(2, data):]
        except OSError:
            return


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
        kept, truncated, tail = collect(child.stdout.fileno(), child.stderr.fileno(), pidfd)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(pidfd)
    # A character cut in two at the end is left out; other bytes that are not UTF-8 are replaced.
    output = codecs.getincrementaldecoder("utf-8")("replace").decode(kept, final=not truncated)
    lines = [line for line in map(one_line, tail.decode("utf-8", "replace").splitlines()) if line]
    return child.returncode, output.replace("\0", ""), truncated, lines[-1] if lines else ""


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
    code, output, truncated, complaint = run(argv, json.dumps(payload, separators=(",", ":")).encode() + b"\n")
    if code == 0:
        done = {"exit_code": code, "output": output, "truncated": truncated}
        return {"status": "ok", "result": output, "events": [{"type": "command.done", "payload": done}]}
    text = f"{argv[0]} exited {code}" if code > 0 else f"{argv[0]} was ended by signal {-code}"
    return {"status": "error", "error": f"{text}: {complaint}" if complaint else text, "retry": retry, "result": output}


if __name__ == "__main__":
    main(respond)
