"""Variables reach values alone, and what they hold reaches no message."""

from __future__ import annotations

import pytest

from config.config_files import ECHO, ENVIRON, SECRET, endpoint, lines, load_text
from ductile.validation import Problem


def config_of_echo(loaded):
    return loaded.config.plugins["echo"].config


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "one"), ("x${A}y${A}", "xoney" + "one"), ("$A", "$A"), ("$", "$"), ("a$$b", "a$$b"),
        ("$${A}", "${A}"), ("$${A} ${A}", "${A} one"), ("$${not a name}", "${not a name}"), ("${B}", "two: {three: 3}"),
        ("${RECURSIVE}", "${A}"), ("${EMPTY}", ""),
    ],
)
def test_a_variable_is_replaced_once_inside_a_text(tmp_path, text, value):
    environ = {**ENVIRON, "A": "one", "B": "two: {three: 3}", "RECURSIVE": "${A}"}
    loaded = load_text(tmp_path, ECHO + f"config: {{a: ['{text}']}}\n", environ)
    assert (lines(loaded), config_of_echo(loaded)) == ([], {"a": [value]})


def test_a_value_never_becomes_a_number_or_a_boolean(tmp_path):
    loaded = load_text(tmp_path, "service: {max_hops: '${N}'}\n" + ECHO + "enabled: ${T}\n", {"N": "5", "T": "true"})
    assert lines(loaded) == [
        "1:21: service.max_hops: expected a whole number, got the value of '${N}'",
        "4:14: plugins.echo.enabled: expected true or false, got the value of '${T}'",
    ]


def test_keys_are_left_alone(tmp_path):
    loaded = load_text(tmp_path, ECHO + "config: {'${A}': '$${A}', '${NOT_SET}': 1}\n", {"A": "one"})
    assert (lines(loaded), config_of_echo(loaded)) == ([], {"${A}": "${A}", "${NOT_SET}": 1})


def test_a_variable_that_is_not_utf8_is_named(tmp_path):
    loaded = load_text(tmp_path, ECHO + "config: {a: '${A}'}\n", {"A": "caf\udce9"})
    assert lines(loaded) == ["3:17: plugins.echo.config.a: expected UTF-8 in the variable A"]


PLACES = [
    "service: '${SECRET}'", "service: {name: ['${SECRET}'], tick_interval: '${SECRET}', log_level: '${SECRET}'}",
    "service: {max_hops: '${SECRET}', dedupe_ttl: '1${SECRET}'}", "state: {path: {a: '${SECRET}'}}",
    "plugins: ['${SECRET}']", "plugins: {echo: '${SECRET}'}", "plugins_dir: [['${SECRET}']]",
    "webhooks: {listen: 'a${SECRET}:80'}", "webhooks: {listen: '127.0.0.1:${SECRET}'}", "routes: '${SECRET}'",
    "webhooks: {endpoints: ['${SECRET}']}", "routes: ['${SECRET}']",
    "routes: [{from: '${SECRET}', event_type: a, to: '${SECRET}'}]",
    *[ECHO + f"{key}: '${{SECRET}}'" for key in (
        "enabled", "uses", "config", "env", "retry", "timeouts", "circuit_breaker", "max_outstanding_polls", "schedule",
    )],
    *[ECHO + f"schedule: {{every: daily, at: '07:30', {key}: '${{SECRET}}'}}" for key in (
        "id", "command", "day", "jitter", "preferred_window", "timezone",
    )],
    ECHO + "schedule: {every: '${SECRET}', at: '${SECRET}', preferred_window: {start: '${SECRET}', end: '${SECRET}'}}",
    ECHO + "schedule: ['${SECRET}', {id: '${SECRET}', every: 1h}]", ECHO + "env: ['${SECRET}']",
    ECHO + "timeouts: {poll: '${SECRET}'}", ECHO + "retry: {backoff_base: '${SECRET}', max_attempts: '${SECRET}'}",
    *[endpoint(**{key: "'x ${SECRET}'"}) for key in (
        "path", "plugin", "secret", "signature_header", "signature_format", "dedupe_header", "max_body_size",
        "preset", "signed", "signature_separator", "secret_encoding", "url", "dedupe",
        "success_status",
    )],
    endpoint(signed="'x ${SECRET} {part:${SECRET}} {body}'"), endpoint(signature_prefix="' ${SECRET}'"),
    endpoint(path="'/${NEEDLE}'")
    + "    - {path: '/${NEEDLE}', event: a, secret: '${SECRET}', signature_format: slack}",
]


