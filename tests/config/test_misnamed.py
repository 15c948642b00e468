"""What other programs write is answered with what to write here, and never with a wrong hint."""

from __future__ import annotations

import pytest

from config.config_files import ECHO, SCHEDULE, endpoint, lines, load_text
from ductile.config.model import Every, Unit


def told(tmp_path, text):
    """Return the only problem, without its place and key."""
    [line] = lines(load_text(tmp_path, text))
    return line.split(": ", 2)[2]


@pytest.mark.parametrize(("line", "instead"), [
    ("*/5 * * * *", "every: 5m"), ("* * * * *", "every: 1m"), ("17 * * * *", "every: hourly"),
    ("0 */6 * * *", "every: 6h"), ("30 7 * * *", 'every: daily, at: "07:30"'),
    ("30 7 * * 1", 'every: weekly, day: mon, at: "07:30"'), ("0 0 * * sun", 'every: weekly, day: sun, at: "00:00"'),
    ("0 9 15 * *", 'every: monthly, day: 15, at: "09:00"'), ("@daily", "every: daily"),
    ("0 9 * * 1-5", 'every: weekly, day: weekdays, at: "09:00"'),
    ("0 9 * * mon,3,fri", 'every: weekly, day: [mon, wed, fri], at: "09:00"'),
    ("30 7,19 * * *", 'every: daily, at: ["07:30", "19:30"]'),
    *[(line, "every, and at and day for a time") for line in
      ("*/7 * * * *", "0 9 * 1 *", "0 9 1 * 1", "0 9 * * 1-6", "0 9 * * 1,8", "0 25 * * *", "0 1,x * * *", "99 1 * * *",
       "@reboot", "5m", "0 0 0 * *")],
])
def test_a_line_of_cron_is_answered_with_its_equivalent(tmp_path, line, instead):
    expected = f"unknown key; a crontab line is no schedule here; write {instead}"
    assert told(tmp_path, SCHEDULE + f"cron: '{line}'\n") == expected


@pytest.mark.parametrize(("every", "hint"), [
    ("15min", " (write 15m)"), ("2 hours", " (write 2h)"), ("1 day", " (write 1d)"),
    ("weekdays", " (write every: weekly, day: weekdays, with at)"),
    ("weekends", " (write every: weekly, day: [sat, sun], with at)"),
    ("Monday", " (write every: weekly, day: mon)"), ("'7:30'", ' (write every: daily, at: "07:30")'),
    ("'0 9 * * *'", ' (a crontab line is no schedule here; write every: daily, at: "09:00")'),
    ("soon", ""), ("5 x", ""),
])
def test_an_interval_of_another_program_is_answered_with_ours(tmp_path, every, hint):
    found = told(tmp_path, SCHEDULE + f"every: {every}\n")
    assert found.endswith(f"got {every if every.startswith(chr(39)) else repr(every)}{hint}")


@pytest.mark.parametrize(("every", "interval"), [
    ("1h30m", Every(count=5400, unit=Unit.SECONDS)), ("1w1d", Every(count=8, unit=Unit.DAYS)),
    ("2w", Every(count=2, unit=Unit.WEEKS)), ("7d", Every(count=7, unit=Unit.DAYS)),
    ("24h", Every(count=86400, unit=Unit.SECONDS)),
])
def test_an_interval_of_several_units_is_elapsed_time_or_days(tmp_path, every, interval):
    [schedule] = load_text(tmp_path, SCHEDULE + f"every: {every}\n").config.plugins["echo"].schedules
    assert schedule.every == interval


def test_an_interval_cannot_be_both(tmp_path):
    assert told(tmp_path, SCHEDULE + "every: 1d12h\n") == (
        "expected either days and weeks, which follow the calendar, or hours, minutes and seconds, got '1d12h'")


