"""A summary by a command of the operator's choice: the text on its standard input, the summary on its output."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
import time

from ductile_plugin import Failed, Permanent, Retry

LIMIT_BYTES = 1024 * 1024
PIPE_BYTES = 64 * 1024
COMPLAINT_BYTES = 16 * 1024
COMPLAINT_LINES = 3
COMPLAINT_CHARACTERS = 300
# The machine lacks something for the moment, or the file is just being written.
PASSING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY)


def run(argv: list[str], text: str, seconds: float) -> str:
    """Return what the command printed. Raises Failed where it does not end well within `seconds`."""
    child = _started(argv, text.encode("utf-8", "replace"))
    try:
        printed, complaint = _collect(child, argv[0], time.monotonic() + seconds, seconds)
        code = child.wait()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        child.stderr.close()
    if code:
        ended = f"{argv[0]} exited {code}" if code > 0 else f"{argv[0]} was ended by signal {-code}"
        raise Retry(ended + _first_lines(complaint))
    return printed.decode("utf-8", "replace")


def is_found(argv: list[str]) -> bool:
    """Say whether the command is there, by its path or in PATH."""
    places = [""] if "/" in argv[0] else os.get_exec_path()
    paths = [os.path.join(place, argv[0]) for place in places]
    return any(os.path.isfile(path) and os.access(path, os.X_OK) for path in paths)


def _started(argv: list[str], given: bytes) -> subprocess.Popen[bytes]:
    # Its input is a file in memory, so that nothing waits for it to be read.
    with open(os.memfd_create("transcript"), "w+b") as file:
        file.write(given)
        file.seek(0)
        try:
            # What this process inherited goes on: the lock by which Ductile knows that something of the run lives.
            return subprocess.Popen(
                argv, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, close_fds=False)
        except (OSError, ValueError) as error:
            text = getattr(error, "strerror", None) or "not a text that a command line can hold"
            raise Failed(f"command: {argv[0]}: {text}", retry=getattr(error, "errno", None) in PASSING) from None


def _collect(child: subprocess.Popen[bytes], name: str, end: float, seconds: float) -> tuple[bytes, bytes]:
    """Return the output and the start of what it complained of, once the command has ended.

    What it leaves behind may hold the pipes open or write for ever: it is not waited for.
    """
    out, err = child.stdout.fileno(), child.stderr.fileno()
    kept = {out: bytearray(), err: bytearray()}
    pidfd, pipes = os.pidfd_open(child.pid), [out, err]
    try:
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise Retry(f"{name} was not done within {seconds:.3g} s")
            ready = select.select([*pipes, pidfd], [], [], left)[0]
            ended = pidfd in ready
            # A last look: the command may have printed and ended between the looks at the pipe and at its end.
            for pipe in select.select(pipes, [], [], 0)[0] if ended else ready:
                _take(pipe, kept, pipes, complaints=pipe == err)
            if len(kept[out]) > LIMIT_BYTES:
                raise Permanent(f"{name} printed more than {LIMIT_BYTES // 1024 // 1024} MiB, that is no summary")
            if ended:
                return bytes(kept[out]), bytes(kept[err])
    finally:
        os.close(pidfd)


def _take(pipe: int, kept: dict[int, bytearray], pipes: list[int], *, complaints: bool) -> None:
    # All that fits into a pipe, so that one look takes what a command left in it.
    data = os.read(pipe, PIPE_BYTES)
    if not data:
        pipes.remove(pipe)
    kept[pipe] += data
    if complaints:
        # They belong to the attempt, as with any plugin.
        os.write(sys.stderr.fileno(), data)
        del kept[pipe][COMPLAINT_BYTES:]


def _first_lines(complaint: bytes) -> str:
    lines = complaint.decode("utf-8", "replace").splitlines()
    clean = ("".join(char for char in line if char.isprintable()).strip() for line in lines)
    text = "; ".join([line for line in clean if line][:COMPLAINT_LINES])
    return f": {text[:COMPLAINT_CHARACTERS]}" if text else ""
