#!/usr/bin/env python3
"""Sums up the transcript in the job's workspace and leaves the summary beside it."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from datetime import datetime
from urllib.parse import urlsplit

import external
from endpoint import ask, shortened
from extract import summary, words
from failed import Failed

LIMIT_BYTES = 4 * 1024 * 1024
# Between the end of a command or an exchange and that of the step: to write, to answer, to end.
SPARE_SECONDS = 2.0
SECONDS_WITHOUT_DEADLINE = 100.0
PROMPT = ("You sum up transcripts of videos. Say in a few plain sentences what the video is about and what can be "
          "learned from it, in the language of the transcript. Answer with the summary alone.")


def is_url(value: object) -> bool:
    try:
        parts = urlsplit(value)
        parts.hostname.encode("idna")
        return (parts.scheme in ("http", "https") and parts.port != 0 and "@" not in parts.netloc
                and re.fullmatch("[!-~]+", value) is not None)
    except (AttributeError, TypeError, ValueError):
        return False


def is_argv(value: object) -> bool:
    return (isinstance(value, list) and len(value) > 0 and value[0] != ""
            and all(isinstance(word, str) and "\0" not in word for word in value))


def is_file_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w[\w. -]{0,99}", value) is not None


def is_text(value: object) -> bool:
    return isinstance(value, str) and value.strip() != ""


FILE_NAME = "the name of a file in the workspace, without a directory"
# What a key must be, and the ways of summing up that it goes with.
KEYS = {
    "sentences": (lambda value: type(value) is int and 1 <= value <= 50, "a whole number from 1 to 50",
                  ("extractive",)),
    "command": (is_argv, "a list of texts, the command and its arguments (a number needs quotes)", ("command",)),
    "endpoint": (is_url, "http://HOST/v1 or https://HOST/v1 in ASCII, without spaces, user or password", ("http",)),
    "model": (is_text, "the name of a model", ("http",)),
    "api_key": (lambda value: isinstance(value, str) and re.fullmatch("[!-~]*", value), "ASCII without spaces",
                ("http",)),
    "prompt": (is_text, "a text", ("http",)),
    "max_characters": (lambda value: type(value) is int and value >= 100, "a whole number, 100 or more", ("http",)),
    "timeout": (lambda value: type(value) in (int, float) and 0 < value <= 86_400, "seconds, over 0, at most 86400",
                ("command", "http")),
    "input": (is_file_name, FILE_NAME, ("extractive", "command", "http")),
    "output": (is_file_name, FILE_NAME, ("extractive", "command", "http")),
}
BY = {"extractive": "without command or endpoint", "command": "with a command", "http": "with an endpoint"}
DEFAULTS = {"sentences": 5, "api_key": "", "prompt": PROMPT, "max_characters": 100_000, "timeout": None,
            "input": "transcript.txt", "output": "summary.txt"}


def checked(config: object) -> tuple[str, dict]:
    """Return the way of summing up and the configuration with its defaults; a null counts as absent. Raises Failed."""
    if not isinstance(config, dict):
        raise Failed("config: expected a mapping")
    config = {key: value for key, value in config.items() if value is not None}
    for key, value in config.items():
        if key not in KEYS:
            raise Failed(f"config: unknown key {key!r}, expected one of {', '.join(KEYS)}")
        if not KEYS[key][0](value):
            raise Failed(f"{key}: expected {KEYS[key][1]}")
    if "command" in config and "endpoint" in config:
        raise Failed("config: expected command or endpoint, got both")
    way = "command" if "command" in config else "http" if "endpoint" in config else "extractive"
    for key in config:
        if way not in KEYS[key][2]:
            raise Failed(f"{key}: counts only {' or '.join(BY[other] for other in KEYS[key][2])}, take it out")
    if way == "http" and "model" not in config:
        raise Failed("model: expected the name of a model, an endpoint needs one")
    config = DEFAULTS | config
    if config["input"] == config["output"]:
        raise Failed("output: expected another file than the input")
    return way, config


def transcript(payload: dict, workspace: str, name: str) -> str:
    """Return the text of the transcript that the payload names in the workspace, else of `name`. Raises Failed."""
    path = os.path.join(workspace, name)
    given = payload.get("transcript_path")
    if isinstance(given, str) and "\0" not in given:
        given = os.path.realpath(os.path.join(workspace, given))
        path = given if given.startswith(workspace + os.sep) else path
    shown = os.path.relpath(path, workspace)
    try:
        if not os.path.isfile(path):
            raise Failed(f"{shown}: there is no such transcript in the workspace")
        with open(path, "rb") as file:
            data = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise Failed(f"{shown}: {error.strerror}", retry=True) from None
    if len(data) > LIMIT_BYTES:
        raise Failed(f"{shown}: larger than {LIMIT_BYTES // 1024 // 1024} MiB, that is no transcript")
    text = data.decode("utf-8", "replace").removeprefix("\ufeff").replace("\0", "")
    if not words(text):
        raise Failed(f"{shown}: the transcript is empty")
    return text


def keep(path: str, text: str) -> None:
    """Write a new file in place of what has its name: what an earlier step left there stays as it is. Raises Failed."""
    new = f"{path}.new-{os.getpid()}"
    try:
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(text.encode("utf-8", "replace"))
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
        except OSError:
            if os.path.lexists(new):
                os.unlink(new)
            raise
    except OSError as error:
        raise Failed(f"{os.path.basename(path)}: {error.strerror}", retry=True) from None


def seconds_left(request: dict, timeout: float | None) -> float:
    """Return how long a command or an exchange may take. Raises Failed where that is no time at all."""
    try:
        left = datetime.fromisoformat(request["deadline_at"]).timestamp() - time.time() - SPARE_SECONDS
    except (KeyError, TypeError, ValueError):
        left = SECONDS_WITHOUT_DEADLINE
    if left <= 0:
        raise Failed("there is no time left for a summary, give the step a longer timeout", retry=True)
    return left if timeout is None else min(timeout, left)


def summed_up(way: str, config: dict, text: str, request: dict, logs: list) -> str:
    if way == "extractive":
        return summary(text, config["sentences"])
    seconds = seconds_left(request, config["timeout"])
    if way == "command":
        return external.run(config["command"], text, seconds)
    start = shortened(text, config["max_characters"])
    if len(start) < len(text):
        logs.append({"level": "info", "message": f"the transcript was cut from {len(text)} to {len(start)} characters"})
    return ask(config, start, seconds)


def health(way: str, config: dict) -> dict:
    if way == "command" and not external.is_found(config["command"]):
        raise Failed(f"command: {config['command'][0]}: not found{'' if '/' in config['command'][0] else ' in PATH'}")
    parts = urlsplit(config["endpoint"]) if way == "http" else None
    by = {"extractive": "by itself", "command": f"with {config.get('command', [''])[0]}",
          "http": f"with {config.get('model')} at {parts.scheme}://{parts.netloc}" if parts else ""}
    return {"status": "ok", "result": f"would sum up {by[way]}"}


def respond(request: dict, logs: list) -> dict:
    way, config = checked(request.get("config"))
    if request.get("command") == "health":
        return health(way, config)
    if request.get("command") != "handle":
        raise Failed("summarize has no such command")
    event = request.get("event")
    payload = event.get("payload") if isinstance(event, dict) else None
    workspace = os.path.realpath(request.get("workspace_dir") or ".")
    text = transcript(payload if isinstance(payload, dict) else {}, workspace, config["input"])
    short = summed_up(way, config, text, request, logs).replace("\0", "").strip()
    if not words(short):
        raise Failed(f"the summary is empty, made {BY[way]}", retry=True)
    path = os.path.join(workspace, config["output"])
    keep(path, short + "\n")
    count = len(words(short))
    ready = {"summary_path": path, "summary_words": count, "summarizer": way}
    return {"status": "ok", "result": f"{len(words(text))} words summed up in {count}",
            "events": [{"type": "summary.ready", "payload": ready}]}


def main() -> None:
    logs: list = []
    try:
        try:
            request = json.load(sys.stdin.buffer)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            raise Failed("the request is not a JSON object")
        answer = respond(request, logs)
    except (Failed, RecursionError) as error:
        answer = {"status": "error", "error": str(error), "retry": getattr(error, "retry", False)}
    print(json.dumps(answer | {"logs": logs}))


if __name__ == "__main__":
    main()
