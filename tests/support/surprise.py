"""A moment in a program under test: code that runs there when a certain audit event comes (PEP 578)."""

from __future__ import annotations

from pathlib import Path

_SITE = """\
import os, signal, sys

reached = []

def surprise(event, arguments):
    if event == {event!r} and len(reached) < {nth} and {about!r} in str(arguments[0] if arguments else ""):
        reached.append(event)
        if len(reached) == {nth}:
            {action}

sys.addaudithook(surprise)
"""

INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)"
TERMINATE = "os.kill(os.getpid(), signal.SIGTERM)"


def at(directory: Path, event: str, *, action: str, about: str = "", nth: int = 1) -> dict[str, str]:
    """Return the variables with which a Python program does `action`, once, when an event comes for the nth time.

    `about` is part of the event's first argument. A process that is forked counts on. The module that does the action
    is made in the directory.
    """
    (directory / "sitecustomize.py").write_text(_SITE.format(event=event, about=about, action=action, nth=nth))
    return {"PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
