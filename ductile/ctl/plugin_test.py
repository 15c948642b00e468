"""`ductilectl test`: run a plugin outside the queue and the database, and show everything about the run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ductile import submit
from ductile.config.load import load as load_config
from ductile.config.model import PluginConfig
from ductile.config.variables import at
from ductile.ctl import protocol_report, run_once, table
from ductile.ctl.inputs import CLI_SOURCE, STDIN, as_object, label, read_json
from ductile.ctl.lookup import quoted
from ductile.ctl.on_disk import configured, load
from ductile.ctl.run import DEFAULT_TYPE
from ductile.ctl.run_once import Input, RunResult
from ductile.ctl.session import Session
from ductile.ctl.state import read_state
from ductile.dispatch.outcome import Outcome, Refused, Succeeded, log_status, retryable
from ductile.errors import EXIT_DATA, EXIT_FAILED, EXIT_NOT_FOUND, EXIT_OK, EXIT_USAGE, DuctileError
from ductile.plugin.discovery import MANIFEST, ConfiguredPlugin, Registry, bind, look_at
from ductile.plugin.manifest import Manifest
from ductile.protocol import HANDLE, INIT, POLL, ProtocolError, parse_response
from ductile.state.merge import check_size, merge
from ductile.text import one_line
from ductile.units import format_size
from ductile.validation import nearest

_INDENT = "    "
# The whole list is in the output of `--json`.
_MOST_LINES = 20
_PATH_LIMIT = 160


def test(session: Session, *, plugin: str, command: str | None, request: str | None, event: str | None,
         state: str | None) -> int:
    """Run one command of a plugin and show the request, the response and every fault; return 1 unless it succeeds.

    `plugin` is a configured one, or a directory if there is a `/` in it; `request`, `event` and `state` are names of
    files, `-` for standard input. Nothing is stored. Raises DuctileError: 66 for a plugin or a command that there is
    not, 1 for a plugin that cannot be loaded, 78 with every problem of the configuration, and as `_inputs` does.
    """
    asked, given = _inputs(session, command, request, event, state)
    subject = _in_directory(session, Path(plugin)) if _is_directory(plugin) else _in_configuration(session, plugin)
    manifest = _manifest(subject.plugin)
    _require_command(manifest, subject.plugin.settings.name, asked)
    ran = run_once.run(session, subject.plugin, asked, given, environ=subject.environ)
    outcome = _judged(ran.outcome, given.state)
    row = _row(subject, asked, ran, outcome)
    session.emit(row, "".join(_text(row)))
    return EXIT_OK if isinstance(outcome, Succeeded) else EXIT_FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """A plugin to test. `authored` is its `config` as in the file, with `${NAME}` for secrets."""

    plugin: ConfiguredPlugin
    authored: Any
    environ: Mapping[str, str]


def _is_directory(name: str) -> bool:
    return os.sep in name or name in (os.curdir, os.pardir)


def _in_directory(session: Session, directory: Path) -> _Subject:
    """Return the plugin in a directory, which need not be configured: its `config` is empty."""
    found = look_at(directory)
    if found is None:
        raise DuctileError(f"no plugin in {one_line(str(directory))}: there is no {MANIFEST}",
                           exit_code=EXIT_NOT_FOUND)
    plugin = bind(PluginConfig(name=found.name, uses=found.name), Registry(found=(found,), missing=()))
    return _Subject(plugin=plugin, authored={}, environ=session.environ)


def _in_configuration(session: Session, name: str) -> _Subject:
    """Return a plugin of the configuration, whose variables are resolved."""
    known = load(session, keep_unset=False).runtime
    plugin = configured(known, name)
    written = load_config(session.config_path, session.environ).document.value
    return _Subject(plugin=plugin, authored=at(written, ("plugins", name, "config")) or {}, environ=known.environ)


def _manifest(plugin: ConfiguredPlugin) -> Manifest:
    if plugin.plugin is None:
        raise DuctileError(f"plugin {plugin.settings.name} is not loaded: {plugin.reason}", exit_code=EXIT_FAILED)
    return plugin.plugin.manifest


def _require_command(manifest: Manifest, name: str, command: str) -> None:
    if command not in manifest.commands:
        hint = nearest(command, manifest.commands) or f" (it has {', '.join(manifest.commands)})"
        raise DuctileError(f"plugin {name} has no command {quoted(command)}{hint}", exit_code=EXIT_NOT_FOUND)


def _judged(outcome: Outcome, state: Mapping[str, Any]) -> Outcome:
    """Return the outcome; a success whose state would be too large is a failure, as in the daemon."""
    if not isinstance(outcome, Succeeded) or outcome.response is None:
        return outcome
    fault = check_size(merge(state, outcome.response.state_updates))
    if fault is None:
        return outcome
    return Refused(error=fault, response=outcome.response, exit_code=outcome.exit_code, stderr=outcome.stderr)


def _row(subject: _Subject, command: str, ran: RunResult, outcome: Outcome) -> dict[str, Any]:
    raw, faults = _response(ran)
    request = json.loads(ran.request)
    return {
        "plugin": subject.plugin.settings.name, "command": command, "outcome": log_status(outcome),
        "retried": retryable(outcome) and command != INIT, "error": outcome.error,
        "seconds": ran.seconds, "exit_code": ran.facts.exit_code, "signal": ran.facts.signal,
        "request": {**request, "config": subject.authored}, "response": raw,
        "printed": outcome.printed, "faults": faults, "ignored": [] if raw is None else protocol_report.ignored(raw),
        "stderr": outcome.stderr, "files": [asdict(each) for each in ran.left],
    }


def _response(ran: RunResult) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the object that was printed, None if there is none, and every fault of the protocol."""
    if ran.facts.could_not_start is not None or ran.facts.stdout_overflowed:
        return None, []
    try:
        raw = parse_response(ran.facts.stdout)
    except ProtocolError as error:
        return None, [str(error)]
    return raw, protocol_report.faults(raw)


