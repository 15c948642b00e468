"""What a right configuration means, key by key, and what it means where a key is left out."""

from __future__ import annotations

import datetime
import ipaddress
from datetime import time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from config.config_files import ECHO, SCHEDULE, SECRET, TWO_PLUGINS, endpoint, lines, load_text
from ductile.config.handshakes import HANDSHAKES
from ductile.config.model import (
    Address,
    BreakerRule,
    Endpoint,
    Every,
    Handshake,
    Piece,
    PieceKind,
    PluginConfig,
    RequestPlace,
    Retry,
    Route,
    Schedule,
    Scheme,
    Service,
    Unit,
    Webhooks,
    Window,
)

UTC = datetime.UTC


def config_of(directory: Path, text: str):
    loaded = load_text(directory, text)
    assert lines(loaded) == []
    return loaded.config


def schedules_of(directory: Path, text: str) -> tuple[Schedule, ...]:
    return config_of(directory, SCHEDULE + text).plugins["echo"].schedules


def test_what_a_file_does_not_say_has_its_default(tmp_path):
    config = config_of(tmp_path, "plugins: {}\n")
    assert config.service == Service(
        name="ductile", tick_interval=60, log_level="info", log="stdout", log_format="auto", dedupe_ttl=86400,
        job_log_retention=2592000, max_hops=20, max_queue_depth=10000, shutdown_grace=30, env_file=None,
    )
    assert (config.state_path, config.workspace_path) == (tmp_path / "data/state.db", tmp_path / "data/ws")
    assert (config.plugins_dirs, config.pipelines_dir) == ((tmp_path / "plugins",), tmp_path / "pipelines")
    assert (config.workspace_ttl, config.plugins, config.webhooks, config.routes) == (86400, {}, None, ())


@pytest.mark.parametrize("text", ["plugins: {echo: {}}\n", "plugins:\n  echo:\n", ECHO + "schedule:\n    env: []\n"])
def test_a_plugin_without_keys_has_every_default(tmp_path, text):
    assert config_of(tmp_path, text).plugins["echo"] == PluginConfig(
        name="echo", enabled=True, uses="echo", schedules=(), config={}, env=(),
        retry=Retry(max_attempts=4, backoff_base=30, backoff_max=3600),
        timeouts={"poll": 60, "handle": 120, "health": 10, "init": 30},
        breaker=BreakerRule(threshold=3, reset_after=1800), max_outstanding_polls=1,
    )


def test_every_key_of_a_plugin_is_read(tmp_path):
    text = ECHO + """enabled: false
    uses: other
    config: {a: 1, b: [x, null], c: {d: true}}
    env: [LANG, _X1]
    retry: {max_attempts: 100, backoff_base: 0s, backoff_max: 2h}
    timeouts: {poll: 5m, sync: 1h}
    circuit_breaker: {threshold: 5, reset_after: 1d}
    max_outstanding_polls: 2
"""
    plugin = config_of(tmp_path, text).plugins["echo"]
    assert plugin == PluginConfig(
        name="echo", enabled=False, uses="other", config={"a": 1, "b": ["x", None], "c": {"d": True}},
        env=("LANG", "_X1"), retry=Retry(max_attempts=100, backoff_base=0, backoff_max=7200),
        timeouts={"poll": 300, "handle": 120, "health": 10, "init": 30, "sync": 3600},
        breaker=BreakerRule(threshold=5, reset_after=86400), max_outstanding_polls=2,
    )
    assert [plugin.timeout(command) for command in ("poll", "sync", "other")] == [300, 3600, 120]


def test_relative_paths_start_from_the_files_directory_and_absolute_ones_stay(tmp_path):
    config = config_of(
        tmp_path, "state: {path: db/s.db}\nworkspace: {path: /srv/ws, ttl: 2h}\nplugins_dir: [p, /srv/p]\n"
        "pipelines_dir: ../pipes\nservice: {log: log/d.log}\n",
    )
    assert (config.state_path, config.workspace_path) == (tmp_path / "db/s.db", Path("/srv/ws"))
    assert config.plugins_dirs == (tmp_path / "p", Path("/srv/p"))
    assert config.pipelines_dir == tmp_path / "../pipes"
    assert (config.service.log, config.workspace_ttl) == (tmp_path / "log/d.log", 7200)


@pytest.mark.parametrize("word", ["stdout", "syslog"])
def test_the_log_can_be_a_word(tmp_path, word):
    assert config_of(tmp_path, f"service: {{log: {word}}}\n").service.log == word


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("90s", Every(count=90, unit=Unit.SECONDS)), ("5m", Every(count=300, unit=Unit.SECONDS)),
        ("15m", Every(count=900, unit=Unit.SECONDS)), ("30m", Every(count=1800, unit=Unit.SECONDS)),
        ("hourly", Every(count=3600, unit=Unit.SECONDS)), ("2h", Every(count=7200, unit=Unit.SECONDS)),
        ("6h", Every(count=21600, unit=Unit.SECONDS)), ("daily", Every(count=1, unit=Unit.DAYS)),
        ("1d", Every(count=1, unit=Unit.DAYS)), ("weekly", Every(count=1, unit=Unit.WEEKS)),
        ("1w", Every(count=1, unit=Unit.WEEKS)), ("monthly", Every(count=1, unit=Unit.MONTHS)),
    ],
)
def test_each_interval_works(tmp_path, text, every):
    expected = Schedule(id="default", command="poll", every=every, jitter=0, zone=UTC, zone_name=None)
    assert schedules_of(tmp_path, f"every: {text}\n") == (expected,)


