"""Terminals for full-screen programs: a bare pseudo-terminal, and a tmux whose screen can be read back."""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ctl import desk
from ctl.desk import DUCTILECTL, PATIENCE_SECONDS
from support import processes, warm
from support.daemon import until

_LANGUAGE = "C.UTF-8"
_LOOK_SECONDS = 0.2


class Pty:
    """A pseudo-terminal with `ductilectl` on it. `shown` is all that was written to it so far."""

    def __init__(self, home: Path, *arguments: str, columns: int = 80, rows: int = 24, controls: bool = True,
                 keyboard: int | None = None, shows_errors: bool = False,
                 environ: Mapping[str, str] | None = None) -> None:
        """Start it. With `controls` the terminal is the one that sends signals; `keyboard` is another to read from.

        With `shows_errors` standard error is on it too, and not kept.
        """
        self.shown = b""
        self._master, self._slave = os.openpty()
        self.resize(columns, rows)
        self._modes = termios.tcgetattr(self._slave)
        settings = {"stdin": self._slave if keyboard is None else keyboard, "stdout": self._slave,
                    "stderr": self._slave if shows_errors else subprocess.PIPE,
                    "env": {"TERM": "xterm", "LANG": _LANGUAGE, **(environ or {})}}
        if warm.ductilectl is not None and warm.ductilectl.can_start(settings["env"]):
            self.process = desk.start(*arguments, home=home, **settings, controls=controls)
        else:
            self.process = desk.start(*arguments, home=home, **settings, start_new_session=True,
                                      preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if controls else None)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def await_text(self, text: str, *, after: int = 0) -> bytes:
        """Wait until a text has been written, later than so many bytes; return all that has been since."""
        self._read(lambda: text.encode() in self.shown[after:], text)
        return self.shown[after:]

    def _read(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not done():
            if not select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"waited too long for {what!r}; so far:\n{self.shown!r}")
            self.shown += os.read(self._master, 65536)

    def go_away(self) -> None:
        """Hang up: the terminal is no more."""
        os.close(self._slave)
        os.close(self._master)
        self._slave = self._master = -1

    def ends(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was said on standard error."""
        _, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        while self._master >= 0 and select.select([self._master], [], [], 0)[0]:
            self.shown += os.read(self._master, 65536)
        return self.process.returncode, err or ""

    @property
    def is_as_it_was(self) -> bool:
        """Whether the line has the modes that it had, and the screen that was there before is shown, with a cursor."""
        left, shown = self.shown.rfind(b"\x1b[?1049l"), self.shown.rfind(b"\x1b[?25h")
        return termios.tcgetattr(self._slave) == self._modes and left > self.shown.rfind(b"\x1b[?1049h") \
            and shown > self.shown.rfind(b"\x1b[?25l")

    def close(self) -> None:
        """End the program, and give the terminal back."""
        self.process.kill()
        self.process.communicate()
        if self._master >= 0:
            self.go_away()


@contextmanager
def terminal(home: Path, *arguments: str, **settings: object) -> Iterator[Pty]:
    """A pseudo-terminal with `ductilectl` on it, that is gone afterwards."""
    opened = Pty(home, *arguments, **settings)
    try:
        yield opened
    finally:
        opened.close()


class Tmux:
    """A shell in a tmux of its own."""

    def __init__(self, directory: Path) -> None:
        """Start it with 80 columns and 24 rows."""
        self._environ = {"PATH": os.environ["PATH"], "HOME": os.fspath(directory), "TERM": "xterm", "LANG": _LANGUAGE,
                         "TMUX_TMPDIR": os.fspath(directory), "PS1": "$ ", "SHELL": "/bin/sh"}
        self._tmux("-f", os.devnull, "new-session", "-d", "-x", "80", "-y", "24", "/bin/sh")
        self._pids = [int(pid) for pid in self._tmux("display-message", "-p", "#{pid} #{pane_pid}").split()]
        # A client that is told of all that is written to the terminal.
        self._listener = subprocess.Popen(["tmux", "-u", "-C", "attach"], env=self._environ, stdin=subprocess.PIPE,
                                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.until_shown("$")

    def _pause(self) -> bool:
        """Wait until something is written to the terminal, or for an instant. Say whether tmux is still there."""
        told = self._listener.stdout.fileno()
        return not select.select([told], [], [], _LOOK_SECONDS)[0] or os.read(told, 65536) != b""

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(["tmux", "-u", *arguments], env=self._environ, capture_output=True, text=True,
                              timeout=PATIENCE_SECONDS, check=True)
        return done.stdout

    def keys(self, *keys: str) -> None:
        """Press keys, by tmux's names for them."""
        self._tmux("send-keys", *keys)

    def command(self, *words: object) -> None:
        """Have the shell run a command on a cleared screen, and show its exit code."""
        self.keys(f"clear; {' '.join(map(str, words))}; echo code $?", "Enter")

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def lines(self) -> list[str]:
        """What the screen shows now."""
        return self._tmux("capture-pane", "-p").splitlines()

    def coloured(self) -> str:
        """What the screen shows now, with the sequences that colour it."""
        return self._tmux("capture-pane", "-p", "-e")

    @property
    def title(self) -> str:
        """The title that programs can give to the terminal."""
        return self._tmux("display-message", "-p", "#{pane_title}").strip()

    def until_shown(self, *texts: str) -> list[str]:
        """Wait until the screen shows all these texts; return it."""
        def missing() -> list[str]:
            shown = "\n".join(self.lines())
            return [text for text in texts if text not in shown]

        until(missing, [], pause=self._pause, explain=lambda: "\n".join(self.lines()))
        return self.lines()

    def end(self) -> None:
        """End tmux and all that runs in it."""
        self._tmux("kill-server")
        self._listener.communicate(timeout=PATIENCE_SECONDS)
        for pid in self._pids:
            processes.await_end(pid, PATIENCE_SECONDS)


@contextmanager
def tmux() -> Iterator[Tmux]:
    """A tmux that is gone afterwards; the test is skipped where there is none to be had."""
    if shutil.which("tmux") is None:
        pytest.skip("there is no tmux, whose screen could be read back")
    # Not in the test's own directory: the path of a socket may not be long.
    with tempfile.TemporaryDirectory(prefix="tmux-") as directory:
        opened = Tmux(Path(directory))
        try:
            yield opened
        finally:
            opened.end()


def monitor(home: Path) -> Sequence[object]:
    """The command line of the monitor on a configuration."""
    return DUCTILECTL, "-c", home, "monitor"
