"""How the daemon is, as others may ask."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """`reasons` say why the daemon is degraded; none where all is well."""

    uptime_seconds: int
    reasons: tuple[str, ...]
    plugins_loaded: int