@pytest.mark.parametrize("text", PLACES)
def test_a_secret_in_the_wrong_place_is_in_no_message(tmp_path, text):
    loaded = load_text(tmp_path, text + "\n", {**ENVIRON, "NEEDLE": "correct/horse"})
    said = " ".join([*lines(loaded), *map(str, loaded.problems), *loaded.warnings])
    assert said and not [word for word in ("correct", "horse", "battery", "staple") if word in said]


def test_a_problem_found_elsewhere_shows_what_was_written(tmp_path):
    loaded = load_text(tmp_path, endpoint(plugin=None, event="'${SECRET}'"))
    problem = Problem(("webhooks", "endpoints", 0, "event"), f"expected an event that a pipeline takes, got {SECRET!r}")
    assert loaded.locate(problem) == (
        f"{loaded.path}:8:14: webhooks.endpoints[0].event: "
        "expected an event that a pipeline takes, got the value of '${SECRET}'"
    )


def test_a_short_secret_is_a_warning_that_names_the_endpoint(tmp_path):
    loaded = load_text(tmp_path, endpoint(secret="['${SECRET}', '${SHORT}']"), {**ENVIRON, "SHORT": "fifteen-bytes-x"})
    assert lines(loaded) == []
    assert loaded.warnings == (
        f"{loaded.path}:7:29: webhooks.endpoints[0].secret[1]: the secret of /a is shorter than 16 bytes",
    )


@pytest.mark.parametrize("secret", ["sixteen-bytes-xx", "ü" * 8])
def test_a_secret_of_sixteen_bytes_is_long_enough(tmp_path, secret):
    assert load_text(tmp_path, endpoint(), {"SECRET": secret}).warnings == ()


def test_secrets_are_not_in_the_text_of_an_endpoint(tmp_path):
    [read] = load_text(tmp_path, endpoint()).config.webhooks.endpoints
    assert SECRET.encode() in read.keys and SECRET not in repr(read)


def test_an_unset_variable_is_the_only_thing_said_about_its_value(tmp_path):
    text = "service: {tick_interval: '${TICK}', nmae: '${NAME}'}\n"
    text += ECHO + "schedule: {every: '${EVERY}', jitter: 2h}\n"
    assert lines(load_text(tmp_path, text)) == [
        "1:26: service.tick_interval: the variable TICK is not set",
        "1:37: service.nmae: unknown key (did you mean 'name'?)",
        "1:43: service.nmae: the variable NAME is not set",
        "4:23: plugins.echo.schedule.every: the variable EVERY is not set",
    ]


def test_unset_variables_can_be_kept(tmp_path):
    text = "service: {tick_interval: '${TICK}', max_hops: 0, env_file: ./missing.env}\n" + endpoint()
    text += "routes: [{from: echo, event_type: '${TYPE}', to: '${TO}'}]\n"
    loaded = load_text(tmp_path, text, {}, keep_unset=True)
    assert lines(loaded) == ["1:47: service.max_hops: expected a number from 1 to 1000, got 0"]
    assert loaded.config.webhooks.endpoints[0].keys == (b"${SECRET}",)
    assert loaded.config.routes[0].event_type == "${TYPE}"
    assert loaded.warnings == ()


@pytest.mark.parametrize(("value", "count"), [("abc", 0), ("abc\n", 1), ("abc ", 1), ("a b", 0), ("", 0)])
def test_a_value_that_ends_in_a_newline_or_blank_is_a_warning(tmp_path, value, count):
    loaded = load_text(tmp_path, ECHO + "config: {a: 'x${A}'}\n", {"A": value, "B": "unused\n", "TZ": "UTC"})
    assert loaded.warnings == (
        f"{loaded.path}:3:17: plugins.echo.config.a: the value of the variable A ends in a newline or blank, which is"
        " part of it",) * count
