"""The configuration as frozen values; every duration is in seconds, every size in bytes."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time, tzinfo
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from ductile import units
from ductile.validation import Path as Place

# Seconds. A command of any other name has as long as `handle`.
DEFAULT_TIMEOUTS = {"poll": 60, "handle": 120, "health": 10, "init": 30}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The section `service`. `log` is `stdout`, `syslog` or a file; `log_format` is `auto`, `json` or `text`."""

    name: str = "ductile"
    tick_interval: int = units.MINUTE
    log_level: str = "info"
    log: str | Path = "stdout"
    log_format: str = "auto"
    dedupe_ttl: int = 24 * units.HOUR
    job_log_retention: int = 30 * units.DAY
    max_hops: int = 20
    max_queue_depth: int = 10_000
    shutdown_grace: int = 30
    env_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often an attempt is repeated, and the bounds of the wait before it."""

    max_attempts: int = 4
    backoff_base: int = 30
    backoff_max: int = units.HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRule:
    """After how many dead jobs in a row a circuit breaker opens, and when it lets a probe through."""

    threshold: int = 3
    reset_after: int = 30 * units.MINUTE


class Unit(enum.Enum):
    """What an interval is counted in; seconds are elapsed time, the others steps of the calendar."""

    SECONDS = "s"
    DAYS = "d"
    WEEKS = "w"
    MONTHS = "month"


# A month counts as its shortest case.
_NOMINAL_SECONDS = {
    Unit.SECONDS: units.SECOND,
    Unit.DAYS: units.DAY,
    Unit.WEEKS: units.WEEK,
    Unit.MONTHS: 28 * units.DAY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Every:
    """An interval: `count` times `unit`."""

    count: int
    unit: Unit

    @property
    def seconds(self) -> int:
        """The interval's nominal length in seconds, for comparisons; a month has 28 days."""
        return self.count * _NOMINAL_SECONDS[self.unit]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The wall times `[start, end)` of each day; across midnight where `end` is not later than `start`.

    So an `end` of 00:00 is the midnight that ends the day.
    """

    start: time
    end: time


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One schedule of a plugin. `jitter` is in seconds.

    `at` are the grid's times of day, for calendar intervals only, in their order. `day` goes with `at`: weekdays from
    0, Monday, to 6 for weeks, in their order; a day of the month from 1 to 31 for months. `zone_name` is the zone as
    the operator wrote it, None where the system's is meant; `zone` has its rules as they were when they were read.
    `payload` is that of the job's event, None where the job has no event. `alert_after` is after how many seconds
    without a success the schedule is overdue, None for never.
    """

    id: str
    command: str = "poll"
    every: Every
    at: tuple[time, ...] = ()
    day: tuple[int, ...] = ()
    jitter: int = 0
    window: Window | None = None
    zone: tzinfo = field(compare=False)
    zone_name: str | None = None
    payload: Mapping[str, Any] | None = field(default=None, repr=False)
    alert_after: int | None = None

    def rule(self) -> str:
        """Return the text of what the grid depends on: where it changes, a new grid begins."""
        parts = [f"every {self.every.count} {self.every.unit.value}"]
        if self.at:
            parts.append(f"at {','.join(at.isoformat() for at in self.at)}")
        if self.day:
            parts.append(f"day {','.join(map(str, self.day))}")
        if self.zone_name is not None:
            parts.append(f"in {self.zone_name}")
        return " ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginConfig:
    """One entry of `plugins`.

    `uses` is the manifest's name; `config` is what the plugin is given, secrets and all, so it stays out of the repr.
    `announces_success`: each success of a job is an event.
    """

    name: str
    enabled: bool = True
    uses: str
    schedules: tuple[Schedule, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    env: tuple[str, ...] = ()
    retry: Retry = Retry()
    timeouts: Mapping[str, int] = field(default_factory=lambda: dict(DEFAULT_TIMEOUTS))
    breaker: BreakerRule = BreakerRule()
    max_outstanding_polls: int = 1
    announces_success: bool = False

    def timeout(self, command: str) -> int:
        """Return the seconds that one attempt of `command` may take."""
        return self.timeouts.get(command, self.timeouts["handle"])


class PieceKind(enum.Enum):
    """What is at a place of the text that a sender signs."""

    TEXT = "text"       # literal text
    BODY = "body"
    HEADER = "header"   # the value of a header
    PART = "part"       # the rest of an item of the signature header, or with `#1` its first item


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of the signed text. `text` is the literal text, the header's name or the beginning of the item."""

    kind: PieceKind
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How a sender signs with HMAC-SHA256.

    `headers` name the headers with signatures, any of which may be there. `separator` is between the items of such a
    header; None if the whole header is one. An item that begins with `prefix` is a signature in `format`: `hex`,
    `base64` or `base64url`. `is_legacy` is set for a format that was configured by its name alone; those keep what
    they accept.
    """

    headers: tuple[str, ...]
    signed: tuple[Piece, ...] = (Piece(kind=PieceKind.BODY),)
    prefix: str = ""
    separator: str | None = None
    format: str = "hex"
    is_legacy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPlace:
    """Where a value is in a request. `kind` is `header`, `query`, `json` or `form`; `signature` has no name."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """How a sender that wants proof that the address is yours asks for it, and what it is answered.

    A request of `method` is one if `when` is there, with `value` where that is set, and `take` is there, the place of
    the challenge. With `token` that place must have the endpoint's verify token; with `signed` the request is verified
    first. `answer` is `text`, `json` (the challenge under `name`), `header` (the same one) or `empty`; `mac` is `hex`
    or `base64` for the MAC of the challenge, under `mac_name` behind `mac_prefix`.
    """

    method: str
    when: RequestPlace | None = None
    value: str | None = None
    take: RequestPlace | None = None
    answer: str = "text"
    name: str = ""
    mac: str | None = None
    mac_name: str = ""
    mac_prefix: str = ""
    token: RequestPlace | None = None
    signed: bool = False
    logs_challenge: bool = False    # a person has to copy it


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A path for webhooks, which become jobs for `handle` of a plugin, or an `event` for the router.

    `keys` are the decoded secrets, any of which verifies; they and the `verify_token` never belong in a message.
    `dedupe` lists places, of which the first that is present identifies a delivery. `success_status` is 200, 202 or
    204, without a body where `answers_empty`; `refusal_status` answers a wrong signature.
    """

    path: str
    plugin: str | None
    event: str | None
    keys: tuple[bytes, ...] = field(repr=False)
    scheme: Scheme
    preset: str | None = None
    dedupe: tuple[RequestPlace, ...] = ()
    handshake: Handshake | None = None
    verify_token: bytes | None = field(default=None, repr=False)
    success_status: int = 202
    answers_empty: bool = False
    refusal_status: int = 403
    max_body_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen: `host` (an address without brackets or a name) and `port`, or the `path` of a Unix socket."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhooks:
    """Where to listen, for webhooks and for `/healthz`, and what is served there.

    Without `listen` the listener has the sockets that systemd passed. At most `connections` are served at once.
    `trusted_proxies` are believed which client they forward.
    """

    listen: tuple[Address, ...] = ()
    health_listen: tuple[Address, ...] = ()
    has_metrics: bool = False
    connections: int = 64
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """An event of type `event_type` from the plugin `source` becomes a job of the plugin `target`."""

    source: str
    event_type: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedCommand:
    """A place in the file that asks a plugin for a command."""

    place: Place
    plugin: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedEvent:
    """A place in the file that hands an event to the pipelines which take it."""

    place: Place
    event: str


Asked = AskedCommand | AskedEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that the configuration file says. `webhooks` is None without that section.

    `plugins_places` are the places in the file of `plugins_dirs`, one for each. `asked` is what the file
    relies on and cannot tell itself; entries that are wrong in another way, and so left out elsewhere, ask too.
    """

    service: Service
    state_path: Path
    workspace_path: Path
    workspace_ttl: int
    plugins_dirs: tuple[Path, ...]
    plugins_places: tuple[Place, ...] = field(default=(), compare=False)
    pipelines_dir: Path
    plugins: Mapping[str, PluginConfig]
    webhooks: Webhooks | None
    routes: tuple[Route, ...]
    asked: tuple[Asked, ...] = field(default=(), compare=False)


# From the configuration's own directory.
STATE_PATH = "./data/state.db"
WORKSPACE_PATH = "./data/ws"


def detached_log(database: Path) -> Path:
    """Return the log of a detached daemon on a machine without a syslog."""
    return database.with_name("ductiled.log")


def run_locks(database: Path) -> Path:
    """Return the directory of run locks for a database."""
    return database.with_name("running")
