"""The system's time zone, for schedules that name none."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from ductile import disk
from ductile.disk import NotRegular, TooLarge

_LOCALTIME = Path("/etc/localtime")
_DIRECTORY = "zoneinfo"
# The largest files of the zone database have some 4 KiB.
_LARGEST_BYTES = 1024**2


def local_zone(environ: Mapping[str, str], localtime: Path = _LOCALTIME) -> tuple[tzinfo, str | None]:
    """Return the system's zone, and a warning where the variable TZ is set to what cannot be used.

    TZ comes first (`Area/City`, an absolute path, empty for UTC), then the name of the zone file that
    `localtime` links to, then that file's rules, then UTC. See tzset(3).
    """
    wanted = environ.get("TZ")
    if wanted is None:
        return _system_zone(localtime), None
    zone = _zone_of_variable(wanted.removeprefix(":"))
    if zone is not None:
        return zone, None
    return _system_zone(localtime), f"TZ: expected a time zone such as Australia/Sydney, got {wanted!r}; it is ignored"


def _zone_of_variable(name: str) -> tzinfo | None:
    if name in ("", "UTC"):
        return UTC
    if name.startswith("/"):
        return _zone_of_file(Path(name))
    return _zone_of_name(name)


def _system_zone(localtime: Path) -> tzinfo:
    if not os.path.exists(localtime):
        return UTC
    # The name is worth having: two schedules in zones of the same name compare equal.
    parts = localtime.resolve().parts
    if _DIRECTORY in parts:
        zone = _zone_of_name("/".join(parts[parts.index(_DIRECTORY) + 1 :]))
        if zone is not None:
            return zone
    return _zone_of_file(localtime) or UTC


def _zone_of_name(name: str) -> tzinfo | None:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return None


def _zone_of_file(path: Path) -> tzinfo | None:
    try:
        return ZoneInfo.from_file(io.BytesIO(disk.read(path, _LARGEST_BYTES)))
    except (ValueError, OSError, NotRegular, TooLarge):
        return None
