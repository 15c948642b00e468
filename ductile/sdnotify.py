"""Notifications to systemd (sd_notify(3)), without its library."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

_MICROSECONDS = 1_000_000


class Notifier:
    """Sends datagrams to `$NOTIFY_SOCKET`, if it is set. `watchdog` is the watchdog interval in seconds, or None.

    `watchdog_at` is when the watchdog is due again, in monotonic seconds, None without one.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._status: str | None = None
        self.watchdog = _watchdog(environ)
        self.watchdog_at: float | None = None if self.watchdog is None else 0.0

    def report(self, status: str | None, now: float) -> None:
        """Send a status that is new, None for no change, and the watchdog if it is due; `now` is monotonic."""
        if status is not None and status != self._status:
            self._status = status
            self.send(STATUS=status)
        if self.watchdog is not None and self.watchdog_at is not None and now >= self.watchdog_at:
            self.watchdog_at = now + self.watchdog / 2
            self.send(WATCHDOG="1")

    def send(self, **fields: str) -> None:
        """Send `NAME=value` lines, such as `send(READY="1", STATUS="idle")`. Errors are ignored."""
        if not self._address:
            return
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(text.encode(), self._address)
        except OSError:
            return


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """Return the watchdog interval in seconds if it is meant for this process (sd_watchdog_enabled(3))."""
    period = environ.get("WATCHDOG_USEC", "")
    meant_for = environ.get("WATCHDOG_PID", str(os.getpid()))
    if not period.isdecimal() or int(period) == 0 or meant_for != str(os.getpid()):
        return None
    return int(period) / _MICROSECONDS
