"""Rows as programs read them: one JSON document."""

from __future__ import annotations

import json


def document(value: object) -> str:
    """Return `value` as one JSON document: indented, in ASCII, so that no text of a stranger reaches a terminal raw."""
    return json.dumps(value, indent=2) + "\n"
