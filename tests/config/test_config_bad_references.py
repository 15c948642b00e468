"""What is said about wrong routes, variables and YAML that Ductile does not take."""

from __future__ import annotations

import pytest

from config.config_files import ECHO, ROUTES, lines, load_text

MALFORMED = [
    (ROUTES + "{from: echo, event_type: a}\n", ["3:5: routes[0]: the key 'to' is missing"]),
    (
        ROUTES + "{from: ecko, event_type: a, to: off}\n",
        [
            "3:12: routes[0].from: expected a configured plugin, got 'ecko' (did you mean 'echo'?)",
            "3:37: routes[0].to: expected an enabled plugin, got 'off', which is disabled",
        ],
    ),
    (
        ROUTES + "{from: echo, event_type: a, to: echo}\n  - {to: echo, event_type: a, from: echo}\n",
        [
            "4:5: routes[1]: expected each route once, got a duplicate",
        ],
    ),
    (
        ROUTES + "{from: echo, event: a, to: echo}\n",
        [
            "3:5: routes[0]: the key 'event_type' is missing",
            "3:18: routes[0].event: unknown key (did you mean 'event_type'?)",
        ],
    ),
    (
        ROUTES + "{from: echo, event_type: ductile.job.dead, to: echo}\n",
        [
            "3:30: routes[0].event_type: expected a type that does not start with 'ductile.job.', as the core's "
            "own events"
            " do, got 'ductile.job.dead'",
        ],
    ),
    ("routes: {from: a}\n", ["1:9: routes: expected a list, got a mapping"]),
    ("routes: [a]\n", ["1:10: routes[0]: expected a mapping, got 'a'"]),
    (ROUTES + "{from: echo, event_type: on, to: 5}\n", ["3:38: routes[0].to: expected a string, got 5"]),
    (
        ECHO + "config: {a: '${MISSING}', b: ['${SECRET} ${MISSING}'], c: '${not-a-name}', d: '${'}\n",
        [
            "3:17: plugins.echo.config.a: the variable MISSING is not set",
            "3:35: plugins.echo.config.b[0]: the variable MISSING is not set",
            "3:63: plugins.echo.config.c: expected a variable such as ${NAME}, or $${ for a plain ${"
            ", got '${not-a-name}'",
            "3:83: plugins.echo.config.d: expected a variable such as ${NAME}, or $${ for a plain ${, got '${'",
        ],
    ),
    ("service: {name: a}\nstate: {}\nservice: {name: b}\n", ["3:1: service: repeated key, also at line 1, column 1"]),
    (ECHO + "config: !env {a: b}\n", ["3:13: plugins.echo.config: expected a value without a tag, got !env"]),
    ("1: a\n", ["1:1: 1: expected a string as key, got 1"]),
    ("plugins: '${SECRET}'\n", ["1:10: plugins: expected a mapping, got the value of '${SECRET}'"]),
    (
        "service: {tick_interval: '${SECRET}'}\n",
        [
            "1:26: service.tick_interval: expected a duration such as 30s, got the value of '${SECRET}'",
        ],
    ),
    (
        "service: {log_level: '${SECRET}', max_hops: '${SECRET}', name: '${EMPTY}'}\n",
        [
            "1:22: service.log_level: expected one of debug, info, warn, error, got the value of '${SECRET}'",
            "1:45: service.max_hops: expected a whole number, got the value of '${SECRET}'",
            "1:64: service.name: expected a string, got the value of '${EMPTY}'",
        ],
    ),
    (
        ROUTES + "{from: '${SECRET}', event_type: a, to: '${MISSING}'}\n",
        [
            "3:12: routes[0].from: expected a configured plugin, got the value of '${SECRET}'",
            "3:44: routes[0].to: the variable MISSING is not set",
        ],
    ),
    ("serv${SECRET}: {}\n", ["1:1: serv${SECRET}: unknown key"]),
]


@pytest.mark.parametrize(("text", "expected"), MALFORMED)
def test_each_wrong_reference_is_named_at_its_place(tmp_path, text, expected):
    assert lines(load_text(tmp_path, text)) == expected
