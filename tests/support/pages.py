"""What a manual's entries say of a command line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from support.manuals import Entry

_OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


def options(entries: Sequence[Entry]) -> set[str]:
    """Return the options that are tagged, in all their spellings."""
    return {word for entry in entries for word in _OPTION.findall(entry.tag)}
