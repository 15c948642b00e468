"""Every fault of a plugin's response: the protocol's own reader stops at the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ductile.protocol import ProtocolError, read_response
from ductile.text import one_line
from ductile.validation import nearest

# The keys in the order in which the protocol reads them. An item of a list is looked at key by key too, each beside
# what makes the rest of it good.
_KEYS = ("retry", "logs", "status", "result", "error", "events", "state_updates")
_ITEMS: Mapping[str, Mapping[str, Any]] = {
    "events": {"type": "x", "payload": None, "dedupe_key": None}, "logs": {"level": None, "message": "x"},
}
_SHOWN = 60


def faults(raw: Mapping[str, Any]) -> list[str]:
    """Return what makes an object no response, a line each, with its place; nothing where it is one."""
    return [fault for key in _KEYS for fault in _of_key(key, raw.get(key))]


def ignored(raw: Mapping[str, Any]) -> list[str]:
    """Return a line for each key of a response that means nothing to Ductile, with the nearest that does."""
    found = list(_unknown(raw, _KEYS, ""))
    for key, good in _ITEMS.items():
        items = raw.get(key)
        for index, item in enumerate(items if isinstance(items, list) else []):
            found += _unknown(item if isinstance(item, dict) else {}, good, f"{key}[{index}]: ")
    return found


def _of_key(key: str, value: Any) -> Iterator[str]:
    if key not in _ITEMS or not isinstance(value, list):
        yield from _said({"status": "ok", key: value})
        return
    good = _ITEMS[key]
    for index, item in enumerate(value):
        probes = [{**good, name: item.get(name)} for name in good] if isinstance(item, dict) else [item]
        for probe in probes:
            # Alone in its list, or the time would grow with the square of its length.
            for fault in _said({"status": "ok", key: [probe]}):
                yield fault.replace(f"{key}[0]", f"{key}[{index}]", 1)


def _said(probe: dict[str, Any]) -> Iterator[str]:
    try:
        read_response(probe)
    except ProtocolError as error:
        yield str(error)


def _unknown(item: Mapping[str, Any], known: Mapping[str, Any] | tuple[str, ...], where: str) -> Iterator[str]:
    for key in item:
        if key not in known:
            yield f"{where}the key '{one_line(key, _SHOWN)}' is not known and was ignored{nearest(key, known)}"
