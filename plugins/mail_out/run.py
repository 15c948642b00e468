#!/usr/bin/env python3
"""Sends an event as a mail by SMTP; each attempt of a job bears the same Message-ID."""

from __future__ import annotations

import contextlib
import os
import re
import smtplib
import socket
import sys
from collections.abc import Iterator

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

from compose import compose, is_address
from ductile_plugin import (
    ConfigError,
    Failed,
    Permanent,
    Retry,
    connection,
    is_line,
    log,
    main,
    one_line,
    seconds_left,
    server_keys,
    settings,
    trusted,
    with_port,
    with_token,
)

TIMEOUT_SECONDS = 60
PORTS = {"tls": 465, "starttls": 587, "none": 25}


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_list(value: object) -> bool:
    return isinstance(value, list) and all(map(is_line, value))


def is_recipients(value: object) -> bool:
    return is_line(value) or (is_list(value) and value != [])


ADDRESSES = "an address, a template or a list of them"
KEYS = server_keys("SMTP", PORTS) | {
    "from": (is_address, "an address such as Ductile <ductile@example.org>"),
    "to": (is_recipients, ADDRESSES),
    "username": (is_line, "one line", None), "password": (is_line, "one line", None),
    "cc": (is_recipients, ADDRESSES, None),
    "subject": (is_text, "a template", None), "text": (is_text, "a template", None),
    "html": (is_text, "a template", None),
    "attach": (is_list, "a list of templates that give paths in the workspace", None),
}


def respond(request: dict) -> dict:
    config = settings(request, KEYS)
    secrets = [name for name in ("password", "oauth") if config[name] is not None]
    if len(secrets) != (0 if config["username"] is None else 1):
        raise ConfigError("username, password, oauth: expected a username with one of the others, or none")
    config = with_port(config, PORTS, has_secret=bool(secrets))
    if request.get("command") not in ("handle", "health"):
        raise Permanent("mail_out has no such command")
    if config["oauth"] is None:
        return run(request, config, None)
    if request["command"] == "health":
        # A token that is renewed here would be lost.
        return {"status": "ok", "result": "the token is tried with the next mail"}
    return with_token(config["oauth"], request.get("state") or {}, lambda token: run(request, config, token))


def run(request: dict, config: dict, token: str | None) -> dict:
    place = f"{config['host']}:{config['port']}"
    if request["command"] == "health":
        with session(request, config, place, token):
            return {"status": "ok", "result": f"{place} {'accepts the login' if config['username'] else 'answers'}"}
    mail = compose(request, config)
    recipients = [each.addr_spec for header in ("To", "Cc") if mail[header] for each in mail[header].addresses]
    with session(request, config, place, token) as server:
        refused = server.sendmail(mail["From"].addresses[0].addr_spec, recipients, mail.as_bytes())
    for recipient, (code, text) in refused.items():
        log(f"{place} refuses {one_line(recipient)}: {code} {shown(text, config)}", "warn")
    taken = len(recipients) - len(refused)
    return {"status": "ok", "result": f"sent to {taken} of {len(recipients)}" if refused else f"sent to {taken}",
            "events": [{"type": "mail.sent", "payload": {
                "message_id": mail["Message-ID"], "recipients": taken, "refused": sorted(refused)}}]}


@contextlib.contextmanager
def session(request: dict, config: dict, place: str, token: str | None) -> Iterator[smtplib.SMTP]:
    """Give a connection that is logged in. Raises Failed for whatever goes wrong on it."""
    seconds = min(TIMEOUT_SECONDS, seconds_left(request))
    server = unconnected(config, seconds)
    try:
        with connection(place, "SMTP", seconds), smtp_errors(place, config):
            connect(server, config)
            log_in(server, config, token)
            yield server
    finally:
        # The answer changes nothing any more, and is not waited for.
        with contextlib.suppress(OSError, smtplib.SMTPException):
            server.putcmd("quit")
        server.close()


@contextlib.contextmanager
def smtp_errors(place: str, config: dict) -> Iterator[None]:
    try:
        yield
    except smtplib.SMTPNotSupportedError:
        raise Permanent(f"{place} offers no encryption or no login by password") from None
    except smtplib.SMTPRecipientsRefused as error:
        code, text = max(error.recipients.values(), key=lambda answer: not 400 <= answer[0] < 500)
        raise refusal(place, code, text, config) from None
    except smtplib.SMTPResponseException as error:
        raise refusal(place, error.smtp_code, error.smtp_error, config) from None
    except smtplib.SMTPException:
        raise Retry(f"{place} broke off, or its answer is not SMTP") from None


def unconnected(config: dict, seconds: float) -> smtplib.SMTP:
    """Return a client that has a socket only once `connect` is called, so that it can be closed whatever happens."""
    name = socket.gethostname()
    # The library would ask the name service who we are.
    options = {"timeout": seconds, "local_hostname": name if re.fullmatch("[A-Za-z0-9.-]+", name) else "localhost"}
    if config["security"] != "tls":
        return smtplib.SMTP(**options)
    return smtplib.SMTP_SSL(context=trusted(config["ca_file"]), **options)


def connect(server: smtplib.SMTP, config: dict) -> None:
    # The constructor would set it, and certificates are checked against it.
    server._host = config["host"]
    code, text = server.connect(config["host"], config["port"])
    if code != 220:
        raise smtplib.SMTPConnectError(code, text)
    if config["security"] == "starttls":
        server.starttls(context=trusted(config["ca_file"]))


def log_in(server: smtplib.SMTP, config: dict, token: str | None) -> None:
    if config["username"] is None:
        return
    if token is None:
        server.login(config["username"], config["password"])
        return
    server.ehlo_or_helo_if_needed()
    # A refusal comes as a challenge, which wants an empty answer before it becomes one.
    server.auth("XOAUTH2", lambda challenge=None: f"user={config['username']}\1auth=Bearer {token}\1\1" if (
        challenge is None) else "")


def refusal(place: str, code: int, text: object, config: dict) -> Failed:
    """Return the failure that an answer means: 4xx may pass, and what is no answer may pass too."""
    if not 400 <= code < 600:
        return Retry(f"{place} answered something that is not SMTP")
    return Failed(f"{place} answered {code} {shown(text, config)}", retry=code < 500)


def shown(text: object, config: dict) -> str:
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    return one_line(decoded, 200, (config["password"],))


if __name__ == "__main__":
    main(respond)
