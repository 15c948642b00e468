"""`ductilectl test`: a plugin run outside the queue and the database, and everything that can be said of the run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from io import TextIOBase
from pathlib import Path
from typing import Any, BinaryIO

from ductile import submit
from ductile.clock import Clock
from ductile.config.load import load
from ductile.config.model import PluginConfig
from ductile.config.variables import at
from ductile.ctl import protocol_report, run_once, table
from ductile.ctl.inputs import CLI_SOURCE, STDIN, as_object, place, read_json
from ductile.ctl.lookup import configured, read, shown
from ductile.ctl.output import document, progress
from ductile.ctl.run import DEFAULT_TYPE
from ductile.ctl.run_once import Input, RunResult
from ductile.ctl.state import read as read_state
from ductile.dispatch.outcome import Outcome, Refused, Succeeded, log_status, retryable
from ductile.errors import EXIT_DATA, EXIT_FAILED, EXIT_NOT_FOUND, EXIT_OK, EXIT_USAGE, DuctileError
from ductile.injected import NewId
from ductile.plugin.discovery import MANIFEST, ConfiguredPlugin, Registry, bind, look_at
from ductile.protocol import HANDLE, INIT, POLL, ProtocolError, parse_response
from ductile.state.merge import check_size, merge
from ductile.text import one_line
from ductile.units import format_size
from ductile.validation import nearest

_INDENT = "    "
# The whole list is for `--json`.
_MOST_LINES = 20
_PATH_LIMIT = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A plugin to be tested. `authored` is its `config` as it stands in the file, with `${NAME}` for secrets."""

    plugin: ConfiguredPlugin
    authored: Any
    environ: Mapping[str, str]


def is_directory(name: str) -> bool:
    """Say whether the operator means a plugin's directory and not a plugin that is configured."""
    return os.sep in name or name in (os.curdir, os.pardir)


def in_directory(directory: Path, environ: Mapping[str, str]) -> Subject:
    """Return the plugin in a directory, which need not be configured: its `config` is empty.

    Raises DuctileError: 66 where there is none, 1 where it cannot be loaded.
    """
    found = look_at(directory)
    if found is None:
        raise DuctileError(f"no plugin in {one_line(str(directory))}: there is no {MANIFEST}",
                           exit_code=EXIT_NOT_FOUND)
    plugin = bind(PluginConfig(name=found.name, uses=found.name), Registry(found=(found,), missing=()))
    return _loaded(Subject(plugin=plugin, authored={}, environ=environ))


def in_configuration(path: Path, environ: Mapping[str, str], name: str) -> Subject:
    """Return a plugin of a configuration, whose variables are resolved.

    Raises DuctileError: 78 with every problem, 66 for one that is not configured, 1 where it cannot be loaded.
    """
    runtime = read(path, environ, keep_unset=False).runtime
    plugin = configured(runtime, name)
    written = load(path, environ).document.value
    return _loaded(Subject(plugin=plugin, authored=at(written, ("plugins", name, "config")) or {},
                           environ=runtime.environ))


def _loaded(subject: Subject) -> Subject:
    if subject.plugin.plugin is None:
        raise DuctileError(f"plugin {subject.plugin.settings.name} is not loaded: {subject.plugin.reason}",
                           exit_code=EXIT_FAILED)
    return subject


def test_plugin(subject: Subject, asked: TestInput, *, clock: Clock, new_id: NewId, as_json: bool, out: TextIOBase,
          err: TextIOBase) -> int:
    """Run one command of a plugin and show the request, the response and all that is wrong; 1 unless it succeeds.

    Nothing is stored. Raises DuctileError (66) for a command that the plugin does not have.
    """
    name, command = subject.plugin.settings.name, asked.command
    _require_command(subject.plugin, command)
    seconds = subject.plugin.settings.timeout(command)
    with progress(f"{name} {one_line(command)} runs, for {seconds} s at most", err):
        ran = run_once.run(subject.plugin, command, asked.told, environ=subject.environ, clock=clock, job_id=new_id())
    outcome = _judged(ran.outcome, asked.told.state)
    row = _row(subject, command, ran, outcome)
    out.write(document(row) if as_json else "".join(_text(row)))
    return EXIT_OK if isinstance(outcome, Succeeded) else EXIT_FAILED


def _require_command(plugin: ConfiguredPlugin, command: str) -> None:
    known = plugin.plugin.manifest.commands
    if command not in known:
        hint = nearest(command, known) or f" (it has {', '.join(known)})"
        raise DuctileError(f"plugin {plugin.settings.name} has no command {shown(command)}{hint}",
                           exit_code=EXIT_NOT_FOUND)


def _judged(outcome: Outcome, state: Mapping[str, Any]) -> Outcome:
    """Return the outcome, or what the daemon would make of a success whose state is too large."""
    if not isinstance(outcome, Succeeded):
        return outcome
    fault = check_size(merge(state, outcome.response.state_updates))
    if fault is None:
        return outcome
    return Refused(error=fault, response=outcome.response, exit_code=outcome.exit_code, stderr=outcome.stderr)


def _row(subject: Subject, command: str, ran: RunResult, outcome: Outcome) -> dict:
    raw, wrong = _answer(ran)
    request = json.loads(ran.request)
    return {
        "plugin": subject.plugin.settings.name, "command": command, "outcome": log_status(outcome),
        "retried": retryable(outcome) and command != INIT, "error": outcome.error,
        "seconds": ran.seconds, "exit_code": ran.facts.exit_code, "signal": ran.facts.signal,
        "request": {**request, "config": subject.authored}, "response": raw,
        "printed": outcome.printed, "faults": wrong, "ignored": [] if raw is None else protocol_report.ignored(raw),
        "stderr": outcome.stderr, "files": [asdict(each) for each in ran.left],
    }


