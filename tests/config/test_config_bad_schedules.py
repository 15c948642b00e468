"""What is said about a wrong schedule."""

from __future__ import annotations

import pytest

from config.config_files import ECHO, SCHEDULE, lines, load_text

NAME = "expected a name of 1 to 64 letters, digits, '-' and '_', the first a letter or digit"
DAY = "expected weekdays, or one or a list of mon, tue, wed, thu, fri, sat, sun"
MALFORMED = [
    (ECHO + "schedule: 5m\n",
     ["3:15: plugins.echo.schedule: expected a mapping, got '5m'; write schedule: {every: 5m}"]),
    (ECHO + "schedule: {}\n", ["3:15: plugins.echo.schedule: the key 'every' is missing"]),
    (SCHEDULE + "jitter: 1m\n", ["4:7: plugins.echo.schedule: the key 'every' is missing"]),
    (
        SCHEDULE + "every: 5\n",
        [
            "4:14: plugins.echo.schedule.every: expected an interval such as 5m, 6h, daily or monthly, got 5",
        ],
    ),
    (
        SCHEDULE + "every: often\n",
        [
            "4:14: plugins.echo.schedule.every: expected an interval such as 5m, 6h, daily or monthly, got 'often'",
        ],
    ),
    (SCHEDULE + "every: 1h\n      payload: often\n",
     ["5:16: plugins.echo.schedule.payload: expected a mapping, got 'often'"]),
    (SCHEDULE + "every: 1h\n      alert_after: 26\n",
     ["5:20: plugins.echo.schedule.alert_after: expected a duration such as 30s, got 26"]),
    (ECHO + "announce: [success, failure]\n",
     ["3:25: plugins.echo.announce[1]: expected one of success, got 'failure'"]),
    (ECHO + "announce: success\n", ["3:15: plugins.echo.announce: expected a list, got 'success'"]),
    (SCHEDULE + "every: 1h\n      payload: [1]\n",
     ["5:16: plugins.echo.schedule.payload: expected a mapping, got a list"]),
    (SCHEDULE + "every: 0s\n", ["4:14: plugins.echo.schedule.every: expected an interval from 1s to 366d, got '0s'"]),
    (
        SCHEDULE + "evry: 5m\n",
        [
            "4:7: plugins.echo.schedule: the key 'every' is missing",
            "4:7: plugins.echo.schedule.evry: unknown key (did you mean 'every'?)",
        ],
    ),
    (
        SCHEDULE + "every: 5m\n      at: '07:30'\n",
        [
            "5:11: plugins.echo.schedule.at: expected an interval such as daily, weekly or monthly beside 'at'"
            ", got elapsed time",
        ],
    ),
    (
        SCHEDULE + "every: daily\n      at: 7:30\n",
        [
            "5:11: plugins.echo.schedule.at: expected a time such as \"07:30\", got '7:30'",
        ],
    ),
    (
        SCHEDULE + "every: daily\n      at: '24:00'\n",
        [
            "5:11: plugins.echo.schedule.at: expected a time such as \"07:30\", got '24:00'",
        ],
    ),
    (
        SCHEDULE + "every: daily\n      at: '07:30'\n      day: mon\n",
        [
            "6:12: plugins.echo.schedule.day: expected weekly or monthly beside 'day', got another interval",
        ],
    ),
    (
        SCHEDULE + "every: weekly\n      at: '07:30'\n      day: someday\n",
        [
            f"6:12: plugins.echo.schedule.day: {DAY}, got 'someday'",
        ],
    ),
    (
        SCHEDULE + "every: weekly\n      at: '07:30'\n      day: 1\n",
        [
            f"6:12: plugins.echo.schedule.day: {DAY}, got 1",
        ],
    ),
    (SCHEDULE + "every: weekly\n      at: '07:30'\n      day: [mon, Monday]\n",
     ["6:12: plugins.echo.schedule.day: expected each once, got one that is repeated"]),
    (SCHEDULE + "every: weekly\n      at: '07:30'\n      day: []\n",
     ["6:12: plugins.echo.schedule.day: expected at least one, got an empty list"]),
    (SCHEDULE + "every: weekly\n      at: '07:30'\n      day: weekends\n",
     [f"6:12: plugins.echo.schedule.day: {DAY}, got 'weekends' (write [sat, sun])"]),
    (SCHEDULE + "every: daily\n      at: ['07:30', '7:45']\n",
     ["5:11: plugins.echo.schedule.at: expected a time such as \"07:30\", got '7:45'"]),
    (SCHEDULE + "every: daily\n      at: ['07:30', '08:00']\n      jitter: 31m\n",
     ["6:15: plugins.echo.schedule.jitter: expected no more than the time between two runs, got '31m'"]),
    (SCHEDULE + "every: weekly\n      at: '07:30'\n      day: [sun, mon]\n      jitter: 25h\n",
     ["7:15: plugins.echo.schedule.jitter: expected no more than the time between two runs, got '25h'"]),
    (
        SCHEDULE + "every: monthly\n      at: '07:30'\n      day: 32\n",
        [
            "6:12: plugins.echo.schedule.day: expected a number from 1 to 31, got 32",
        ],
    ),
    (
        SCHEDULE + "every: monthly\n      at: '07:30'\n      day: mon\n",
        [
            "6:12: plugins.echo.schedule.day: expected a whole number, got 'mon'",
        ],
    ),
    (
        SCHEDULE + "every: weekly\n      day: mon\n",
        [
            "5:12: plugins.echo.schedule.day: expected 'at' beside 'day', got none",
        ],
    ),
    (
        SCHEDULE + "every: 5m\n      jitter: 6m\n",
        [
            "5:15: plugins.echo.schedule.jitter: expected no more than the interval in 'every', got '6m'",
        ],
    ),
    (
        SCHEDULE + "every: 5m\n      jitter: 30\n",
        [
            "5:15: plugins.echo.schedule.jitter: expected a duration such as 30s, got 30",
        ],
    ),
    (
        SCHEDULE + "every: 5m\n      timezone: Australia/Sidney\n",
        [
            "5:17: plugins.echo.schedule.timezone: expected a time zone such as Australia/Sydney"
            ", got 'Australia/Sidney' (did you mean 'Australia/Sydney'?)",
        ],
    ),
    (
        SCHEDULE + "every: 5m\n      timezone: ../etc/passwd\n",
        [
            "5:17: plugins.echo.schedule.timezone: expected a time zone such as Australia/Sydney"
            ", got '../etc/passwd'",
        ],
    ),
    (
        SCHEDULE + "every: 5m\n      command: health\n",
        [
            "5:16: plugins.echo.schedule.command: expected a command that can be scheduled, got 'health'",
        ],
    ),
    (
        SCHEDULE + "every: 5m\n      command: 'a b'\n",
        [
            "5:16: plugins.echo.schedule.command: "
            f"{NAME}, got 'a b'",
        ],
    ),
    (
        SCHEDULE + "every: 5m\n      preferred_window: 06:00-22:00\n",
        [
            "5:25: plugins.echo.schedule.preferred_window: expected a mapping, got '06:00-22:00'",
        ],
    ),
    (
        SCHEDULE + "every: 5m\n      preferred_window: {start: 06:00}\n",
        [
            "5:25: plugins.echo.schedule.preferred_window: the key 'end' is missing",
        ],
    ),
    (
        SCHEDULE + "every: 5m\n      preferred_window: {start: 06:00, end: 06:00}\n",
        [
            "5:45: plugins.echo.schedule.preferred_window.end: expected another time than 'start'"
            ", got the same (for the whole day leave the window out)",
        ],
    ),
    (
        SCHEDULE + "every: 5m\n      preferred_window: {start: 00:00, end: 24:00}\n",
        [
            "5:45: plugins.echo.schedule.preferred_window.end: expected another time than 'start'"
            ", got the same (for the whole day leave the window out)",
        ],
    ),
    (
        SCHEDULE + "every: 5m\n      preferred_window: {start: 6am, end: 25:00, to: 1}\n",
        [
            "5:33: plugins.echo.schedule.preferred_window.start: expected a time such as \"07:30\", got '6am'",
            "5:43: plugins.echo.schedule.preferred_window.end: expected a time such as \"07:30\", got '25:00'",
            "5:50: plugins.echo.schedule.preferred_window.to: unknown key",
        ],
    ),
    (SCHEDULE + "- every: 5m\n", ["4:9: plugins.echo.schedule[0]: the key 'id' is missing"]),
    (
        SCHEDULE + "- {id: a, every: 5m}\n      - {id: a, every: 1h}\n",
        [
            "5:14: plugins.echo.schedule[1].id: expected an id that no other schedule of the plugin has, got 'a'",
        ],
    ),
    (
        SCHEDULE + "- {id: a b, every: 5m}\n      - 5m\n      -\n",
        [
            "4:14: plugins.echo.schedule[0].id: "
            f"{NAME}, got 'a b'",
            "5:9: plugins.echo.schedule[1]: expected a mapping, got '5m'",
            "6:8: plugins.echo.schedule[2]: expected a mapping, got null",
        ],
    ),
    (
        SCHEDULE + "every: '${SECRET}'\n      timezone: '${SECRET}'\n",
        [
            "4:14: plugins.echo.schedule.every: expected an interval such as 5m, 6h, daily or monthly"
            ", got the value of '${SECRET}'",
            "5:17: plugins.echo.schedule.timezone: expected a time zone such as Australia/Sydney"
            ", got the value of '${SECRET}'",
        ],
    ),
]


@pytest.mark.parametrize(("text", "expected"), MALFORMED)
def test_each_wrong_value_of_a_schedule_is_named_at_its_place(tmp_path, text, expected):
    assert lines(load_text(tmp_path, text)) == expected