def _text(row: dict[str, Any]) -> Iterator[str]:
    """Yield the text for the operator, the outcome last."""
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
    return "".join(f"{_INDENT}{line}\n" for line in json.dumps(value, indent=2).splitlines())


def _list(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield f"{title}:\n"
        yield from (f"{_INDENT}{line}\n" for line in lines[:_MOST_LINES])
    if len(lines) > _MOST_LINES:
        yield f"{_INDENT}and {len(lines) - _MOST_LINES:,} more\n"


def _file(left: dict[str, Any]) -> str:
    name = one_line(left["path"], _PATH_LIMIT)
    if left["kind"] == "file":
        return f"{name}  {format_size(left['size'])}"
    return f"{name}  (link)" if left["kind"] == "link" else f"{name}  (not a file: a job does not keep it)"


def _ending(row: dict[str, Any]) -> str:
    text = f"{row['plugin']} {row['command']}: {row['outcome']} after {row['seconds']:.3f} s"
    if row["exit_code"] is not None:
        text += f", exit code {row['exit_code']}"
    if row["error"]:
        text += f": {table.cell(row['error'])}"
    return f"{text} (the daemon would retry)" if row["retried"] else text


_EVENT_KEYS = ("type", "payload", "source", "timestamp", "event_id", "dedupe_key", "http")


def _inputs(session: Session, command: str | None, request: str | None, event: str | None,
            state: str | None) -> tuple[str, Input]:
    """Return the command to run and its input.

    The command is the given one, else that of the request, else `handle` with an event and `poll` without. An event and
    a state replace those of the request. Raises DuctileError as `read_json` does, 65 for a file with the wrong
    content, 64 if more than one is to come from standard input.
    """
    if [request, event, state].count(STDIN) > 1:
        raise DuctileError("ductilectl test: only one of --request, --event and --state can be standard input (-)",
                           exit_code=EXIT_USAGE)
    given = Input()
    if request is not None:
        found = _request(read_json(request, session.stdin), label(request))
        given = _input_of(session, found, label(request))
        command = command or _command(found, label(request))
    if event is not None:
        given = replace(given, event=_event(session, read_json(event, session.stdin), label(event)))
    if state is not None:
        given = replace(given, state=read_state(state, session.stdin))
    return command or (POLL if given.event is None else HANDLE), given


def _request(value: Any, where: str) -> Mapping[str, Any]:
    """Return the request in the output of `test --json`, or the object itself."""
    found = as_object(value, where)
    return as_object(found["request"], f"{where}: request") if "request" in found else found


def _input_of(session: Session, request: Mapping[str, Any], where: str) -> Input:
    event = request.get("event")
    if event is not None:
        as_object(event, f"{where}: event")
        if "type" not in event:
            raise DuctileError(f"{where}: event: the key 'type' is missing", exit_code=EXIT_DATA)
        event = _event(session, event, f"{where}: event")
    return Input(event=event, state=as_object(request.get("state", {}), f"{where}: state"),
                context=as_object(request.get("context", {}), f"{where}: context"))


def _command(request: Mapping[str, Any], where: str) -> str:
    command = request.get("command")
    if not isinstance(command, str):
        raise DuctileError(f"{where}: not a request: the key 'command' is missing or is not a string",
                           exit_code=EXIT_DATA)
    return command


def _event(session: Session, value: Any, where: str) -> Mapping[str, Any]:
    """Return an event with every key that the core adds; an object without `type` is the payload of one."""
    now, new_id = session.now(), session.new_id
    if not isinstance(value, dict) or "type" not in value:
        return submit.new_event(DEFAULT_TYPE, value, CLI_SOURCE, new_id=new_id, now=now)
    if not isinstance(value["type"], str) or not value["type"]:
        raise DuctileError(f"{where}: type: expected a string, because an object with a 'type' is read as an event",
                           exit_code=EXIT_DATA)
    unknown = [key for key in value if key not in _EVENT_KEYS]
    if unknown:
        raise DuctileError(
            f"{where}: an object with a 'type' is read as an event, and an event has no key {unknown[0]!a}; give a"
            f" payload as {{\"type\": \"{DEFAULT_TYPE}\", \"payload\": …}}", exit_code=EXIT_DATA)
    return {**submit.new_event(value["type"], {}, CLI_SOURCE, new_id=new_id, now=now), **value}
