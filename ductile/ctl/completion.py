"""`ductilectl completion`, and the hidden command by which shells complete a command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ductile import shipped
from ductile.config.presets import PRESETS
from ductile.ctl import queries, times
from ductile.ctl.commandline import all_parsers
from ductile.ctl.on_disk import runtime
from ductile.ctl.queries import Row
from ductile.ctl.session import Session
from ductile.errors import EXIT_OK, DuctileError, io_exit_code
from ductile.text import one_line

_RECENT = 100
# A prefix of this length is specific enough to search all jobs for it.
_SHORTEST_PREFIX = 4
_ENDED = ("succeeded", "dead", "deduped")
# The jobs that a command is for.
_JOBS = {"retry": ("dead",), "replay": _ENDED, "cancel": ("queued", "waiting", "running")}
# What the shell completes by itself.
_FILES, _DIRECTORIES = ":files", ":dirs"
_PATHS = {"FILE": _FILES, "PATH": _FILES, "DIR": _DIRECTORIES}

Candidates = dict[str, str]


def completion(session: Session, *, shell: str) -> int:
    """Show the completion script for a shell. Raises DuctileError (74) if it is not installed."""
    script = shipped.share() / "contrib" / "completion" / f"ductilectl.{shell}"
    try:
        text = script.read_text("utf-8")
    except OSError as error:
        raise DuctileError(f"{one_line(str(script))}: {error.strerror}; install ductile again",
                           exit_code=io_exit_code(error)) from error
    session.emit({"shell": shell, "script": text}, text)
    return EXIT_OK


def complete(session: Session, *, words: Sequence[str]) -> int:
    """Show what the last word may become, one candidate a line, a tab before its meaning.

    A line of `:files` or `:dirs` says that the shell knows. Raises DuctileError if the configuration or the database is
    needed and cannot be read.
    """
    *before, prefix = words or [""]
    option, is_joined, value = prefix.partition("=")
    if is_joined and option.startswith("-"):
        # As the shells that keep `--option=value` as one word want it back.
        before, prefix = [*before, option], value
    line = _walk([part for word in before for part in _split(word)])
    if line is None:
        return EXIT_OK
    session = replace(session, config_option=line.config and _expanded(line.config, session))
    found = _candidates(session, line, "" if prefix == "=" else prefix)
    head = f"{option}=" if is_joined and option.startswith("-") else ""
    lines = [found] if isinstance(found, str) else [f"{head}{word}\t{one_line(meaning)}".rstrip("\t")
                                                    for word, meaning in found.items()]
    session.out.write("".join(f"{each}\n" for each in lines))
    return EXIT_OK


def _expanded(path: str, session: Session) -> str:
    """Return a path as the shell would expand it: what is being completed is not expanded yet."""
    home = session.environ.get("HOME")
    return home + path[1:] if home and (path == "~" or path.startswith("~/")) else path


def _split(word: str) -> list[str]:
    """Return the words of `--option=value`; an equals sign by itself, as bash has it, is none."""
    if word == "=":
        return []
    return word.split("=", 1) if word.startswith("--") and "=" in word else [word]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """What stands before the word that is completed; `pending` is an option that waits for its value."""

    parser: argparse.ArgumentParser
    commands: Candidates
    command: str | None = None
    arguments: tuple[str, ...] = ()
    pending: argparse.Action | None = None
    config: str | None = None


def _walk(words: Iterable[str]) -> _Line | None:
    """Return what a command line has so far, None if it has an unknown command."""
    top, parsers, meanings = all_parsers()
    line = _Line(parser=top, commands=meanings)
    for word in words:
        if line.pending is not None:
            line = replace(line, config=word if line.pending.dest == "config" else line.config, pending=None)
        elif word.startswith("-") and word != "-":
            action = line.parser._option_string_actions.get(word)
            line = replace(line, pending=action if action is not None and action.nargs is None else None)
        elif line.command is None:
            if word not in parsers:
                return None
            line = replace(line, command=word, parser=parsers[word])
        else:
            line = replace(line, arguments=(*line.arguments, word))
    return line


def _candidates(session: Session, line: _Line, prefix: str) -> Candidates | str:
    if line.pending is not None:
        return _values(session, line, line.pending, prefix)
    if prefix.startswith("-"):
        return _matching({text: action.help or "" for action in line.parser._actions
                          if action.help != argparse.SUPPRESS for text in action.option_strings}, prefix)
    if line.command is None:
        return _matching(line.commands, prefix)
    left = [action for action in line.parser._actions if not action.option_strings][len(line.arguments):]
    return _values(session, line, left[0], prefix) if left else {}


def _values(session: Session, line: _Line, action: argparse.Action, prefix: str) -> Candidates | str:
    """Return what an argument or the value of an option may be."""
    if action.choices is not None:
        return _matching(dict.fromkeys(map(str, action.choices), ""), prefix)
    kind = str(action.metavar)
    if line.command == "test" and kind == "PLUGIN" and os.sep in prefix:
        return _DIRECTORIES
    if kind in _PATHS:
        return _PATHS[kind]
    if kind == "COMMAND":
        return _matching(_commands(session, line.arguments[0]), prefix)
    if kind == "NAME" and (line.command == "pipelines" or action.dest == "pipeline"):
        return _matching({name: f"on {each.on}" if each.on else "called only"
                          for name, each in runtime(session).router.pipelines.items()}, prefix)
    found: Candidates = {}
    if kind == "NAME|PATH" and line.arguments[:1] == ("presets",):
        found |= _matching({name: ", ".join(each.senders) for name, each in PRESETS.items()}, prefix)
    elif kind == "NAME|PATH" and session.config.webhooks is not None:
        found |= _matching({each.path: each.preset or "" for each in session.config.webhooks.endpoints}, prefix)
    if "PLUGIN" in kind:
        found |= _matching({name: "" if each.enabled else "disabled"
                            for name, each in sorted(session.config.plugins.items())}, prefix)
    if "JOB" in kind:
        found |= _jobs(session, _JOBS.get(line.command or ""), prefix.lower())
    return found


def _matching(known: Candidates, prefix: str) -> Candidates:
    return {word: meaning for word, meaning in known.items() if word.startswith(prefix)}


def _commands(session: Session, plugin: str) -> Candidates:
    """Return the commands of a plugin; those of every plugin if it cannot be read."""
    usual = dict.fromkeys(("poll", "handle", "health", "init"), "")
    try:
        known = runtime(session).plugins.get(plugin)
    except DuctileError:
        return usual
    if known is None or known.plugin is None:
        return usual
    return {name: each.description for name, each in known.plugin.manifest.commands.items()}


def _jobs(session: Session, wanted: Sequence[str] | None, prefix: str) -> Candidates:
    """Return the ids of recent jobs, and with a longer prefix those of any job."""
    with session.database() as conn:
        if conn is None:
            return {}
        found = [row for row in (*queries.open_jobs(conn, _RECENT), *queries.ended_jobs(conn, _RECENT))
                 if row["job_id"].startswith(prefix)]
        if len(prefix) >= _SHORTEST_PREFIX:
            found += queries.jobs_with_prefix(conn, prefix, _RECENT)
    return {row["job_id"]: _meaning(session, row) for row in found
            if wanted is None or queries.status_of(row) in wanted}


def _meaning(session: Session, job: Row) -> str:
    at = job["completed_at"] or job["created_at"]
    return f"{job['plugin']} {job['command']} {queries.status_of(job)} {times.relative(at, session.now())}"
