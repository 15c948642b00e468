"""The view state of `monitor`: the pane, the chosen job, the filter, the question; and what each key does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from typing import Any

from ductile.ctl import table
from ductile.ctl.monitor import tree

QUEUE, RECENT, PLUGINS, CHAIN = PANES = ("queue", "recent", "plugins", "chain")

_FILTER_LIMIT = 60
_FAR = 1_000_000_000
_SEARCHED = ("job_id", "plugin", "command", "status", "last_error", "last_outcome", "held")
_STEPS = {"up": -1, "k": -1, "down": 1, "j": 1, "home": -_FAR, "end": _FAR}
_OF_A_JOB = {"t": "retry", "P": "replay", "c": "cancel"}
# Ending a plugin may take ten seconds, and the screen must not stand still for so long.
_OPTIONS = {"cancel": ("--no-wait",)}
_OF_A_PLUGIN = {"r": "run", "R": "reset", "p": "pause", "x": "run", "l": "show logs of"}
_FAILED_OUTCOMES = ("failed", "timed_out", "orphaned")
_LOGGED = 50     # attempts that `l` shows
_COMMAND_RUN = "poll"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the database and the daemon said at one moment.

    `status` is what `status --json` shows; `open` and `ended` come from `queries`, `chain` from `chain.glance`;
    `timeouts` are the seconds that an attempt may take, by job, as far as they are known. `activity` is, by plugin, how
    many attempts ended in each of the last 24 hours and how many of them failed. `zone` is where people are; None is
    the system's.
    """

    now: datetime
    status: Mapping[str, Any]
    open: Sequence[Mapping[str, Any]]
    ended: Sequence[Mapping[str, Any]]
    chain: Mapping[str, Any] | None = None
    timeouts: Mapping[str, int] = field(default_factory=dict)
    activity: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)
    zone: tzinfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """A text over the whole screen: what these command lines print. `line` is its first line that is shown.

    `job` is the job that it is about, if it is one.
    """

    title: str
    commands: tuple[tuple[str, ...], ...]
    job: str | None = None
    lines: tuple[str, ...] = ()
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A confirmation, and the command line that runs after `y`."""

    text: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a command printed. `job` is the job that the daemon is still ending for it, if there is one."""

    text: str
    good: bool
    job: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is chosen, filtered and asked.

    `job` is None until the operator chooses one: the running job, or the one that ended last, is shown then. `line` is
    the cursor in the chain, None while it is on that job. `places` are the rows where the cursor was, by pane.
    """

    focus: str = QUEUE
    job: str | None = None
    plugin: str | None = None
    line: int | None = None
    places: Mapping[str, int] = field(default_factory=dict)
    filter: str = ""
    typing: bool = False
    failed: bool = False
    command: str | None = None       # the name of a command that is being typed, None where none is
    paper: Paper | None = None
    question: Question | None = None
    message: Message | None = None
    help_line: int | None = None     # the first line of the help that is shown, None where none is
    ended: bool = False


def rows(view: State, sight: Snapshot, pane: str) -> list[Mapping[str, Any]]:
    """Return the rows that match the filter, of any pane except the chain."""
    found = {QUEUE: sight.open, RECENT: sight.ended, PLUGINS: sight.status["plugins"]}[pane]
    wanted = view.filter.casefold()
    if view.failed:
        found = [row for row in found if is_failed(row)]
    if pane == PLUGINS:
        found = sorted(found, key=lambda row: (not row["enabled"], not is_failed(row)))
    return [row for row in found if wanted in " ".join(str(row.get(name) or "") for name in _SEARCHED).casefold()]


def is_failed(row: Mapping[str, Any]) -> bool:
    """Return whether a job has failed, waits for its next attempt or, for a plugin, needs a look."""
    if "last_outcome" in row:
        return bool(row["enabled"] and (row["held"] or row["last_outcome"] in _FAILED_OUTCOMES))
    return row["status"] == "dead" or row["next_retry_at"] is not None


def chosen_job(view: State, sight: Snapshot) -> str | None:
    """Return the id of the job whose chain is shown: the chosen one, else one that runs, ended last or waits."""
    if view.job is not None:
        return view.job
    running = [row for row in sight.open if row["status"] == "running"]
    return next((row["job_id"] for row in [*running, *sight.ended, *sight.open]), None)


def cursor(view: State, sight: Snapshot, pane: str) -> int | None:
    """Return the number of the chosen row of a pane, None if there is none."""
    if pane == CHAIN:
        lines = tree.entries(sight.chain, sight.now)
        line = tree.line_of(lines, chosen_job(view, sight)) if view.line is None else view.line
        return min(line, len(lines) - 1) if lines else None
    found = rows(view, sight, pane)
    if pane == PLUGINS:
        names = [row["plugin"] for row in found]
        return names.index(view.plugin) if view.plugin in names else 0 if names else None
    wanted = chosen_job(view, sight)
    return next((number for number, row in enumerate(found) if row["job_id"] == wanted), None)


def settled(view: State, sight: Snapshot) -> State:
    """Return the view with the end of the job that is being cancelled, once that is known."""
    if view.message is None or view.message.job is None:
        return view
    job = _job_row(sight, view.message.job)
    if job is None or (job["status"] == "running" and sight.status["daemon"]["running"]):
        return view
    if job["status"] == "succeeded":
        return _say(view, f"cancel: job {job['job_id']} had already succeeded")
    if job["status"] == "dead":
        return replace(view, message=Message(text=f"cancel: job {job['job_id']} is cancelled", good=True))
    return _say(view, f"cancel: job {job['job_id']} will be cancelled when ductiled starts")


def press(view: State, key: str, sight: Snapshot, *, page: int) -> tuple[State, tuple[str, ...] | None]:
    """Return the view after a key, and the command line to run, if any.

    A key is a character or `up down pgup pgdn home end tab backtab enter esc backspace`; a page has so many rows.
    """
    if view.question is not None:
        asked = view.question
        view = replace(view, question=None)
        if key not in ("y", "Y"):
            return _say(view, "nothing was changed"), None
        if asked.arguments[0] in _OF_A_JOB.values():
            # The job moves to another pane: keep it chosen.
            view = replace(view, job=chosen_job(view, sight))
        return view, asked.arguments
    if view.typing:
        return _typed(view, key), None
    if view.command is not None:
        return _command_typed(view, key, sight), None
    if view.message is not None and view.message.job is None:
        view = replace(view, message=None)
    if view.paper is not None:
        return _read_paper(view, view.paper, key, page), None
    if view.help_line is not None:
        return _read_help(view, key, page), None
    steps = {**_STEPS, "pgup": -page, "pgdn": page}
    if key in steps:
        return _moved(view, sight, steps[key]), None
    if key in _OF_A_JOB or key in _OF_A_PLUGIN:
        return _asked(view, key, sight), None
    return _changed(view, key, sight), None


def _changed(view: State, key: str, sight: Snapshot) -> State:
    """Return the view after a key that neither moves the cursor nor asks."""
    if key == "q":
        return replace(view, ended=True)
    if key == "?":
        return replace(view, help_line=0)
    if key == "/":
        return replace(view, typing=True)
    if key in ("tab", "backtab"):
        step = 1 if key == "tab" else -1
        return _entered(replace(view, focus=PANES[(PANES.index(view.focus) + step) % len(PANES)]), sight)
    if key == "f":
        return replace(view, failed=not view.failed)
    if key == "enter":
        return _opened(view, sight)
    if key == "esc":
        return replace(view, filter="", failed=False, job=None, line=None)
    return view


def _opened(view: State, sight: Snapshot) -> State:
    """Return the view with a job open: its chain, its events and baggage, and the output of all its attempts."""
    job_id = _target_job(view, sight)
    if view.focus == CHAIN:
        view = replace(view, job=job_id, line=None)
    if view.focus == PLUGINS:
        number = cursor(view, sight, PLUGINS)
        job_id = None if number is None else rows(view, sight, PLUGINS)[number]["last_job_id"]
    if job_id is None:
        return _say(view, "there is no job to open")
    return replace(view, paper=Paper(title=f"job {table.short(job_id)}", job=job_id,
                                     commands=(("inspect", job_id), ("logs", job_id))))


def _read_paper(view: State, paper: Paper, key: str, page: int) -> State:
    steps = {**_STEPS, "pgup": -page, "pgdn": page, " ": page}
    if key not in steps:
        return replace(view, paper=None)
    return replace(view, paper=replace(paper, line=max(0, min(paper.line + steps[key], len(paper.lines) - page))))


def _command_typed(view: State, key: str, sight: Snapshot) -> State:
    """Return the view after a key while the name of a command is typed."""
    name = view.command or ""
    if key == "enter" and name:
        plugin = _plugin(view, sight)
        return replace(view, command=None, question=None if plugin is None else Question(
            text=f"run {plugin} {name}", arguments=("run", plugin, name)))
    if key in ("enter", "esc"):
        return replace(view, command=None)
    if key == "backspace":
        return replace(view, command=name[:-1])
    if len(key) == 1 and (key.isalnum() or key in "-_") and key.isascii():
        return replace(view, command=(name + key)[:_FILTER_LIMIT])
    return view


def _typed(view: State, key: str) -> State:
    if key == "enter":
        return replace(view, typing=False)
    if key == "esc":
        return replace(view, typing=False, filter="")
    if key == "backspace":
        return replace(view, filter=view.filter[:-1])
    if len(key) == 1 and key.isprintable():
        return replace(view, filter=(view.filter + key)[:_FILTER_LIMIT])
    return view


def _read_help(view: State, key: str, page: int) -> State:
    steps = {**_STEPS, "pgup": -page, "pgdn": page}
    if key not in steps or view.help_line is None:
        return replace(view, help_line=None)
    return replace(view, help_line=max(0, min(view.help_line + steps[key], len(HELP) - page)))


def _entered(view: State, sight: Snapshot) -> State:
    """Return the view with a row chosen in a pane of jobs that was just entered."""
    if view.focus in (QUEUE, RECENT) and cursor(view, sight, view.focus) is None:
        return _at(view, sight, view.places.get(view.focus, 0))
    return view


def _moved(view: State, sight: Snapshot, step: int) -> State:
    now_at = cursor(view, sight, view.focus)
    if now_at is None:
        # The chosen row has left this pane: the first move goes to the row now in its place.
        return _at(view, sight, view.places.get(view.focus, 0))
    return _at(view, sight, now_at + step)


def _at(view: State, sight: Snapshot, number: int) -> State:
    """Return the view with this row of its pane chosen, or the nearest one."""
    if view.focus == CHAIN:
        most = len(tree.entries(sight.chain, sight.now)) - 1
        return replace(view, line=max(0, min(number, most)))
    found = rows(view, sight, view.focus)
    if not found:
        return view
    number = max(0, min(number, len(found) - 1))
    view = replace(view, places={**view.places, view.focus: number})
    if view.focus == PLUGINS:
        return replace(view, plugin=found[number]["plugin"])
    return replace(view, job=found[number]["job_id"], line=None)


def _target_job(view: State, sight: Snapshot) -> str | None:
    """Return the id of the job that a key is for: in the chain, the one under the cursor."""
    number = cursor(view, sight, CHAIN) if view.focus == CHAIN else None
    return chosen_job(view, sight) if number is None else tree.entries(sight.chain, sight.now)[number].job_id


def _job_row(sight: Snapshot, job_id: str | None) -> Mapping[str, Any] | None:
    known = [*sight.open, *sight.ended, *(sight.chain["jobs"] if sight.chain else [])]
    return next((row for row in known if row["job_id"] == job_id), None)


def _asked(view: State, key: str, sight: Snapshot) -> State:
    """Return the view with a question, to be answered before anything changes."""
    job = _job_row(sight, _target_job(view, sight))
    if key in _OF_A_JOB:
        if job is None:
            return _say(view, f"there is no job to {_OF_A_JOB[key]}")
        text = f"{_OF_A_JOB[key]} job {table.short(job['job_id'])} ({job['plugin']} {job['command']})"
        arguments = (_OF_A_JOB[key], job["job_id"], *_OPTIONS.get(_OF_A_JOB[key], ()))
        return replace(view, question=Question(text=text, arguments=arguments))
    name = _plugin(view, sight)
    if name is None:
        return _say(view, f"there is no plugin to {_OF_A_PLUGIN[key]}")
    if key == "l":
        return replace(view, paper=Paper(title=f"logs of {name}", commands=(("logs", name, "-n", str(_LOGGED)),)))
    if key == "x":
        return replace(view, command="", plugin=name)
    if key == "p":
        paused = any(row["plugin"] == name and row["paused_since"] is not None for row in sight.status["plugins"])
        verb = "resume" if paused else "pause"
        return replace(view, question=Question(text=f"{verb} plugin {name}", arguments=(verb, name)))
    if key == "R":
        return replace(view, question=Question(text=f"reset plugin {name}", arguments=("reset", name)))
    return replace(view, question=Question(text=f"run {name} {_COMMAND_RUN}", arguments=("run", name, _COMMAND_RUN)))


def _plugin(view: State, sight: Snapshot) -> str | None:
    """Return the name of the plugin that a key is for: the chosen one, or that of the chosen job."""
    number = cursor(view, sight, PLUGINS) if view.focus == PLUGINS else None
    row = _job_row(sight, _target_job(view, sight)) if number is None else rows(view, sight, PLUGINS)[number]
    return None if row is None else str(row["plugin"])


def _say(view: State, text: str) -> State:
    return replace(view, message=Message(text=text, good=False))


HELP = (
    "Tab, Shift-Tab   the next pane, the one before",
    "arrows, j, k     the next row, the one before",
    "PgUp, PgDn       a page on or back",
    "Home, End        the first row, the last",
    "Enter            open the job; Esc closes it",
    "Esc              no filter; follow what runs",
    "/                show what has this text",
    "f                show only what failed",
    "l                logs of the plugin",
    "r, x             run the plugin: poll, or ask",
    "p                pause the plugin, or resume it",
    "R                reset the plugin's breakers",
    "t                retry the job, if it is dead",
    "P                replay the job",
    "c                cancel the job",
    "q                quit",
    "",
    "+ succeeded      x dead",
    "* running        . queued",
    "! waits for a retry, or blocked",
    "~ duplicate      - disabled, or never run",
)
