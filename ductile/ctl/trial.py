"""`ductilectl test`: a plugin run outside the queue and the database, and everything that can be said of the run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from io import TextIOBase
from pathlib import Path
from typing import Any

from ductile.chance import NewId
from ductile.check import nearest
from ductile.clock import Clock
from ductile.config.load import load
from ductile.config.schema import PluginConfig
from ductile.config.variables import at
from ductile.ctl import faults, scratch, table
from ductile.ctl.configured import configured, read, shown
from ductile.ctl.document import document
from ductile.ctl.progress import progress
from ductile.ctl.scratch import Ran
from ductile.ctl.told import Asked
from ductile.dispatch.outcome import Outcome, Refused, Succeeded, log_status, retryable
from ductile.errors import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_OK, DuctileError
from ductile.plugin.configured import ConfiguredPlugin, bind
from ductile.plugin.discovery import MANIFEST, Registry, look_at
from ductile.protocol import INIT, ProtocolError, parse_response
from ductile.state.merge import check_size, merge
from ductile.text import one_line
from ductile.units import format_size

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
    world = read(path, environ, keep_unset=False).world
    plugin = configured(world, name)
    written = load(path, environ).document.value
    return _loaded(Subject(plugin=plugin, authored=at(written, ("plugins", name, "config")) or {},
                           environ=world.environ))


def _loaded(subject: Subject) -> Subject:
    if subject.plugin.plugin is None:
        raise DuctileError(f"plugin {subject.plugin.settings.name} is not loaded: {subject.plugin.reason}",
                           exit_code=EXIT_FAILED)
    return subject


def trial(subject: Subject, asked: Asked, *, clock: Clock, new_id: NewId, as_json: bool, out: TextIOBase,
          err: TextIOBase) -> int:
    """Run one command of a plugin and show the request, the response and all that is wrong; 1 unless it succeeds.

    Nothing is stored. Raises DuctileError (66) for a command that the plugin does not have.
    """
    name, command = subject.plugin.settings.name, asked.command
    _require_command(subject.plugin, command)
    seconds = subject.plugin.settings.timeout(command)
    with progress(f"{name} {one_line(command)} runs, for {seconds} s at most", err):
        ran = scratch.run(subject.plugin, command, asked.told, environ=subject.environ, clock=clock, job_id=new_id())
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


def _row(subject: Subject, command: str, ran: Ran, outcome: Outcome) -> dict:
    raw, wrong = _answer(ran)
    request = json.loads(ran.request)
    return {
        "plugin": subject.plugin.settings.name, "command": command, "outcome": log_status(outcome),
        "retried": retryable(outcome) and command != INIT, "error": outcome.error,
        "seconds": ran.seconds, "exit_code": ran.facts.exit_code, "signal": ran.facts.signal,
        "request": {**request, "config": subject.authored}, "response": raw,
        "printed": outcome.printed, "faults": wrong, "ignored": [] if raw is None else faults.ignored(raw),
        "stderr": outcome.stderr, "files": [asdict(each) for each in ran.left],
    }


def _answer(ran: Ran) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the object that was printed, None where there is none, and every fault of the protocol."""
    if ran.facts.could_not_start is not None or ran.facts.stdout_overflowed:
        return None, []
    try:
        raw = parse_response(ran.facts.stdout)
    except ProtocolError as error:
        return None, [str(error)]
    return raw, faults.faults(raw)


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
