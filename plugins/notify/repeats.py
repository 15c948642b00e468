"""Messages that repeat each other: one in `repeat_after` is sent, and the next one says how many there were."""

from __future__ import annotations

import hashlib
import re
import time

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(?:[0-9]{1,6}[smhdw])+")
# What makes two of the core's own events about the same thing; their texts differ in the id of the job.
_SAME = ("plugin", "command", "schedule_id")
# After one of these, what it ends is news again.
_ENDS = {"ductile.job.recovered": "ductile.job.dead", "ductile.schedule.recovered": "ductile.schedule.overdue",
         "ductile.plugin.available": "ductile.plugin.unavailable", "ductile.breaker.closed": "ductile.breaker.opened"}
# Of messages that are remembered; those that were sent longest ago are forgotten first.
_MOST = 200


def is_duration(value: object) -> bool:
    """Return whether a value is a duration such as 1h or 1h30m."""
    return isinstance(value, str) and _DURATION.fullmatch(value) is not None


def seconds(duration: str) -> int:
    """Return the seconds of a duration."""
    return sum(int(part[:-1]) * _UNITS[part[-1]] for part in re.findall("[0-9]+[smhdw]", duration))


class Repeats:
    """What was sent, from the state of the plugin: for each message when, and how many were held back since."""

    def __init__(self, state: object, event: object, payload: object, text: str, after: int) -> None:
        known = state.get("repeats") if isinstance(state, dict) else None
        self._known = {key: value for key, value in (known if isinstance(known, dict) else {}).items()
                       if isinstance(value, dict) and type(value.get("at")) in (int, float)
                       and type(value.get("held")) is int}
        self._type = event.get("type") if isinstance(event, dict) else None
        self._payload, self._text = payload, text
        self._now = time.time()
        entry = self._known.get(self._key(self._type), {"at": 0, "held": 0})
        self.is_held = 0 <= self._now - entry["at"] < after
        self.held, self._at = entry["held"], entry["at"]

    @property
    def note(self) -> str:
        """The line that counts what was held back, empty if nothing was."""
        return f"({self.held} more since {time.strftime('%Y-%m-%d %H:%M', time.gmtime(self._at))} UTC)"

    def updates(self) -> dict:
        """Return the state after this message was sent, or held back."""
        known = dict(self._known)
        if self._type in _ENDS:
            known.pop(self._key(_ENDS[self._type]), None)
        known[self._key(self._type)] = ({"at": self._at, "held": self.held + 1} if self.is_held
                                        else {"at": round(self._now, 3), "held": 0})
        newest = sorted(known, key=lambda key: known[key]["at"])[-_MOST:]
        return {"repeats": {key: known[key] for key in newest}}

    def _key(self, kind: object) -> str:
        if isinstance(kind, str) and kind.startswith("ductile.") and isinstance(self._payload, dict):
            # A job that recovers says which command did; what it ends has the same names.
            about = "\0".join(str(self._payload.get(name)) for name in _SAME)
        else:
            about = self._text
        return hashlib.blake2b(f"{kind}\0{about}".encode("utf-8", "replace"), digest_size=8).hexdigest()