@pytest.mark.parametrize(
    ("text", "at", "day"),
    [
        ("{every: daily, at: 07:30}", (time(7, 30),), ()), ("{every: 1d, at: '00:00'}", (time(0, 0),), ()),
        ("{every: daily, at: [19:30, 07:30]}", (time(7, 30), time(19, 30)), ()),
        ("{every: weekly, at: 23:59, day: mon}", (time(23, 59),), (0,)),
        ("{every: 1w, at: 07:30, day: sun}", (time(7, 30),), (6,)), ("{every: weekly, at: 07:30}", (time(7, 30),), ()),
        ("{every: monthly, at: 07:30, day: 31}", (time(7, 30),), (31,)),
    ],
)
def test_a_calendar_interval_takes_a_time_of_day_and_a_day(tmp_path, text, at, day):
    [schedule] = config_of(tmp_path, ECHO + f"schedule: {text}\n").plugins["echo"].schedules
    assert (schedule.at, schedule.day) == (at, day)


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("{start: 06:00, end: 22:00}", Window(start=time(6), end=time(22))),
        ("{start: 22:00, end: 06:00}", Window(start=time(22), end=time(6))),
        ("{start: 18:30, end: 24:00}", Window(start=time(18, 30), end=time(0))),
    ],
)
def test_a_window_may_cross_or_end_at_midnight(tmp_path, text, window):
    [schedule] = schedules_of(tmp_path, f"every: 5m\n      preferred_window: {text}\n")
    assert schedule.window == window


def test_a_list_of_schedules_keeps_its_order_and_ids(tmp_path):
    schedules = schedules_of(
        tmp_path, "- {id: b, every: 5m, jitter: 5m}\n      - {id: a, every: daily, command: sync, timezone: UTC}\n"
        "      - {id: c, every: 1h, timezone: Australia/Sydney}\n",
    )
    assert [(each.id, each.command, each.jitter) for each in schedules] == [
        ("b", "poll", 300), ("a", "sync", 0), ("c", "poll", 0),
    ]
    assert [(each.zone, each.zone_name) for each in schedules] == [
        (UTC, None), (UTC, "UTC"), (ZoneInfo("Australia/Sydney"), "Australia/Sydney"),
    ]


def test_every_key_of_an_endpoint_is_read(tmp_path):
    text = endpoint(signature_format="base64", dedupe_header="X-Id", max_body_size="64MB", plugin=None, event="a.b")
    webhooks = config_of(tmp_path, text).webhooks
    assert webhooks.listen == (Address(host="127.0.0.1", port=8081),)
    assert webhooks.endpoints == (
        Endpoint(
            path="/a", plugin=None, event="a.b", keys=(SECRET.encode(),),
            scheme=Scheme(headers=("X-Sig",), format="base64", is_legacy=True),
            dedupe=(RequestPlace(kind="header", name="X-Id"),), max_body_size=64 * 1024**2,
        ),
    )


def test_every_key_of_a_signature_is_read(tmp_path):
    text = endpoint(
        signature_header="[X-A, X-B]", signed='"{url}{header:X-Time}#{body}"', url="https://x.example/a",
        signature_prefix='"v1="', signature_separator="semicolon", signature_format="base64url", secret_encoding="hex",
        secret="${HEX}", success_status="204", dedupe="[X-Id, header:signature, 'json:a.b[].c', form:d, signature]")
    loaded = load_text(tmp_path, text, {"HEX": SECRET.encode().hex()})
    assert lines(loaded) == []
    [read] = loaded.config.webhooks.endpoints
    assert (read.keys, read.success_status, read.answers_empty) == ((SECRET.encode(),), 204, True)
    assert read.scheme == Scheme(
        headers=("X-A", "X-B"), prefix="v1=", separator=";", format="base64url", signed=(
            Piece(kind=PieceKind.TEXT, text="https://x.example/a"), Piece(kind=PieceKind.HEADER, text="X-Time"),
            Piece(kind=PieceKind.TEXT, text="#"), Piece(kind=PieceKind.BODY)))
    assert list(map(str, read.dedupe)) == ["header:X-Id", "header:signature", "json:a.b[].c", "form:d", "signature"]


