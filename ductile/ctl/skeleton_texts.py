"""What a new plugin begins with: the texts of its files, in which `@NAME@` stands for its name."""

from __future__ import annotations

from collections.abc import Mapping

_MANIFEST = """\
name: @QUOTED@
version: 0.1.0
protocol: 2
entrypoint: @ENTRYPOINT@
description: Says what it does in one line
# poll runs on a schedule, handle gets events; health says whether all is well, and changes nothing. Of init, which
# runs once before all others, and of commands with other names there are none yet.
commands: [poll, handle, health]
# What has to stand, and what may stand, in `config`. Without a required key the plugin is not loaded.
config_keys: {required: [], optional: [greeting]}
"""

_README = """\
# @NAME@

Says what it does in one line.

| command | does |
|---|---|
| `poll` | counts its runs and emits `@NAME@.polled` |
| `handle` | says what event it was given |
| `health` | says that all is well; changes nothing |

## Keys

| key | meaning |
|---|---|
| `greeting` | what it says first; default `Hello` |

## Try it

```sh
ductilectl test ./@NAME@
ductilectl test ./@NAME@ handle --event event.json
ductilectl test ./@NAME@ health
```

where `event.json` is the payload of an event, such as `{"text": "hello"}`.
"""

_SH = """\
#!/bin/sh
# @NAME@: one request on standard input, one response on standard output, then the end.
# What is meant for people goes to standard error. The working directory is this job's own: files that a success leaves
# in it, the next step of a pipeline has too.
set -u

IFS= read -r request || :

# The request is one line of JSON. What comes first in it can be found without a parser:
#   {"protocol":2,"job_id":"...","command":"poll","config":{...},"state":{...},"event":{...},...}
# For more there are parsers, such as jq:
#   greeting=$(printf '%s' "$request" | jq -r '.config.greeting // "Hello"')
command=${request#*\\"command\\":\\"}
command=${command%%\\"*}

case $command in
    poll)
        # events: what happened, for routes and pipelines. Only those of a success count.
        # state_updates: what to remember. It is there under "state" the next time, and kept even after a failure.
        # logs: lines for `ductilectl logs`. The levels are debug, info, warn and error.
        now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
        printf '{"status":"ok","result":"polled at %s",' "$now"
        printf '"events":[{"type":"@NAME@.polled","payload":{"at":"%s"}}],' "$now"
        printf '"state_updates":{"last_run":"%s"},' "$now"
        printf '"logs":[{"level":"info","message":"poll is done"}]}\\n'
        ;;
    handle)
        # An event that cannot be dealt with is an error. It is tried again, unless "retry" is false:
        #   printf '{"status":"error","error":"the payload has no text","retry":false}\\n'
        printf '{"status":"ok","result":"handled","logs":[{"level":"info","message":"handle is done"}]}\\n'
        ;;
    health)
        printf '{"status":"ok","result":"all is well"}\\n'
        ;;
    *)
        printf '{"status":"error","error":"@NAME@ has no such command","retry":false}\\n'
        ;;
esac
"""

_PYTHON = '''\
#!/usr/bin/env python3
"""@NAME@: one request on standard input, one response on standard output, then the end."""

import json
import sys


def poll(request):
    """Say what has happened since the last time."""
    state = request["state"]
    runs = state.get("runs", 0) + 1
    greeting = request["config"].get("greeting", "Hello")
    return {
        "status": "ok",
        "result": f"{greeting}: run {runs}",
        # What happened, for routes and pipelines. Only the events of a success count. One with a "dedupe_key" that
        # has been dealt with already is dropped.
        "events": [{"type": "@NAME@.polled", "payload": {"runs": runs}}],
        # What to remember. It is there under "state" the next time, and kept even after a failure.
        "state_updates": {"runs": runs},
        # Lines for `ductilectl logs`. The levels are debug, info, warn and error.
        "logs": [{"level": "info", "message": f"this was run {runs}"}],
    }


def handle(request):
    """Deal with one event: {"type": ..., "payload": ..., "source": ...}.

    The same event may come again, after a crash for one thing: doing it twice has to be as good as doing it once.
    """
    event = request.get("event")
    if event is None:
        # It is tried again later, unless "retry" is false.
        return {"status": "error", "error": "handle needs an event", "retry": False}
    # The working directory, request["workspace_dir"], is this job's own: files that a success leaves in it, the next
    # step of a pipeline has too.
    return {"status": "ok", "result": f"was given {event['type']}"}


def health(request):
    """Say whether all is well; change nothing."""
    return {"status": "ok", "result": "all is well"}


COMMANDS = {"poll": poll, "handle": handle, "health": health}


def main():
    # What is meant for people goes to standard error: standard output is for the response alone.
    request = json.load(sys.stdin)
    command = COMMANDS.get(request["command"])
    if command is None:
        response = {"status": "error", "error": f"@NAME@ has no command {request['command']}", "retry": False}
    else:
        response = command(request)
    json.dump(response, sys.stdout)


if __name__ == "__main__":
    main()
'''

_ENTRYPOINTS = {"sh": ("run.sh", _SH), "python": ("run.py", _PYTHON)}
LANGUAGES = tuple(_ENTRYPOINTS)
MANIFEST, README = "manifest.yaml", "README.md"


def entrypoint(language: str) -> str:
    """Return the name of the file that is run."""
    return _ENTRYPOINTS[language][0]


def files(name: str, quoted: str, language: str) -> Mapping[str, str]:
    """Return the texts of a new plugin's files by their names; `quoted` is its name as YAML."""
    program, text = _ENTRYPOINTS[language]
    texts = {program: text, README: _README, MANIFEST: _MANIFEST}
    return {file: each.replace("@NAME@", name).replace("@QUOTED@", quoted).replace("@ENTRYPOINT@", program)
            for file, each in texts.items()}
