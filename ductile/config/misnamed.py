"""What other programs call things, and what to write instead: hints for keys and values that are not known here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ductile import units

_IN_SCHEDULE = "it belongs into the plugin's 'schedule'"
_IN_RETRY = "it belongs into the plugin's 'retry'"
_IN_BREAKER = "it belongs into the plugin's 'circuit_breaker'"
_IN_SERVICE = "it belongs into 'service'"
_OF_A_PLUGIN = "it belongs into a plugin's 'retry': plugins.NAME.retry"

# By the section that the key is in.
ROOT = {
    **dict.fromkeys(("plugin_roots", "plugin_root", "plugin_paths", "plugin_path", "plugin_dirs"),
                    "write plugins_dir, one directory or a list"),
    **dict.fromkeys(("database", "db", "data_dir"), "write state: {path: FILE}"),
    **dict.fromkeys(("log", "log_level", "log_format", "env_file", "tick_interval", "dedupe_ttl", "job_log_retention",
                     "max_hops", "max_queue_depth", "shutdown_grace", "name"), _IN_SERVICE),
    **dict.fromkeys(("schedule", "schedules", "jobs", "cron"),
                    "a schedule belongs to its plugin: plugins.NAME.schedule"),
    **dict.fromkeys(("listen", "endpoints"), "it belongs into 'webhooks'"),
    **dict.fromkeys(("max_attempts", "retry"), _OF_A_PLUGIN),
}
SERVICE = {
    **dict.fromkeys(("max_attempts", "retry", "retries"), _OF_A_PLUGIN),
    **dict.fromkeys(("plugin_roots", "plugins_dir", "pipelines_dir", "state", "workspace", "webhooks"),
                    "it belongs beside 'service', at the top (plugins_dir, pipelines_dir, state, workspace, webhooks)"),
}
PLUGIN = {
    **dict.fromkeys(("every", "interval", "at", "day", "jitter", "timezone", "preferred_window", "cron"), _IN_SCHEDULE),
    **dict.fromkeys(("max_attempts", "backoff_base", "backoff_max"), _IN_RETRY),
    **dict.fromkeys(("retries", "max_retries", "attempts"), "write retry: {max_attempts: NUMBER}"),
    **dict.fromkeys(("threshold", "reset_after"), _IN_BREAKER),
    "timeout": "write timeouts: {poll: 60s, handle: 120s}",
    **dict.fromkeys(("environment", "env_vars"), "write env: [NAME], the names of variables to hand on"),
    **dict.fromkeys(("settings", "options", "params", "with"), "write config"),
    **dict.fromkeys(("plugin", "path"), "write uses, the manifest's name"),
}
_SCHEDULE = {
    **dict.fromkeys(("interval", "period", "frequency"), "write every"),
    **dict.fromkeys(("time", "hour", "start_at"), "write at: \"07:30\""),
    **dict.fromkeys(("tz", "zone", "time_zone"), "write timezone"),
    **dict.fromkeys(("weekday", "day_of_week", "dow", "days"), "write day: mon"),
    **dict.fromkeys(("max_attempts", "retry"), _IN_RETRY + ", beside 'schedule'"),
    **dict.fromkeys(("window", "between"), "write preferred_window: {start: \"06:00\", end: \"22:00\"}"),
}
RETRY = {
    **dict.fromkeys(("attempts", "retries", "max_retries", "limit"), "write max_attempts"),
    **dict.fromkeys(("delay", "backoff", "wait"), "write backoff_base"),
}
# The name of an algorithm is no format.
SIGNATURE_FORMATS = dict.fromkeys(("sha256", "hmac", "hmac-sha256", "hmac_sha256"),
                                  "hex or base64, as the sender writes the digest")
# The presets of senders that have none of their own name.
SENDERS = {
    **dict.fromkeys(("openai", "replicate", "supabase", "standardwebhooks", "standard-webhooks", "render",
                     "incident.io"), "standard"),
    **dict.fromkeys(("clerk", "resend", "stytch"), "svix"),
    **dict.fromkeys(("facebook", "instagram", "whatsapp", "messenger"), "meta"),
    **dict.fromkeys(("twitter", "x.com"), "x"),
    **dict.fromkeys(("atlassian", "snyk"), "bitbucket"), "codeberg": "forgejo", "quickbooks": "intuit",
    "teams": "msteams", "nextcloud": "nextcloud-talk", "calcom": "cal.com", "customer.io": "customerio",
}
_POLL = "poll its API with a plugin on a schedule"
_RELAY = "let a relay or a proxy verify it and sign again"
_TOKEN = f"it sends a token and no signature: {_POLL}, or {_RELAY}"
_NOTHING = f"it signs nothing: take a request as a hint only, and {_POLL}"
_PUBLIC_KEY = f"it signs with a public key: {_POLL}, or {_RELAY}"
_SHA1 = f"it signs with SHA-1: {_POLL}, or {_RELAY}"
_SHA512 = f"it signs with SHA-512: {_RELAY}, or {_POLL}"
# Senders that cannot be verified with HMAC-SHA256 over the body, and what to do instead.
WITHOUT_HMAC = {
    "gitlab": "its secret token is no signature; set a signing token at the hook and write preset: standard",
    **dict.fromkeys(("trello", "twilio", "intercom", "vercel", "fitbit", "mandrill", "helpscout", "webex", "segment",
                     "braintree", "sha1", "hmac-sha1"), _SHA1),
    **dict.fromkeys(("paystack", "authorize.net", "affirm", "onfleet", "sha512", "hmac-sha512"), _SHA512),
    "mailgun": f"its signature does not cover the event: {_POLL}",
    "adyen": f"its signature covers chosen fields only: {_RELAY}",
    "pandadoc": "its signature is in the query: let a proxy copy it into a header, and name that as signature_header",
    **dict.fromkeys(("contentful", "plivo", "mercadopago", "messagebird"), f"it does not sign the body: {_RELAY}"),
    "discord": f"it signs with Ed25519: {_POLL}, or {_RELAY}",
    **dict.fromkeys(("ed25519", "rsa", "ecdsa", "paypal", "plaid", "sendgrid", "telnyx", "wise", "ebay", "circle"),
                    _PUBLIC_KEY),
    "sns": "it signs with a public key: subscribe a queue (SQS) and poll that",
    **dict.fromkeys(("jwt", "vonage", "netlify", "livekit", "monday", "wix"), f"it sends a JWT: {_RELAY}"),
    "telegram": "it sends a token and no signature: poll getUpdates with a plugin",
    **dict.fromkeys(("token", "figma", "mattermost", "rocketchat", "huggingface", "google", "graph", "okta", "datadog",
                     "bigcommerce", "revenuecat", "homeassistant"), _TOKEN),
    **dict.fromkeys(("basic", "bearer", "postmark", "chargebee", "pipedrive", "sparkpost", "mixpanel", "alertmanager",
                     "uptimekuma"), f"it sends a password and no signature: {_RELAY}"),
    **dict.fromkeys(("none", "strava", "withings", "garmin", "mailchimp", "gumroad", "mollie", "dockerhub"), _NOTHING),
}

_UNITS = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hr": "h", "hour": "h", "day": "d", "wk": "w",
          "week": "w"}
_SPELT_OUT = re.compile(r"([0-9]{1,9}) ?([a-z]+?)s?")
_CLOCK = re.compile(r"([0-9]|[01][0-9]|2[0-3]):[0-5][0-9]")
_MACROS = {"@hourly": "every: hourly", "@daily": "every: daily", "@midnight": "every: daily",
           "@weekly": "every: weekly",
           "@monthly": "every: monthly"}
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CRON = "a crontab line is no schedule here; write"


def in_schedule(line: object) -> Mapping[str, str]:
    """Return what to write instead of a key in a schedule whose `cron` is this line, None where it has none."""
    return _SCHEDULE if line is None else {**_SCHEDULE, "cron": cron(str(line))}


def duration(text: str) -> str | None:
    """Return how a duration with its unit spelt out is written: `15m` for `15min`; None where it is no such one."""
    match = _SPELT_OUT.fullmatch(text.strip().lower())
    unit = _UNITS.get(match[2]) if match else None
    return f"{int(match[1])}{unit}" if match and unit else None


def interval(text: str) -> str:
    """Return ` (…)` with what to write for an interval that is none, or nothing."""
    word = text.strip().lower()
    if len(word.split()) == 5 or word.startswith("@"):
        return f" ({cron(text)})"
    if word in ("weekdays", "weekends"):
        day = word if word == "weekdays" else "[sat, sun]"
        return f" (write every: weekly, day: {day}, with at)"
    if word[:3] in _WEEKDAYS and word.endswith("day"):
        return f" (write every: weekly, day: {word[:3]})"
    if _CLOCK.fullmatch(word):
        return f" (write every: daily, at: \"{word:0>5}\")"
    short = duration(word)
    return f" (write {short})" if short else ""


def cron(text: str) -> str:
    """Return what to write in place of a line of crontab(5)."""
    same = _MACROS.get(text.strip().lower()) or _equivalent(text.lower().split())
    return f"{_CRON} {same or 'every, and at and day for a time'}"


def _equivalent(fields: list[str]) -> str | None:
    if len(fields) != 5:
        return None
    minute, hour, day, month, weekday = fields
    if month != "*" or (day != "*" and weekday != "*"):
        return None
    if hour == day == weekday == "*":
        if minute == "*":
            return "every: 1m"
        return _step(minute, "m", 60) or ("every: hourly" if minute.isdigit() else None)
    if not minute.isdigit() or int(minute) > 59:
        return None
    if day == weekday == "*" and hour.startswith("*"):
        return _step(hour, "h", 24)
    hours = hour.split(",")
    if not all(each.isdigit() and int(each) <= 23 for each in hours):
        return None
    at = "at: " + _one_or_list(f'"{int(each):02d}:{int(minute):02d}"' for each in hours)
    if day == weekday == "*":
        return f"every: daily, {at}"
    if weekday != "*":
        days = _weekdays(weekday)
        return f"every: weekly, day: {days}, {at}" if days else None
    return f"every: monthly, day: {int(day)}, {at}" if day.isdigit() and 1 <= int(day) <= 31 else None


def _weekdays(field: str) -> str | None:
    """Return the value of `day` for the weekdays of a line of crontab(5), None for what is none."""
    if field in ("1-5", "mon-fri"):
        return "weekdays"
    names = [_WEEKDAYS[int(each)] if each in tuple("01234567") else each[:3] for each in field.split(",")]
    return _one_or_list(names) if all(name in _WEEKDAYS for name in names) else None


def _one_or_list(items: Iterable[str]) -> str:
    each_once = list(dict.fromkeys(items))
    return each_once[0] if len(each_once) == 1 else f"[{', '.join(each_once)}]"


def _step(field: str, unit: str, whole: int) -> str | None:
    """Return the interval of `*/N` where N divides the whole, so that it is the same from hour to hour."""
    count = field.removeprefix("*/")
    if count == field or not count.isdigit() or int(count) == 0 or whole % int(count):
        return None
    return f"every: {int(count)}{unit}"


def schedule(text: str) -> str:
    """Return what to write for a schedule that is a string and no mapping."""
    try:
        units.parse_duration(text)
    except ValueError:
        return f"; write schedule: {{every: {duration(text) or '5m'}}}{interval(text) if not duration(text) else ''}"
    return f"; write schedule: {{every: {text}}}"