def test_a_preset_fills_in_what_is_not_said_otherwise(tmp_path):
    text = endpoint(signature_header=None, preset="linear")
    [read] = config_of(tmp_path, text).webhooks.endpoints
    assert (read.scheme, read.success_status, read.dedupe) == (
        Scheme(headers=("Linear-Signature",)), 200, (RequestPlace(kind="header", name="Linear-Delivery"),))
    [other] = config_of(tmp_path, text + "      signature_header: X-Other\n      dedupe: []\n"
                                         "      success_status: 202\n").webhooks.endpoints
    assert (other.scheme.headers, other.success_status, other.dedupe) == (("X-Other",), 202, ())


def test_every_key_of_a_handshake_is_read(tmp_path):
    text = endpoint(verify_token="${SECRET}", handshake="{method: POST, when: 'json:a.b = c', take: 'header:X-C',"
                                                         " answer: json, name: n, mac: hex, mac_name: m,"
                                                         " mac_prefix: p=, token: 'query:t', signed: true}")
    [read] = config_of(tmp_path, text).webhooks.endpoints
    assert (read.verify_token, read.handshake) == (SECRET.encode(), Handshake(
        method="POST", when=RequestPlace(kind="json", name="a.b"), value="c",
        take=RequestPlace(kind="header", name="X-C"), answer="json", name="n", mac="hex", mac_name="m",
        mac_prefix="p=", token=RequestPlace(kind="query", name="t"), signed=True))


@pytest.mark.parametrize(("keys", "name"), [
    ({"preset": "slack"}, "slack"), ({"preset": "slack", "handshake": "none"}, None), ({"preset": "github"}, None),
    ({"preset": "github", "handshake": "dropbox"}, "dropbox"), ({"preset": "meta"}, None),
    ({"preset": "meta", "verify_token": "${SECRET}"}, "meta"),
])
def test_a_preset_brings_its_handshake_unless_it_lacks_its_token(tmp_path, keys, name):
    [read] = config_of(tmp_path, endpoint(signature_header=None, **keys)).webhooks.endpoints
    assert read.handshake == (None if name is None else HANDSHAKES[name])


def test_an_endpoint_has_defaults(tmp_path):
    [read] = config_of(tmp_path, endpoint(secret="['${SECRET}', '${SECRET}']")).webhooks.endpoints
    assert (read.plugin, read.event, read.keys) == ("echo", None, (SECRET.encode(), SECRET.encode()))
    assert (read.scheme.format, read.dedupe, read.max_body_size, read.success_status) == ("hex", (), 1024**2, 202)


@pytest.mark.parametrize(
    ("signature_format", "header"),
    [("stripe", "Stripe-Signature"), ("slack", "X-Slack-Signature"), ("standard", "webhook-signature")],
)
def test_a_format_with_a_header_of_its_own_needs_none(tmp_path, signature_format, header):
    text = endpoint(signature_header=None, signature_format=signature_format)
    assert config_of(tmp_path, text).webhooks.endpoints[0].scheme.headers == (header,)


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [
        ("0.0.0.0:80", "0.0.0.0", 80), ("'[::1]:8081'", "::1", 8081), ("'[::]:65535'", "::", 65535),
        ("localhost:8081", "localhost", 8081), ("hooks.example.org:80", "hooks.example.org", 80),
    ],
)
def test_the_listener_takes_an_address_of_either_family(tmp_path, listen, host, port):
    webhooks = config_of(tmp_path, f"webhooks: {{listen: {listen}}}\n").webhooks
    assert (webhooks.listen, webhooks.endpoints) == ((Address(host=host, port=port),), ())


def test_every_key_of_a_listener_is_read(tmp_path):
    text = ("webhooks: {listen: ['[::]:80', 'unix:run/a.sock', 'unix:/b'], health_listen: 127.0.0.1:9, metrics: true,"
            " connections: 7, trusted_proxies: [192.0.2.7, 10.0.0.0/8, '::1']}\n")
    assert config_of(tmp_path, text).webhooks == Webhooks(
        listen=(Address(host="::", port=80), Address(path=tmp_path / "run/a.sock"), Address(path=Path("/b"))),
        health_listen=(Address(host="127.0.0.1", port=9),), has_metrics=True, connections=7,
        trusted_proxies=tuple(map(ipaddress.ip_network, ("192.0.2.7", "10.0.0.0/8", "::1"))))


def test_without_an_address_there_is_a_warning(tmp_path):
    loaded = load_text(tmp_path, endpoint().replace("  listen: 127.0.0.1:8081\n", ""))
    assert (lines(loaded), loaded.config.webhooks.listen) == ([], ())
    assert loaded.warnings == (
        f"{loaded.path}:4:5: webhooks.endpoints: nothing is served, as webhooks.listen is absent, unless systemd passes"
        " a socket",
    )
    assert config_of(tmp_path, "webhooks: {}\n").webhooks is None


def test_routes_keep_their_order(tmp_path):
    text = TWO_PLUGINS + "routes:\n- {from: echo, event_type: ductile, to: echo}\n" \
        "- {to: echo, event_type: on, from: echo}\n"
    assert config_of(tmp_path, text).routes == (
        Route(source="echo", event_type="ductile", target="echo"),
        Route(source="echo", event_type="on", target="echo"),
    )
