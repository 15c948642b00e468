"""Whether what is shown goes to a terminal, and what that one can do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from io import TextIOBase

from ductile.ctl.fitting import Terminal

_USUAL_COLUMNS = 80


def terminal(out: TextIOBase, environ: Mapping[str, str], now: datetime) -> Terminal:
    """Return the terminal that `out` is.

    As wide as `COLUMNS` says, or as it says itself; with colours unless `NO_COLOR` is set (no-color.org) or it is a
    dumb one.
    """
    dumb = environ.get("TERM", "dumb") == "dumb"
    return Terminal(_columns(out, environ), colours=not dumb and not environ.get("NO_COLOR"),
                    ascii_only=not out.encoding.lower().startswith("utf"), now=now)


def _columns(out: TextIOBase, environ: Mapping[str, str]) -> int:
    # What shutil.get_terminal_size does, whose import takes as long as all of `status`.
    told = environ.get("COLUMNS", "")
    if told.isascii() and told.isdigit() and len(told) < 6 and int(told) > 0:
        return int(told)
    try:
        return os.get_terminal_size(out.fileno()).columns or _USUAL_COLUMNS
    except OSError:
        return _USUAL_COLUMNS