def _answer(ran: RunResult) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the object that was printed, None where there is none, and every fault of the protocol."""
    if ran.facts.could_not_start is not None or ran.facts.stdout_overflowed:
        return None, []
    try:
        raw = parse_response(ran.facts.stdout)
    except ProtocolError as error:
        return None, [str(error)]
    return raw, protocol_report.faults(raw)


def _text(row: dict) -> Iterator[str]:
    """Yield what the operator reads, the outcome last."""
    yield f"request:\n{_indented(row['request'])}"
    if row["response"] is not None:
        yield f"response:\n{_indented(row['response'])}"
    elif row["printed"]:
        yield f"printed:\n{table.block(row['printed'], _INDENT)}"
    yield from _list("protocol faults", row["faults"])
    yield from _list("ignored", row["ignored"])
    if row["stderr"]:
        yield f"stderr:\n{table.block(row['stderr'], _INDENT)}"
    yield from _list("left in the workspace", [_file(each) for each in row["files"]])
    yield _ending(row) + "\n"


def _indented(value: object) -> str:
    return "".join(f"{_INDENT}{line}\n" for line in document(value).splitlines())


def _list(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield f"{title}:\n"
        yield from (f"{_INDENT}{line}\n" for line in lines[:_MOST_LINES])
    if len(lines) > _MOST_LINES:
        yield f"{_INDENT}and {len(lines) - _MOST_LINES:,} more\n"


def _file(left: dict) -> str:
    name = one_line(left["path"], _PATH_LIMIT)
    if left["kind"] == "file":
        return f"{name}  {format_size(left['size'])}"
    return f"{name}  (link)" if left["kind"] == "link" else f"{name}  (no file: a job does not keep it)"


def _ending(row: dict) -> str:
    text = f"{row['plugin']} {row['command']}: {row['outcome']} after {row['seconds']:.3f} s"
    if row["exit_code"] is not None:
        text += f", exit code {row['exit_code']}"
    if row["error"]:
        text += f": {table.cell(row['error'])}"
    return f"{text} (the daemon would try again)" if row["retried"] else text


_EVENT_KEYS = ("type", "payload", "source", "timestamp", "event_id", "dedupe_key", "http")


@dataclass(frozen=True, slots=True, kw_only=True)
class TestInput:
    """What is asked of the plugin."""

    command: str
    told: Input


def read_request(*, command: str | None, request: str | None, event: str | None, state: str | None, stdin: BinaryIO,
         now: datetime, new_id: NewId) -> TestInput:
    """Return what the files of these names say, `-` being standard input.

    The command is the given one, else the request's, else `handle` with an event and `poll` without. An event and a
    state take the place of the request's. Raises DuctileError: 77 or 74 where one cannot be read, 65 where it is not
    what it should be, 64 where two are to come from standard input.
    """
    if [request, event, state].count(STDIN) > 1:
        raise DuctileError("ductilectl test: only one of --request, --event and --state can be standard input (-)",
                           exit_code=EXIT_USAGE)
    captured = Input()
    if request is not None:
        found = _request(read_json(request, stdin), place(request))
        captured = _told(found, place(request), now, new_id)
        command = command or _command(found, place(request))
    if event is not None:
        captured = replace(captured, event=_event(read_json(event, stdin), place(event), now, new_id))
    if state is not None:
        captured = replace(captured, state=read_state(state, stdin))
    return TestInput(command=command or (POLL if captured.event is None else HANDLE), told=captured)


def _request(value: Any, where: str) -> Mapping[str, Any]:
    """Return the request that an object is, or has: `test --json` shows it beside the response."""
    found = as_object(value, where)
    return as_object(found["request"], f"{where}: request") if "request" in found else found


def _told(request: Mapping[str, Any], where: str, now: datetime, new_id: NewId) -> Input:
    event = request.get("event")
    if event is not None:
        as_object(event, f"{where}: event")
        if "type" not in event:
            raise DuctileError(f"{where}: event: the key 'type' is missing", exit_code=EXIT_DATA)
        event = _event(event, f"{where}: event", now, new_id)
    return Input(event=event, state=as_object(request.get("state", {}), f"{where}: state"),
                context=as_object(request.get("context", {}), f"{where}: context"))


def _command(request: Mapping[str, Any], where: str) -> str:
    command = request.get("command")
    if not isinstance(command, str):
        raise DuctileError(f"{where}: no request: the key 'command' is missing, or is no text", exit_code=EXIT_DATA)
    return command


def _event(value: Any, where: str, now: datetime, new_id: NewId) -> Mapping[str, Any]:
    """Return an event with all that the core gives it; what has no `type` is the payload of one."""
    if not isinstance(value, dict) or "type" not in value:
        return submit.new_event(DEFAULT_TYPE, value, CLI_SOURCE, new_id=new_id, now=now)
    if not isinstance(value["type"], str) or not value["type"]:
        raise DuctileError(f"{where}: type: expected a string, for what has a 'type' is read as an event",
                           exit_code=EXIT_DATA)
    unknown = [key for key in value if key not in _EVENT_KEYS]
    if unknown:
        raise DuctileError(
            f"{where}: what has a 'type' is read as an event, and an event has no key {unknown[0]!a}; if it is a"
            f" payload, give it as {{\"type\": \"{DEFAULT_TYPE}\", \"payload\": …}}", exit_code=EXIT_DATA)
    return {**submit.new_event(value["type"], {}, CLI_SOURCE, new_id=new_id, now=now), **value}
