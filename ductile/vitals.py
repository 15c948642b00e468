"""How the daemon is, as others may ask."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """`is_well` where the loop turns and the last write worked."""

    uptime_seconds: int
    is_well: bool
    plugins_loaded: int