@pytest.mark.parametrize(("day", "numbers"), [
    ("mon", (0,)), ("monday", (0,)), ("Sunday", (6,)), ("SAT", (5,)), ("[fri, mon, wed]", (0, 2, 4)),
    ("weekdays", (0, 1, 2, 3, 4)),
])
def test_a_day_may_be_spelt_out_and_there_may_be_several(tmp_path, day, numbers):
    text = SCHEDULE + f"every: weekly\n      at: '07:30'\n      day: {day}\n"
    [schedule] = load_text(tmp_path, text).config.plugins["echo"].schedules
    assert schedule.day == numbers


@pytest.mark.parametrize(("zone", "hint"), [
    ("CEST", " (an abbreviation names no zone; write the place)"), ("utc", " (did you mean 'UTC'?)"),
    ("Berlin", " (did you mean 'Europe/Berlin'?)"), ("Europe/Berln", " (did you mean 'Europe/Berlin'?)"),
    ("new york", " (did you mean 'America/New_York'?)"), ("Mars/Olympus", ""), ("home", ""), ("Australia", ""),
])
def test_a_zone_is_answered_with_the_right_one_or_none(tmp_path, zone, hint):
    assert told(tmp_path, SCHEDULE + f"{{every: daily, timezone: {zone}}}\n") == (
        f"expected a time zone such as Australia/Sydney, got {zone!r}{hint}")


@pytest.mark.parametrize(("text", "hint"), [
    ("plugins: {echo: {}}\nplugin_roots: [./plugins]\n", "; write plugins_dir, one directory or a list"),
    (ECHO + "max_attempts: 3\n", "; it belongs into the plugin's 'retry'"),
    ("plugins: {echo: {}}\nservice: {max_attempts: 3}\n", "; it belongs into a plugin's 'retry': plugins.NAME.retry"),
    (SCHEDULE + "{every: 5m, max_attempts: 3}\n", "; it belongs into the plugin's 'retry', beside 'schedule'"),
    (ECHO + "retry: {retries: 3}\n", "; write max_attempts"),
    (ECHO + "every: 5m\n", "; it belongs into the plugin's 'schedule'"),
    (ECHO + "timeout: 5m\n", "; write timeouts: {poll: 60s, handle: 120s}"),
    (SCHEDULE + "{every: 5m, tz: UTC}\n", "; write timezone"),
    (ECHO + "unheard_of: 1\n", ""),
])
def test_a_key_of_another_program_leads_to_the_right_one(tmp_path, text, hint):
    assert told(tmp_path, text) == f"unknown key{hint}"


@pytest.mark.parametrize(("duration", "hint"), [
    ("15min", " (write 15m)"), ("90 seconds", " (write 90s)"), ("long", ""),
])
def test_a_duration_with_its_unit_spelt_out_is_answered_with_the_short_one(tmp_path, duration, hint):
    assert told(tmp_path, ECHO + f"timeouts: {{poll: {duration}}}\n") == (
        f"expected a duration such as 30s, got {duration!r}{hint}")


def test_a_schedule_that_is_only_an_interval_is_answered_with_the_mapping(tmp_path):
    assert told(tmp_path, ECHO + "schedule: 15min\n") == (
        "expected a mapping, got '15min'; write schedule: {every: 15m}")


@pytest.mark.parametrize(("name", "instead"), [
    ("github", "preset: github in its place"),
    ("Shopify", "preset: shopify in its place"),
    ("openai", "preset: standard in its place"),
])
def test_a_sender_that_is_named_as_a_format_is_answered_with_its_preset(tmp_path, name, instead):
    text = endpoint(signature_format=name)
    assert told(tmp_path, text).endswith(f", got {name!r}: write {instead}")


def test_a_pasted_secret_is_not_shown_and_told_where_to_go(tmp_path):
    text = endpoint(secret="hunter2hunter2hunter2")
    assert told(tmp_path, text) == ("expected one ${NAME} and nothing else, got a literal; put the secret into"
                                    " service.env_file or the environment")
