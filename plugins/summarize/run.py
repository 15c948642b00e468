#!/usr/bin/env python3
"""Sums up the transcript in the job's workspace and leaves the summary beside it."""

from __future__ import annotations

import os
import re
import sys

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

import external
from ductile_plugin import ConfigError, Permanent, Retry, is_url, log, main, seconds_left, settings, where
from endpoint import ask, shortened
from extract import summary, words

LIMIT_BYTES = 4 * 1024 * 1024
# Between the end of a command or an exchange and that of the step: to write, to answer, to end.
SPARE_SECONDS = 2.0
SECONDS_WITHOUT_DEADLINE = 100.0
PROMPT = ("You sum up transcripts of videos. Say in a few plain sentences what the video is about and what can be "
          "learned from it, in the language of the transcript. Answer with the summary alone.")


def is_argv(value: object) -> bool:
    return (isinstance(value, list) and len(value) > 0 and value[0] != ""
            and all(isinstance(word, str) and "\0" not in word for word in value))


def is_file_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w[\w. -]{0,99}", value) is not None


def is_text(value: object) -> bool:
    return isinstance(value, str) and value.strip() != ""


FILE_NAME = "the name of a file in the workspace, without a directory"
KEYS = {
    "sentences": (lambda value: type(value) is int and 1 <= value <= 50, "a whole number from 1 to 50", None),
    "command": (is_argv, "a list of texts, the command and its arguments (a number needs quotes)", None),
    "endpoint": (is_url, "http://HOST/v1 or https://HOST/v1 in ASCII, without spaces, user or password", None),
    "model": (is_text, "the name of a model", None),
    "api_key": (lambda value: isinstance(value, str) and re.fullmatch("[!-~]*", value), "ASCII without spaces", None),
    "prompt": (is_text, "a text", None),
    "max_characters": (lambda value: type(value) is int and value >= 100, "a whole number, 100 or more", None),
    "timeout": (lambda value: type(value) in (int, float) and 0 < value <= 86_400, "seconds, over 0, at most 86400",
                None),
    "input": (is_file_name, FILE_NAME, "transcript.txt"),
    "output": (is_file_name, FILE_NAME, "summary.txt"),
}
# The ways of summing up that a key goes with; where it is not here, all of them.
WAYS = {"sentences": ("extractive",), "timeout": ("command", "http")} | dict.fromkeys(
    ("model", "api_key", "prompt", "max_characters"), ("http",))
BY = {"extractive": "without command or endpoint", "command": "with a command", "http": "with an endpoint"}
DEFAULTS = {"sentences": 5, "api_key": "", "prompt": PROMPT, "max_characters": 100_000, "timeout": None}


def checked(request: dict) -> tuple[str, dict]:
    """Return the way of summing up and the configuration with its defaults. Raises ConfigError."""
    config = {key: value for key, value in settings(request, KEYS).items() if value is not None}
    if "command" in config and "endpoint" in config:
        raise ConfigError("config: expected command or endpoint, got both")
    way = "command" if "command" in config else "http" if "endpoint" in config else "extractive"
    for key in config:
        if way not in WAYS.get(key, (way,)):
            raise ConfigError(f"{key}: counts only {' or '.join(BY[other] for other in WAYS[key])}, take it out")
    if way == "http" and "model" not in config:
        raise ConfigError("model: expected the name of a model, an endpoint needs one")
    if config["input"] == config["output"]:
        raise ConfigError("output: expected another file than the input")
    return way, DEFAULTS | config


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
            raise Permanent(f"{shown}: there is no such transcript in the workspace")
        with open(path, "rb") as file:
            data = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise Retry(f"{shown}: {error.strerror}") from None
    if len(data) > LIMIT_BYTES:
        raise Permanent(f"{shown}: larger than {LIMIT_BYTES // 1024 // 1024} MiB, that is no transcript")
    text = data.decode("utf-8", "replace").removeprefix("\ufeff").replace("\0", "")
    if not words(text):
        raise Permanent(f"{shown}: the transcript is empty")
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
        raise Retry(f"{os.path.basename(path)}: {error.strerror}") from None


def summed_up(way: str, config: dict, text: str, request: dict) -> str:
    if way == "extractive":
        return summary(text, config["sentences"])
    left = seconds_left(request, spare=SPARE_SECONDS, default=SECONDS_WITHOUT_DEADLINE)
    if left <= 0:
        raise Retry("there is no time left for a summary, give the step a longer timeout")
    seconds = left if config["timeout"] is None else min(config["timeout"], left)
    if way == "command":
        return external.run(config["command"], text, seconds)
    start = shortened(text, config["max_characters"])
    if len(start) < len(text):
        log(f"the transcript was cut from {len(text)} to {len(start)} characters")
    return ask(config, start, seconds)


def health(way: str, config: dict) -> dict:
    if way == "command" and not external.is_found(config["command"]):
        raise Permanent(f"command: {config['command'][0]}: not "
                        f"found{'' if '/' in config['command'][0] else ' in PATH'}")
    by = "by itself"
    if way == "command":
        by = f"with {config['command'][0]}"
    elif way == "http":
        by = f"with {config['model']} at {where(config['endpoint'])}"
    return {"status": "ok", "result": f"would sum up {by}"}


def respond(request: dict) -> dict:
    way, config = checked(request)
    if request.get("command") == "health":
        return health(way, config)
    if request.get("command") != "handle":
        raise Permanent("summarize has no such command")
    event = request.get("event")
    payload = event.get("payload") if isinstance(event, dict) else None
    workspace = os.path.realpath(request.get("workspace_dir") or ".")
    text = transcript(payload if isinstance(payload, dict) else {}, workspace, config["input"])
    short = summed_up(way, config, text, request).replace("\0", "").strip()
    if not words(short):
        raise Retry(f"the summary is empty, made {BY[way]}")
    path = os.path.join(workspace, config["output"])
    keep(path, short + "\n")
    count = len(words(short))
    ready = {"summary_path": path, "summary_words": count, "summarizer": way}
    return {"status": "ok", "result": f"{len(words(text))} words summed up in {count}",
            "events": [{"type": "summary.ready", "payload": ready}]}


if __name__ == "__main__":
    main(respond)
