"""The fenced blocks of the README."""

from __future__ import annotations

import re

from support.newcomer import ROOT

_BLOCK = re.compile(r"^```(sh|text)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str, str]]:
    """Return language, mark and text of each fenced block of commands or output."""
    return _BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
