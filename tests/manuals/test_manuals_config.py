"""The manual of the configuration has every key that the program reads, its default and its bounds, and no other."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from ductile import units
from ductile.config.handshakes import HANDSHAKES
from ductile.config.load import Loaded, load
from ductile.config.model import DEFAULT_TIMEOUTS, Config, Endpoint, Handshake
from ductile.config.read import read_config
from ductile.webhook.http_head import Head
from ductile.webhook.request import SECRET_HEADERS, http_of
from support.manuals import Entry, parts, section
from support.recording import Recorder

ROOT = Path(__file__).resolve().parents[2]
PAGE = "ductile.yaml.5"
KEYS = parts(PAGE, "KEYS")
TOP = "The top level"
SECRET = {"SECRET": "correct horse battery staple"}
ENDPOINT = {"path": "/a", "plugin": "NAME", "secret": "${SECRET}", "signature_header": "X-Sig"}
# A configuration in which every section stands, by the headings of the manual.
SECTIONS: dict[str, tuple[str | int, ...]] = {
    TOP: (), "service": ("service",), "state": ("state",), "workspace": ("workspace",),
    "plugins.NAME": ("plugins", "NAME"), "plugins.NAME.schedule": ("plugins", "NAME", "schedule"),
    "plugins.NAME.schedule.preferred_window": ("plugins", "NAME", "schedule", "preferred_window"),
    "plugins.NAME.retry": ("plugins", "NAME", "retry"), "plugins.NAME.timeouts": ("plugins", "NAME", "timeouts"),
    "plugins.NAME.circuit_breaker": ("plugins", "NAME", "circuit_breaker"), "webhooks": ("webhooks",),
    "webhooks.endpoints": ("webhooks", "endpoints", 0), "routes": ("routes", 0),
}
# What else has to be there for a value at its bound to be good.
BESIDE = {("service", "dedupe_ttl"): {"job_log_retention": "36500d"},
          ("service", "job_log_retention"): {"dedupe_ttl": "0s"}}
DEFAULT = re.compile(r"Default: \\fB(.+?)\\fR")
BOUNDS = re.compile(r"from \\fB(.+?)\\fR to \\fB(.+?)\\fR")
NUMBER = re.compile(r"(\d+)(\w*)")


def whole() -> dict[str, Any]:
    return {
        "service": {}, "state": {}, "workspace": {},
        "plugins": {"NAME": {"schedule": {"every": "daily", "preferred_window": {"start": "06:00", "end": "22:00"}},
                             "retry": {}, "timeouts": {}, "circuit_breaker": {}}},
        "webhooks": {"listen": "127.0.0.1:8081", "endpoints": [dict(ENDPOINT)]},
        "routes": [{"from": "NAME", "event_type": "x", "to": "NAME"}],
    }


def at(document: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        document = document[part]
    return document


def loaded(directory: Path, document: dict[str, Any]) -> Loaded:
    """Return what the program makes of a document. JSON is YAML."""
    file = directory / "config.yaml"
    file.write_text(json.dumps(document))
    return load(file, {**SECRET, "TZ": "UTC"})


def entries(pattern: re.Pattern[str]) -> Iterator[Any]:
    """Yield heading, key and what a pattern finds, for each entry in which it finds something."""
    for part, found in KEYS.items():
        for entry in found.entries:
            match = pattern.search(entry.source)
            if match:
                yield pytest.param(part, entry.names[0], *match.groups(), id=f"{part}: {entry.names[0]}")


def value(text: str) -> Any:
    return {"true": True, "false": False}.get(text, int(text) if text.isdigit() else text)


def beyond(bound: str, step: int) -> Any:
    number, unit = NUMBER.fullmatch(bound).groups()
    return value(f"{int(number) + step}{unit}")


def test_every_key_that_is_read_is_explained_and_no_other() -> None:
    document = Recorder.of(whole())
    read_config(document, authored=document, base_of=lambda key: Path("/"), local_zone=UTC)
    known = {part: at(document, path).asked for part, path in SECTIONS.items()}
    known["plugins.NAME.timeouts"] = set(DEFAULT_TIMEOUTS)
    # Only read to say what to write instead.
    known["plugins.NAME.schedule"] -= {"cron"}
    assert {part: {entry.names[0] for entry in found.entries} for part, found in KEYS.items()} == known


@pytest.mark.parametrize(("part", "key", "text"), list(entries(DEFAULT)))
def test_a_default_is_what_the_absent_key_means(part: str, key: str, text: str, tmp_path: Path) -> None:
    document = whole()
    without = loaded(tmp_path, document).config
    at(document, SECTIONS[part])[key] = value(text)
    assert loaded(tmp_path, document).problems == ()
    assert loaded(tmp_path, document).config == without


def test_the_manual_tells_the_default_of_every_number_and_duration() -> None:
    told = {(part, key) for part, key, _ in (each.values for each in entries(DEFAULT))}
    bounded = {(part, key) for part, key, *_ in (each.values for each in entries(BOUNDS))}
    typed = {(part, entry.names[0]) for part, found in KEYS.items() for entry in found.entries
             if re.search(r": (duration|number|size)$", entry.tag)}
    assert typed - told == set()
    # No longer than the interval, which is another key's.
    assert typed - bounded == {("plugins.NAME.schedule", "jitter")}


@pytest.mark.parametrize(("part", "key", "least", "most"), list(entries(BOUNDS)))
def test_a_value_may_go_to_its_bounds_and_not_beyond(part: str, key: str, least: str, most: str,
                                                     tmp_path: Path) -> None:
    document = whole()
    path = SECTIONS[part]
    at(document, path).update(BESIDE.get((part, key), {}))
    for text, count in ((value(least), 0), (value(most), 0), (beyond(least, -1), 1), (beyond(most, 1), 1)):
        at(document, path)[key] = text
        found = loaded(tmp_path, document)
        assert [problem.path for problem in found.problems] == [(*path, key)] * count, text


@pytest.mark.parametrize("part", ["plugins.NAME.schedule.preferred_window", "plugins.NAME.schedule", "routes"])
def test_a_key_that_is_required_says_so(part: str, tmp_path: Path) -> None:
    required = {entry.names[0] for entry in KEYS[part].entries if entry.text.startswith("Required")}
    for key in at(whole(), SECTIONS[part]):
        document = whole()
        del at(document, SECTIONS[part])[key]
        missing = [str(problem) for problem in loaded(tmp_path, document).problems if key in problem.text]
        assert bool(missing) == (key in required), key


def entry(part: str, key: str) -> Entry:
    [found] = [each for each in KEYS[part].entries if each.names[0] == key]
    return found


def choices(directory: Path, part: str, key: str) -> set[str]:
    """Return the values that the program offers instead of one that nobody means."""
    document = whole()
    at(document, SECTIONS[part])[key] = "nonsense"
    [problem] = loaded(directory, document).problems
    return set(re.search("expected one of (.+), got", problem.text)[1].split(", "))


def test_every_log_level_is_named(tmp_path: Path) -> None:
    assert set(entry("service", "log_level").bold) - {"info"} == choices(tmp_path, "service", "log_level") - {"info"}


def test_every_signature_format_is_explained_with_the_header_that_it_has_by_default(tmp_path: Path) -> None:
    found = {each.names[0]: each for each in section(PAGE, "SIGNATURES").entries}
    assert set(found) == choices(tmp_path, "webhooks.endpoints", "signature_format")
    for name, explained in found.items():
        document = whole()
        at(document, SECTIONS["webhooks.endpoints"])["signature_format"] = name
        del at(document, SECTIONS["webhooks.endpoints"])["signature_header"]
        given = loaded(tmp_path, document)
        header = next(iter(given.config.webhooks.endpoints[0].scheme.headers), "")
        assert (not given.problems) == (" by default." in explained.text) == (header in explained.bold and header != "")


def test_every_handshake_and_every_key_of_one_is_explained() -> None:
    found = section(PAGE, "HANDSHAKES")
    assert set(HANDSHAKES) <= set(found.bold)
    keys = {each.name for each in fields(Handshake)} - {"value", "logs_challenge"}
    assert {each.names[0] for each in found.entries} == keys


@pytest.mark.parametrize("name", ["gitlab", "discord", "ed25519"])
def test_a_format_that_is_refused_by_name_is_named(name: str, tmp_path: Path) -> None:
    document = whole()
    at(document, SECTIONS["webhooks.endpoints"])["signature_format"] = name
    [problem] = loaded(tmp_path, document).problems
    assert problem.text.startswith("expected a scheme of HMAC-SHA256")
    assert name in section(PAGE, "SIGNATURES").bold


def test_every_weekday_and_every_named_interval_is_named(tmp_path: Path) -> None:
    def config(**schedule: Any) -> Config | None:
        document = whole()
        document["plugins"]["NAME"]["schedule"] = schedule
        found = loaded(tmp_path, document)
        return None if found.problems else found.config

    words = {*entry("plugins.NAME.schedule", "every").bold, *entry("plugins.NAME.schedule", "day").bold}
    days = {each for each in words if each.isalpha() and config(every="weekly", at="07:30", day=each)}
    intervals = {each for each in words if each.isalpha() and len(each) > 1 and config(every=each)}
    # Seven, and their five together.
    assert (len(days), intervals) == (8, {"hourly", "daily", "weekly", "monthly"})


@pytest.mark.parametrize(("part", "parse", "known"), [
    ("Durations", units.parse_duration, units._SECONDS), ("Sizes", units.parse_size, units._BYTES),
])
def test_every_unit_is_told_and_what_is_shown_of_it_is_right(part: str, parse, known) -> None:
    words = section(PAGE, "FORMAT", part).bold
    told = {word for word in words if word.isalpha()}
    assert told == set(known)
    assert all(parse(word) > 0 for word in words if word not in told)


def test_every_status_that_a_request_can_be_answered_with_is_explained() -> None:
    # What an endpoint is answered with unless its preset or `success_status` says otherwise.
    answered = {each.default for each in fields(Endpoint) if each.name in ("success_status", "refusal_status")}
    for file in (ROOT / "ductile" / "webhook").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "HTTPStatus":
                answered.add(HTTPStatus[node.attr].value)
    told = {int(each.names[0]) for each in section(PAGE, "REQUESTS AND ANSWERS").entries if each.tag.isdigit()}
    assert told == answered


def test_what_an_event_tells_of_its_request_is_explained() -> None:
    head = Head(method="POST", path="/a", query="", version="HTTP/1.1", headers=())
    [http] = [each for each in section(PAGE, "REQUESTS AND ANSWERS").entries if each.tag == "http"]
    hidden = set(http.bold) & SECRET_HEADERS
    assert len(hidden) > 3 and set(http.bold) - hidden == set(http_of(head, ("X-Sig",)))
    sent = Head(method="POST", path="/a", query="", version="HTTP/1.1",
                headers=tuple((name, "x") for name in http.bold))
    assert set(http.bold) - set(http_of(sent, ("X-Sig",))["headers"]) == hidden


def test_what_healthz_says_is_explained() -> None:
    sources = [file.read_text() for file in (ROOT / "ductile" / "webhook").glob("*.py")]
    documents = [[key.value for key in node.keys if isinstance(key, ast.Constant)]
                 for source in sources if "plugins_circuit_open" in source
                 for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Dict)]
    [keys] = [keys for keys in documents if "plugins_circuit_open" in keys]
    assert [each.tag for each in section(PAGE, "REQUESTS AND ANSWERS", "/healthz").entries] == keys


def test_every_metric_is_explained() -> None:
    source = (ROOT / "ductile" / "webhook" / "metrics.py").read_text()
    names = re.findall(r'_family\("(\w+)"', source)
    told = set(section(PAGE, "REQUESTS AND ANSWERS", "/metrics").bold)
    assert names and set(names) == told - {"metrics: true", "/healthz", "ductile_", "_total"}
