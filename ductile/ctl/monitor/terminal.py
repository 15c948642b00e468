"""The terminal of `monitor`, by curses: paints lines, reads keys and signals, and restores everything at the end."""

from __future__ import annotations

import curses
import locale
import os
import select
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from ductile.ctl.monitor import render
from ductile.ctl.output import handled
from ductile.ctl.text_width import ascii_only
from ductile.errors import EXIT_USAGE, DuctileError

_ESCAPE_MILLISECONDS = 100    # how long the rest of a key's sequence may take over a slow line
_INSTEAD = "see ductilectl status"
_ENDING = (signal.SIGTERM, signal.SIGHUP)
# SIGWINCH is ours before curses could take it, so that it ends the wait at once; so is SIGCONT, after which the size
# may be another. SIGTSTP stays with curses: it gives the terminal back, stops, and takes it again.
_NOTED = (*_ENDING, signal.SIGWINCH, signal.SIGCONT)
_COLOURS = {render.GOOD: curses.COLOR_GREEN, render.BAD: curses.COLOR_RED, render.WARN: curses.COLOR_YELLOW,
            render.FOCUS: curses.COLOR_CYAN}
_ATTRIBUTES = {render.PLAIN: curses.A_NORMAL, render.TITLE: curses.A_NORMAL, render.FOCUS: curses.A_BOLD,
               render.CHOSEN: curses.A_REVERSE, render.GOOD: curses.A_NORMAL, render.BAD: curses.A_BOLD,
               render.WARN: curses.A_NORMAL, render.DIM: curses.A_DIM, render.ASK: curses.A_REVERSE}
_KEYS = {
    curses.KEY_UP: "up", curses.KEY_DOWN: "down", curses.KEY_PPAGE: "pgup", curses.KEY_NPAGE: "pgdn",
    curses.KEY_HOME: "home", curses.KEY_END: "end", curses.KEY_BTAB: "backtab", curses.KEY_ENTER: "enter",
    curses.KEY_BACKSPACE: "backspace", "\t": "tab", "\n": "enter", "\r": "enter", "\x1b": "esc", "\x7f": "backspace",
    "\b": "backspace",
}


_REDRAW = "\x0c"    # Ctrl-L, as everywhere


@contextmanager
def opened(environ: Mapping[str, str]) -> Iterator[Terminal]:
    """The terminal of standard input and output in full-screen mode, given back as it was, whatever happens.

    Raises DuctileError (64) where there is none, or one that cannot move its cursor.
    """
    _require_terminal(environ)
    # Without it curses takes every character beyond ASCII for one that it does not know.
    locale.setlocale(locale.LC_ALL, "")
    with _signals() as bell:
        window = curses.initscr()
        try:
            yield Terminal(window, bell, colours=_colours(environ))
        finally:
            _give_back()


def _give_back() -> None:
    """Leave the screen and the keypad's mode, show the cursor, and set the line's modes as they were."""
    try:
        curses.endwin()
    except curses.error:
        return    # it is gone, and there is nobody to give it back to


