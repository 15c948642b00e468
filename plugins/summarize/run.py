#!/usr/bin/env python3
"""Sums up the transcript in the job's workspace and leaves the summary beside it."""

from __future__ import annotations

import os
import re
import sys

# The library is beside this file, or in the lib of the directory of plugins.
sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir, "lib"))

import external
from ductile_plugin import (
    ARGV,
    ConfigError,
    Permanent,
    Retry,
    counted,
    is_argv,
    is_url,
    log,
    main,
    seconds_left,
    settings,
    where,
    workspace_of,
    workspace_text,
    write_file,
)
from endpoint import ask, shortened
from extract import summary, words

# Between the end of a command or an exchange and that of the step: to write, to answer, to end.
SPARE_SECONDS = 2.0
SECONDS_WITHOUT_DEADLINE = 100.0
PROMPT = ("You sum up transcripts of videos. Say in a few plain sentences what the video is about and what can be "
          "learned from it, in the language of the transcript. Answer with the summary alone.")


def is_file_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w[\w. -]{0,99}", value) is not None


def is_text(value: object) -> bool:
    return isinstance(value, str) and value.strip() != ""


FILE_NAME = "the name of a file in the workspace, without a directory"
KEYS = {
    "sentences": (lambda value: type(value) is int and 1 <= value <= 50, "a whole number from 1 to 50", None),
    "command": (is_argv, ARGV, None),
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


def transcript(request: dict, name: str) -> str:
    """Return the text of the transcript that the payload names in the workspace, else of `name`. Raises Failed."""
    text = workspace_text(request, "transcript_path", name, "transcript")
    if not words(text):
        raise Permanent("the transcript is empty")
    return text


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
    text = transcript(request, config["input"])
    short = summed_up(way, config, text, request).replace("\0", "").strip()
    if not words(short):
        raise Retry(f"the summary is empty, made {BY[way]}")
    path = os.path.join(workspace_of(request), config["output"])
    try:
        write_file(path, f"{short}\n".encode("utf-8", "replace"))
    except OSError as error:
        raise Retry(f"{config['output']}: {error.strerror}") from None
    count = len(words(short))
    ready = {"summary_path": path, "summary_words": count, "summarizer": way}
    return {"status": "ok", "result": f"{counted(len(words(text)), 'word')} summed up in {count}",
            "events": [{"type": "summary.ready", "payload": ready}]}


if __name__ == "__main__":
    main(respond)
