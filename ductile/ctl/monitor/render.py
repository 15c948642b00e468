"""Renders a snapshot and the view state as the lines of a screen of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ductile.ctl import table, times
from ductile.ctl.monitor import state, tree
from ductile.ctl.monitor.state import CHAIN, PANES, PLUGINS, QUEUE, RECENT, Snapshot, State
from ductile.ctl.text_width import count, fit, pad
from ductile.units import format_duration, parse_utc

LEAST_COLUMNS, LEAST_ROWS = 40, 10

# Styles of spans; `terminal` maps them to attributes.
PLAIN, TITLE, FOCUS, CHOSEN, GOOD, BAD, WARN, DIM, ASK = STYLES = (
    "plain", "title", "focus", "chosen", "good", "bad", "warn", "dim", "ask")

_OF_STATUS = {"succeeded": GOOD, "dead": BAD, "retry": WARN, "running": FOCUS, "deduped": DIM}
_WIDE = 140            # columns from which the chain is shown beside the lists
_ROOMY = 64            # columns from which a row has all its cells
_TALL = 16             # rows from which the header has four lines, if the screen is wide enough
_LEAST_FOCUSED = 4     # rows of the focused pane before another one is shown
_LEAST_OTHER = 2
_OTHER_SHARE = 4       # a pane without focus gets one part in so many
_BAR = 20
_KEYS = ("? help", "q quit", "Tab pane", "/ filter", "r run", "t retry", "p replay", "c cancel", "R reset")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Text in one style."""

    text: str
    style: str = PLAIN


Line = tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """The size of a pane: its width, and its rows below the title."""

    pane: str
    width: int
    height: int


def lines(sight: Snapshot, seen: State, *, columns: int, rows: int) -> list[Line]:
    """Return exactly `rows` lines of at most `columns` cells each, the last of one less.

    No control character that a plugin printed reaches them.
    """
    if columns < LEAST_COLUMNS or rows < LEAST_ROWS:
        text = f"too small: {LEAST_COLUMNS}x{LEAST_ROWS} at least"
        return [(Span(text=fit(text, columns - 1)),), *([()] * (rows - 1))]
    shown: list[Line] = [(Span(text=fit(text, columns), style=style),) for text, style in _header(sight, columns, rows)]
    if seen.help_line is None:
        shown += _beside(sight, seen, _layout(seen.focus, columns, rows - len(shown) - 2))
    else:
        shown += _help(seen.help_line, columns)
    shown = shown[:rows - 2]
    # A character in the last cell of the last line would make a terminal scroll.
    return [*shown, *([()] * (rows - 2 - len(shown))), _status_line(sight, seen, columns), _keys_line(columns - 1)]


def page(seen: State, *, columns: int, rows: int) -> int:
    """Return how many rows of the focused pane fit on the screen."""
    room = rows - _header_rows(columns, rows) - 2
    if seen.help_line is not None:
        return max(1, room - 1)
    boxes = [box for side in _layout(seen.focus, columns, room) for box in side]
    return max([1, *(box.height for box in boxes if box.pane == seen.focus)])


# Layout

def _header_rows(columns: int, rows: int) -> int:
    return 4 if columns >= _ROOMY and rows >= _TALL else 2


def _layout(focus: str, columns: int, room: int) -> list[list[Box]]:
    """Return the sides of the screen from left to right, each with its panes from top to bottom."""
    if columns < _WIDE:
        return [_stack(PANES, focus, columns, room)]
    left = columns // 2
    lists = (QUEUE, RECENT, PLUGINS)
    return [_stack(lists, focus, left, room), [Box(pane=CHAIN, width=columns - left - 1, height=room - 1)]]