def _require_terminal(environ: Mapping[str, str]) -> None:
    for stream, name in ((sys.stdin, "standard input"), (sys.stdout, "standard output")):
        if not stream.isatty():
            raise DuctileError(f"monitor needs a terminal, and {name} is none; {_INSTEAD}", exit_code=EXIT_USAGE)
    term = environ.get("TERM", "")
    try:
        curses.setupterm(term, sys.stdout.fileno())
        moves = curses.tigetstr("cup") is not None
    except curses.error:
        moves = False
    if not moves:
        # What stands in TERM is the operator's own word, but not fit to be shown for that.
        kind = f"'{ascii(term)[1:-1]}'" if term else "not set"
        raise DuctileError(f"monitor needs a terminal that can move its cursor, and TERM is {kind}: set TERM to the"
                           f" terminal's name, or {_INSTEAD}", exit_code=EXIT_USAGE)


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that gives the number of each signal that has come, a byte each."""
    bell, rope = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    wakes_before = signal.set_wakeup_fd(rope, warn_on_full_buffer=False)
    try:
        with handled(_NOTED, _note):
            yield bell
    finally:
        signal.set_wakeup_fd(wakes_before)
        os.close(bell)
        os.close(rope)


def _note(number: int, frame: FrameType | None) -> None:
    """Let Python write the number to the descriptor, which is all."""


def _colours(environ: Mapping[str, str]) -> dict[str, int]:
    """Return the attributes of styles that have a colour here; none where NO_COLOR (no-color.org) is set."""
    if environ.get("NO_COLOR") or not curses.has_colors():
        return {}
    curses.start_color()
    background = curses.COLOR_BLACK
    try:
        curses.use_default_colors()
        background = -1
    except curses.error:
        pass    # a terminal whose own colours have no name: black is what is left
    for number, colour in enumerate(_COLOURS.values(), 1):
        curses.init_pair(number, colour, background)
    return {style: curses.color_pair(number) for number, style in enumerate(_COLOURS, 1)}


class Terminal:
    """A terminal in full-screen mode. `ended` is the signal that ends us, SIGHUP also where the terminal is gone.

    `knows_all` is set if it shows all of Unicode.
    """

    def __init__(self, window: curses.window, bell: int, *, colours: Mapping[str, int]) -> None:
        """Take the terminal's window. `bell` gives signals, `colours` the attribute of a style that has one."""
        self.ended: int | None = None
        self._window, self._bell = window, bell
        self._attributes = {style: _ATTRIBUTES[style] | colours.get(style, 0) for style in render.STYLES}
        # Not the preferred encoding: in the locale C that is UTF-8 to Python, but ASCII to curses.
        self.knows_all = locale.nl_langinfo(locale.CODESET) == "UTF-8"
        self._shown: list[render.Line] = []
        self._poll = select.poll()
        self._poll.register(sys.stdin.fileno(), select.POLLIN)
        self._poll.register(bell, select.POLLIN)
        curses.noecho()
        curses.cbreak()
        curses.set_escdelay(_ESCAPE_MILLISECONDS)
        window.keypad(True)
        window.nodelay(True)
        with suppress(curses.error):    # a terminal that cannot hide its cursor shows it
            curses.curs_set(0)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows, as they are at this moment."""
        rows, columns = self._window.getmaxyx()
        return columns, rows

    def wait(self, seconds: float) -> None:
        """Wait so long, or until a key or a signal comes; then notice a new size and a terminal that is gone."""
        ready = dict(self._poll.poll(int(seconds * 1000)))
        if ready.get(sys.stdin.fileno(), 0) & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            self.ended = signal.SIGHUP
        if self._bell in ready:
            # All that has come: of those that do not end us nothing but the waking is needed.
            got = os.read(self._bell, 4096)
            self.ended = next((number for number in _ENDING if number in got), self.ended)
            if signal.SIGWINCH in got:
                # Also where the size is what it was: the terminal may have been smaller in between.
                self._forget()
        self._resize()

    def _forget(self) -> None:
        self._window.clear()
        self._shown = []

    def _resize(self) -> None:
        try:
            columns, rows = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            self.ended = signal.SIGHUP
            return
        # A line that is no window of a screen says 0: then what the terminal's description says has to do.
        if columns > 0 and rows > 0 and (columns, rows) != self.size:
            curses.resizeterm(rows, columns)
            self._forget()

    def pressed(self) -> Iterator[str]:
        """Yield the keys that were pressed, as `state.press` names them; others are ignored."""
        while True:
            try:
                key = self._window.get_wch()
            except curses.error:
                return
            name = _KEYS.get(key, key)
            if name == _REDRAW:
                self._forget()
            elif isinstance(name, str):
                yield name

    def forget_keys(self) -> None:
        """Discard what was typed before the question was shown."""
        curses.flushinp()

    def paint(self, lines: Sequence[render.Line]) -> None:
        """Show lines; only changed ones are written."""
        for number, line in enumerate(lines):
            if number < len(self._shown) and self._shown[number] == line:
                continue
            self._window.move(number, 0)
            self._window.clrtoeol()
            for span in line:
                text = span.text if self.knows_all else ascii_only(span.text)
                self._window.addstr(text, self._attributes[span.style])
        self._shown = list(lines)
        self._window.refresh()
