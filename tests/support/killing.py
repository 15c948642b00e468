"""Ends a process at each of its steps, as `kill -9` may."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

_STEPS = ("open", "os.", "sqlite3.connect", "fcntl.", "tempfile.")
_KILLED = 9


def killed_at(number: int, act: Callable[[], object]) -> bool:
    """Do something in a child that ends before its step `number`, counted from 1. Return whether it was killed.

    The steps are what Python does to the file system, by its audit events; an exception in the child is raised here.
    """
    child = os.fork()
    if child == 0:
        left = number

        def look(event: str, arguments: tuple) -> None:
            nonlocal left
            if event.startswith(_STEPS):
                left -= 1
                if left == 0:
                    os._exit(_KILLED)

        sys.addaudithook(look)
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, _KILLED), f"the child ended with {code}"
    return code == _KILLED
