#!/usr/bin/env python3
"""Posts the summary in the job's workspace to the Discord channel that the chain of events came from."""

from __future__ import annotations

import os
import re
import sys
import time

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

from delivery import Target, bot_target, deliver, webhook_target
from ductile_plugin import (
    URL,
    ConfigError,
    Failed,
    Permanent,
    counted,
    digest,
    is_url,
    log,
    main,
    payload_of,
    seconds_left,
    settings,
    where,
    workspace_text,
)
from parts import heading, split

# Discord takes at most 25 characters.
NONCE_BYTES = 12
# Jobs whose messages are half posted; the state grows no further.
MOST_UNFINISHED = 20
SECONDS_WITHOUT_DEADLINE = 60.0
API_BASE = "https://discord.com/api/v10"


KEYS = {
    "bot_token": (lambda value: isinstance(value, str) and re.fullmatch("[!-~]+", value),
                  "the bot's token, in ASCII without spaces", None),
    "webhook_url": (is_url, URL, None),
    "api_base": (lambda value: is_url(value) and "?" not in value and "#" not in value,
                 "http://HOST/... or https://HOST/... in ASCII, without spaces, user, password or query", None),
    "template": (lambda value: isinstance(value, str), "a text", "**{title}**\n<{url}>"),
    "timeout": (lambda value: type(value) in (int, float) and 0 < value <= 3600, "seconds, over 0, at most 3600", 15),
}


def checked(request: dict) -> dict:
    """Return the configuration with its defaults, either with a bot_token or with a webhook_url. Raises ConfigError."""
    config = {key: value for key, value in settings(request, KEYS).items() if value is not None}
    if ("bot_token" in config) == ("webhook_url" in config):
        raise ConfigError(f"config: expected bot_token or webhook_url, got "
                          f"{'both' if 'bot_token' in config else 'neither'}")
    if "webhook_url" in config and "api_base" in config:
        raise ConfigError("api_base: counts only with a bot_token, take it out")
    return {"api_base": API_BASE} | config


def target_of(config: dict, payload: dict) -> Target:
    """Return where the messages go. Raises Failed."""
    if "webhook_url" in config:
        return webhook_target(config["webhook_url"])
    channel_id = payload.get("channel_id")
    if channel_id is None:
        raise Permanent("channel_id: the payload has none, only the event of a Discord message does")
    channel_id = str(channel_id) if type(channel_id) is int else channel_id
    # Nothing else may get into the path of the url.
    if not isinstance(channel_id, str) or not re.fullmatch("[0-9]{1,20}", channel_id):
        raise Permanent("channel_id: expected the digits of a Discord channel")
    return bot_target(config["api_base"], config["bot_token"], channel_id)


def summary(request: dict) -> str:
    """Return the summary that the payload names in the workspace, else that of summary.txt. Raises Failed."""
    text = workspace_text(request, "summary_path", "summary.txt", "summary", cut=True).strip()
    if not text:
        raise Permanent("the summary is empty, nothing was posted")
    return text


def post(request: dict, target: Target, config: dict, parts: list[str], posted: list[str]) -> None:
    """Post each part that is not in `posted` yet, in order, and add the nonce of each to it. Raises Failed."""
    end = time.monotonic() + seconds_left(request, default=SECONDS_WITHOUT_DEADLINE)
    for number, part in enumerate(parts, 1):
        nonce = digest(f"{request.get('job_id')}\n{number}\n{part}", NONCE_BYTES)
        if nonce in posted:
            continue
        # A transcript calls up nobody, whatever it says.
        message = {"content": part, "allowed_mentions": {"parse": []}}
        if "bot_token" in config:
            # Webhooks know no nonce.
            message |= {"nonce": nonce, "enforce_nonce": True}
        try:
            deliver(target, message, config["timeout"], end)
        except Failed as error:
            place = f"part {number} of {len(parts)}: " if len(parts) > 1 else ""
            raise Failed(f"{place}{error}", retry=error.retry) from None
        posted.append(nonce)


def unfinished(request: dict) -> dict[str, list[str]]:
    """Return by job the nonces that an earlier attempt of it posted before it failed."""
    state = request.get("state")
    found = state.get("unfinished") if isinstance(state, dict) else None
    return {job: nonces for job, nonces in found.items() if isinstance(nonces, list)} if isinstance(found, dict) else {}


def handle(request: dict, config: dict) -> dict:
    payload = payload_of(request)
    target = target_of(config, payload)
    text = summary(request)
    parts, is_cut = split("\n\n".join([heading(config["template"], payload, request.get("context")), text]))
    if is_cut:
        log(f"the summary is too long, only {len(parts)} parts of it are posted", "warn")
    job, others = str(request.get("job_id")), unfinished(request)
    posted = list(others.pop(job, []))
    before = len(posted)
    try:
        post(request, target, config, parts, posted)
    except Failed as error:
        if len(posted) > before:
            error.state_updates = {"unfinished": dict(list(others.items())[1 - MOST_UNFINISHED:]) | {job: posted}}
        raise
    sent = {"type": "discord_notify.sent", "payload": {"parts": len(parts)}}
    answer = {"status": "ok", "result": f"posted to {where(target.url)} in {counted(len(parts), 'part')}",
              "events": [sent]}
    return answer | ({"state_updates": {"unfinished": others}} if before else {})


def respond(request: dict) -> dict:
    config = checked(request)
    if request.get("command") == "health":
        whom = "by a webhook" if "webhook_url" in config else "as a bot"
        return {"status": "ok",
                "result": f"would post to {where(config.get('webhook_url', config['api_base']))} {whom}"}
    if request.get("command") != "handle":
        raise Permanent("discord_notify has no such command")
    return handle(request, config)


if __name__ == "__main__":
    main(respond)
