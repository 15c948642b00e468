"""What is said about a wrong entry of `plugins`."""

from __future__ import annotations

import pytest

from config.config_files import ECHO, lines, load_text

NAME = "expected a name of 1 to 64 letters, digits, '-' and '_', the first a letter or digit"
MALFORMED = [
    ("plugins_dir: []\n", ["1:14: plugins_dir: expected at least one directory, got an empty list"]),
    (
        "plugins_dir: [a, 5, '']\n",
        [
            "1:18: plugins_dir[1]: expected a string, got 5",
            "1:21: plugins_dir[2]: expected a string, got an empty string",
        ],
    ),
    ("plugins_dir: {a: b}\n", ["1:14: plugins_dir: expected a string, got a mapping"]),
    ("plugins: [echo]\n", ["1:10: plugins: expected a mapping, got a list"]),
    (
        "plugins:\n  bad name: {}\n",
        [
            f"2:3: plugins.bad name: {NAME}"
            ", got 'bad name'",
        ],
    ),
    (
        "plugins:\n  -x: {}\n",
        [
            f"2:3: plugins.-x: {NAME}, got '-x'",
        ],
    ),
    (
        "plugins:\n  " + "a" * 65 + ": {}\n",
        [
            "2:3: plugins.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: "
            f"{NAME}, got '" + "a" * 65 + "'",
        ],
    ),
    ("plugins: {echo: off}\n", ["1:17: plugins.echo: expected a mapping, got 'off'"]),
    (ECHO + "enabled: yes\n", ["3:14: plugins.echo.enabled: expected true or false, got 'yes'"]),
    (ECHO + "enabld: true\n", ["3:5: plugins.echo.enabld: unknown key (did you mean 'enabled'?)"]),
    (
        ECHO + "uses: ../echo\n",
        [
            f"3:11: plugins.echo.uses: {NAME}"
            ", got '../echo'",
        ],
    ),
    (ECHO + "uses: 5\n", [f"3:11: plugins.echo.uses: {NAME}, got 5"]),
    (ECHO + "config: [a]\n", ["3:13: plugins.echo.config: expected a mapping, got a list"]),
    (ECHO + "env: LANG\n", ["3:10: plugins.echo.env: expected a list, got 'LANG'"]),
    (
        ECHO + "env: [LANG, A-B, 5]\n",
        [
            "3:17: plugins.echo.env[1]: expected the name of an environment variable, got 'A-B'",
            "3:22: plugins.echo.env[2]: expected a string, got 5",
        ],
    ),
    (
        ECHO + "env: [5, LANG, A-B]\n",
        [
            "3:11: plugins.echo.env[0]: expected a string, got 5",
            "3:20: plugins.echo.env[2]: expected the name of an environment variable, got 'A-B'",
        ],
    ),
    (
        ECHO + "retry: {max_attempts: 0}\n",
        [
            "3:27: plugins.echo.retry.max_attempts: expected a number from 1 to 100, got 0",
        ],
    ),
    (
        ECHO + "retry: {max_attempts: 101}\n",
        [
            "3:27: plugins.echo.retry.max_attempts: expected a number from 1 to 100, got 101",
        ],
    ),
    (
        ECHO + "retry: {max_atempts: 3}\n",
        [
            "3:13: plugins.echo.retry.max_atempts: unknown key (did you mean 'max_attempts'?)",
        ],
    ),
    (
        ECHO + "retry: {backoff_base: 30}\n",
        [
            "3:27: plugins.echo.retry.backoff_base: expected a duration such as 30s, got 30",
        ],
    ),
    (
        ECHO + "timeouts: {poll: 0s}\n",
        [
            "3:22: plugins.echo.timeouts.poll: expected a duration from 1s to 36500d, got '0s'",
        ],
    ),
    (
        ECHO + "timeouts: {handel: 1s, poll: 5}\n",
        [
            "3:34: plugins.echo.timeouts.poll: expected a duration such as 30s, got 5",
        ],
    ),
    (
        ECHO + "timeouts: {'a b': 1s}\n",
        [
            "3:16: plugins.echo.timeouts.a b: "
            f"{NAME}, got 'a b'",
        ],
    ),
    (
        ECHO + "timeouts: {'a b': soon}\n",
        [
            "3:16: plugins.echo.timeouts.a b: "
            f"{NAME}, got 'a b'",
            "3:23: plugins.echo.timeouts.a b: expected a duration such as 30s, got 'soon'",
        ],
    ),
    (ECHO + "timeouts: 60s\n", ["3:15: plugins.echo.timeouts: expected a mapping, got '60s'"]),
    (
        ECHO + "circuit_breaker: {threshold: 0}\n",
        [
            "3:34: plugins.echo.circuit_breaker.threshold: expected a number from 1 to 1000, got 0",
        ],
    ),
    (
        ECHO + "circuit_breaker: {reset: 30m}\n",
        [
            "3:23: plugins.echo.circuit_breaker.reset: unknown key (did you mean 'reset_after'?)",
        ],
    ),
    (
        ECHO + "max_outstanding_polls: 0\n",
        [
            "3:28: plugins.echo.max_outstanding_polls: expected a number from 1 to 1000, got 0",
        ],
    ),
]


@pytest.mark.parametrize(("text", "expected"), MALFORMED)
def test_each_wrong_value_of_a_plugin_is_named_at_its_place(tmp_path, text, expected):
    assert lines(load_text(tmp_path, text)) == expected
