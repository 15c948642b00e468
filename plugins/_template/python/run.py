#!/usr/bin/env python3
"""PLUGIN_NAME: reads one request on standard input, writes one response to standard output, and exits."""

from ductile_plugin import Permanent, log, main

# ductile_plugin.py beside this file has more: HTTP requests with a deadline, templates, errors that are retried.
# ductile-plugin(7) describes it.


def respond(request):
    """Return the response to a request. Raise Retry or Permanent for a failure."""
    command = COMMANDS.get(request["command"])
    if command is None:
        raise Permanent(f"no command {request['command']}")
    return command(request)


def poll(request):
    """Report what has happened since the last run."""
    runs = request["state"].get("runs", 0) + 1
    greeting = request["config"].get("greeting", "Hello")
    # A line for `ductilectl logs`. Messages for people can also go to standard error.
    log(f"this is run {runs}")
    return {
        "status": "ok",
        "result": f"{greeting}: run {runs}",
        # What happened, for routes and pipelines. Only the events of a successful run count. An event whose
        # "dedupe_key" has succeeded before is dropped.
        "events": [{"type": "PLUGIN_NAME.polled", "payload": {"runs": runs}}],
        # What to remember. The next run finds it under "state", even if this one fails.
        "state_updates": {"runs": runs},
    }


def handle(request):
    """Process one event: {"type": ..., "payload": ..., "source": ...}.

    The same event may come again, after a crash for example: make sure that a second run does no harm.
    """
    event = request.get("event")
    if event is None:
        raise Permanent("handle needs an event")
    # The working directory, request["workspace_dir"], belongs to this job: the next step of a pipeline gets the files
    # that a successful run leaves in it.
    return {"status": "ok", "result": f"handled {event['type']}"}


def health(request):
    """Report whether the plugin works; change nothing."""
    return {"status": "ok", "result": "works"}


COMMANDS = {"poll": poll, "handle": handle, "health": health}

if __name__ == "__main__":
    main(respond)