def _stack(panes: Sequence[str], focus: str, width: int, room: int) -> list[Box]:
    """Divide `room` rows, titles included: the focused pane gets most, and panes that do not fit are left out."""
    first = focus if focus in panes else panes[0]
    fitting = 1 + max(0, (room - _LEAST_FOCUSED - 1) // (_LEAST_OTHER + 1))
    others = [pane for pane in panes if pane != first][:fitting - 1]
    height = max(_LEAST_OTHER, min((room - len(others) - 1) // _OTHER_SHARE,
                                   (room - _LEAST_FOCUSED - 1) // max(1, len(others)) - 1))
    left = room - len(others) * (height + 1) - 1
    return [Box(pane=pane, width=width, height=left if pane == first else height)
            for pane in panes if pane == first or pane in others]


def _beside(sight: Snapshot, seen: State, sides: list[list[Box]]) -> list[Line]:
    stacked = [[line for box in side for line in _pane(sight, seen, box)] for side in sides]
    if len(stacked) == 1:
        return stacked[0]
    return [(*left, Span(text="|", style=DIM), *right) for left, right in zip(*stacked, strict=True)]


# The header: the daemon, its configuration, the queue, the running job

def _header(sight: Snapshot, columns: int, rows: int) -> list[tuple[str, str]]:
    """Return each line with its style."""
    daemon, load, running = _daemon(sight), _load(sight), _running(sight, roomy=columns >= _ROOMY)
    if _header_rows(columns, rows) == 4:
        return [(f"ductiled  {daemon[0]}", daemon[1]), (f"config    {load[0]}", load[1]),
                (f"queue     {_queue(sight)}", PLAIN), (f"running   {running[0]}", running[1])]
    depth = sight.status["queue"]
    wrong = "; config rejected" if load[1] == BAD else ""
    return [(f"{_brief_daemon(sight)}{wrong}; {depth['queued']} queued, {depth['waiting']} waiting",
             BAD if BAD in (daemon[1], load[1]) else PLAIN), running]


def _daemon(sight: Snapshot) -> tuple[str, str]:
    daemon = sight.status["daemon"]
    if not daemon["running"]:
        return "! not running; the database says:", BAD
    listens = "" if daemon["listen"] is None else f", listening on {daemon['listen']}"
    since = daemon["since"]
    return f"up {_ago(sight, since)} as PID {daemon['pid']}, since {_clock(since)}{listens}", PLAIN


def _brief_daemon(sight: Snapshot) -> str:
    daemon = sight.status["daemon"]
    return f"up {_ago(sight, daemon['since'])}" if daemon["running"] else "! down"


def _load(sight: Snapshot) -> tuple[str, str]:
    load = sight.status["config_load"]
    if load is None:
        return "not loaded yet", PLAIN
    if load["ok"]:
        return f"loaded {times.relative(load['loaded_at'], sight.now)}, at {_clock(load['loaded_at'])}", PLAIN
    errors = (load["errors"] or "").splitlines()
    more = f" (and {len(errors) - 1} more: ductilectl check)" if len(errors) > 1 else ""
    first = errors[0] if errors else "no reason stored"
    when = times.relative(load["loaded_at"], sight.now)
    return f"! rejected {when}{more}; still using the previous one: {first}", BAD


def _queue(sight: Snapshot) -> str:
    depth, oldest = sight.status["queue"], sight.status["oldest_waiting"]
    text = f"{depth['queued']} queued, {depth['waiting']} waiting for a retry, {depth['running']} running"
    return text if oldest is None else f"{text}; oldest {_ago(sight, oldest)}"


def _running(sight: Snapshot, *, roomy: bool) -> tuple[str, str]:
    job = next((row for row in sight.open if row["status"] == "running"), None)
    if job is None:
        return "nothing runs", DIM
    name = f"* {table.short(job['job_id'])} {job['plugin']} {job['command']} {job['attempt']}/{job['max_attempts']}"
    if not sight.status["daemon"]["running"]:
        return f"{name}: interrupted; runs again when ductiled starts", WARN
    if job["started_at"] is None:
        return name, FOCUS
    elapsed = max(0, int((sight.now - parse_utc(job["started_at"])).total_seconds()))
    timeout = sight.timeouts.get(job["job_id"])
    if timeout is None:
        return f"{name}: {format_duration(elapsed)}", FOCUS
    text = f"{name}: {format_duration(elapsed)} of {format_duration(timeout)}"
    if elapsed > timeout:
        return f"{text}, overdue", BAD
    if not roomy:
        return text, FOCUS
    filled = _BAR * elapsed // max(1, timeout)
    return f"{text} [{'#' * filled}{'-' * (_BAR - filled)}]", FOCUS


def _ago(sight: Snapshot, moment: str) -> str:
    return times.age(moment, sight.now)


def _clock(moment: str) -> str:
    return f"{moment[:10]} {moment[11:19]}Z"


# Panes

def _pane(sight: Snapshot, seen: State, box: Box) -> Iterator[Line]:
    """Yield the title of a pane and then its rows, each as wide as the pane."""
    focused = box.pane == seen.focus
    # Without colours the rule shows the focus.
    rule, style = ("=", FOCUS) if focused else ("-", TITLE)
    title = fit(f"{rule * 2} {_title(sight, seen, box.pane)} ", box.width)
    yield (Span(text=title + rule * (box.width - count(title)), style=style),)
    found, shown = _rows(sight, seen, box)
    at = state.cursor(seen, sight, box.pane)
    top = _top(len(found), at, box, anchored=box.pane == CHAIN and seen.line is None)
    for number in range(top, top + box.height):
        if number >= len(found):
            text, style = ("  none", DIM) if number == 0 else ("", PLAIN)
            yield (Span(text=pad(text, box.width), style=style),)
            continue
        chosen = number == at
        text, style = shown(found[number])
        text = pad((">" if chosen else " ") + text, box.width)
        yield (Span(text=text, style=CHOSEN if chosen and focused else style),)


def _top(total: int, at: int | None, box: Box, *, anchored: bool) -> int:
    """Return the first row shown: it keeps the cursor in the middle, or at the top if `anchored`."""
    wanted = (at or 0) if anchored else (at or 0) - box.height // 2
    return max(0, min(wanted, total - box.height))


def _title(sight: Snapshot, seen: State, pane: str) -> str:
    if pane == CHAIN:
        job = state.chosen_job(seen, sight)
        return "chain" if job is None else f"chain of {table.short(job)}"
    shown = len(state.rows(seen, sight, pane))
    if pane == QUEUE:
        total = sum(sight.status["queue"].values())
    elif pane == RECENT:
        total = sum(sight.status["ended_24h"].values())
    else:
        total = len(sight.status["plugins"])
    if seen.filter:
        return f"{pane}: {shown} with '{seen.filter}'"
    if pane == RECENT:
        ended = sight.status["ended_24h"]
        return f"recent, 24h: {ended['succeeded']} succeeded, {ended['dead']} dead, {ended['deduped']} deduped"
    return f"{pane}: {total}" if shown >= total else f"{pane}: the first {shown} of {total}"


def _rows(sight: Snapshot, seen: State, box: Box) -> tuple[Sequence[Any], Callable[[Any], tuple[str, str]]]:
    """Return the rows of a pane, and a function that renders one: most rows are not on the screen."""
    if box.pane == CHAIN:
        return tree.entries(sight.chain, sight.now), lambda row: (row.text, _OF_STATUS.get(row.status, PLAIN))
    found = state.rows(seen, sight, box.pane)
    width, roomy = _name_width(found, box.width), box.width >= _ROOMY
    make = {QUEUE: _queue_row, RECENT: _recent_row, PLUGINS: _plugin_row}[box.pane]
    return found, lambda row: make(sight, row, width, roomy)


def _name_width(found: Sequence[Mapping[str, Any]], width: int) -> int:
    most = 10 if width < _ROOMY else 20
    return min(most, max((count(fit(row["plugin"], most)) for row in found), default=0))


def _queue_row(sight: Snapshot, job: Mapping[str, Any], width: int, roomy: bool) -> tuple[str, str]:
    status = tree.status_of(job)
    if status == "running":
        when = "runs" if job["started_at"] is None else f"runs {_ago(sight, job['started_at'])}"
    elif status == "retry":
        when = f"retry {times.due(job['next_retry_at'], sight.now)}"
    else:
        when = f"waits {_ago(sight, job['created_at'])}"
    return _job_row(job, status, width, roomy, pad(when, 16 if roomy else 14))


def _recent_row(sight: Snapshot, job: Mapping[str, Any], width: int, roomy: bool) -> tuple[str, str]:
    when = pad(times.relative(job["completed_at"], sight.now), 11)
    if roomy:
        when += " " + pad(tree.took(job), 6)
    return _job_row(job, tree.status_of(job), width, roomy, when)


def _job_row(job: Mapping[str, Any], status: str, width: int, roomy: bool, when: str) -> tuple[str, str]:
    cells = [tree.SIGNS[status], table.short(job["job_id"]), pad(job["plugin"], width)]
    if roomy:
        cells += [pad(job["command"], 8), pad(f"{job['attempt']}/{job['max_attempts']}", 5)]
    return " ".join([*cells, when, (job["last_error"] or "").strip()]), _OF_STATUS.get(status, PLAIN)


def _plugin_row(sight: Snapshot, row: Mapping[str, Any], width: int, roomy: bool) -> tuple[str, str]:
    sign, style = _plugin_sign(row)
    following = "-" if row["next_run"] is None else times.due(row["next_run"], sight.now)
    cells = [sign, pad(row["plugin"], width)]
    if roomy:
        last = "never ran"
        if row["last_run"] is not None:
            last = f"{row['last_outcome']} {times.relative(row['last_run'], sight.now)}"
        cells += [pad(last, 21), pad(f"next {following}", 15)]
    else:
        cells += [pad(following, 10)]
    # An open breaker is one of the reasons.
    return " ".join([*cells, _reasons(row) or f"breaker {_breaker(row['breakers'])}"]), style


def _reasons(row: Mapping[str, Any]) -> str:
    return "; ".join(row["held"])


def _plugin_sign(row: Mapping[str, Any]) -> tuple[str, str]:
    if not row["enabled"]:
        return "-", DIM
    if row["held"]:
        return "!", WARN
    if row["last_outcome"] is None:
        return "-", PLAIN
    return ("+", PLAIN) if row["last_outcome"] == "succeeded" else ("x", BAD)


def _breaker(breakers: Sequence[Mapping[str, Any]]) -> str:
    """Return the worst state of a plugin's breakers."""
    states = {breaker["state"] for breaker in breakers}
    if "open" in states:
        return "open"
    if "half_open" in states:
        return "half-open"
    failures = sum(breaker["failure_count"] for breaker in breakers)
    return f"closed, {failures}" if failures else "closed"


# The last lines

def _help(first: int, columns: int) -> list[Line]:
    title = pad("== help: any other key closes it ", columns).rstrip()
    return [(Span(text=title, style=FOCUS),), *((Span(text=fit(text, columns)),) for text in state.HELP[first:])]


def _status_line(sight: Snapshot, seen: State, columns: int) -> Line:
    """Return the question, the input or the answer; else details of the chosen plugin."""
    if seen.question is not None:
        answers = "? y/n"
        return (Span(text=fit(seen.question.text, columns - len(answers)) + answers, style=ASK),)
    if seen.typing:
        return (Span(text=fit(f"/{seen.filter}_", columns), style=ASK),)
    if seen.message is not None:
        sign, style = ("+", GOOD) if seen.message.good else ("!", WARN)
        return (Span(text=fit(f"{sign} {seen.message.text}", columns), style=style),)
    if seen.filter:
        return (Span(text=fit(f"only what has '{seen.filter}': Esc shows all", columns), style=WARN),)
    number = state.cursor(seen, sight, PLUGINS) if seen.focus == PLUGINS else None
    return () if number is None else (Span(text=fit(_about(state.rows(seen, sight, PLUGINS)[number]), columns)),)


def _about(plugin: Mapping[str, Any]) -> str:
    """Return why a plugin does not run, and its last error."""
    error = plugin["last_error"]
    return "; ".join([*plugin["held"], *([f"last error: {error.strip()}"] if error else [])])


def _keys_line(columns: int) -> Line:
    """Return as many of the keys as fit."""
    text = ""
    for key in _KEYS:
        longer = f"{text}  {key}" if text else key
        if len(longer) > columns:
            break
        text = longer
    return (Span(text=text, style=DIM),)
