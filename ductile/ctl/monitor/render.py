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
_FOCUS_SHARE = 0.5     # of the rows that are left when each pane has one, for the focused pane first
_LIVELY = 96           # columns of a pane from which plugins have their last 24 hours
_BAR = 20
_KEYS = ("? help", "q quit", "Tab pane", "Enter open", "/ filter", "f failed", "l logs", "r run", "t retry", "c cancel",
         "p pause", "x run...", "P replay", "R reset")
_PAPER_KEYS = "Esc closes, arrows and PgUp, PgDn, Home, End scroll"
# The rules of titles with and without focus, the line between sides, the levels of a sparkline, an hour with a failure.
_UNICODE = ("\u2501", "\u2500", "\u2502", "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588", "x")
_ASCII = ("=", "-", "|", ".:-=+*%#", "x")


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


def lines(sight: Snapshot, seen: State, *, columns: int, rows: int, knows_all: bool = False) -> list[Line]:
    """Return exactly `rows` lines of at most `columns` cells each, the last of one less.

    No control character that a plugin printed reaches them. Rules are of ASCII unless the terminal `knows_all` of
    Unicode.
    """
    if columns < LEAST_COLUMNS or rows < LEAST_ROWS:
        text = f"too small: {LEAST_COLUMNS}x{LEAST_ROWS} at least"
        return [(Span(text=fit(text, columns - 1)),), *([()] * (rows - 1))]
    shown: list[Line] = [(Span(text=fit(text, columns), style=style),) for text, style in _header(sight, columns, rows)]
    drawn = _UNICODE if knows_all else _ASCII
    if seen.paper is not None:
        shown = _paper(sight, seen, columns, rows - 2, drawn)
    elif seen.help_line is None:
        shown += _beside(sight, seen, _layout(sight, seen, columns, rows - len(shown) - 2), drawn)
    else:
        shown += _help(seen.help_line, columns)
    shown = shown[:rows - 2]
    # A character in the last cell of the last line would make a terminal scroll.
    keys = (Span(text=fit(_PAPER_KEYS, columns - 1), style=DIM),) if seen.paper is not None else _keys_line(columns - 1)
    return [*shown, *([()] * (rows - 2 - len(shown))), _status_line(sight, seen, columns), keys]


def page(sight: Snapshot, seen: State, *, columns: int, rows: int) -> int:
    """Return how many rows of the focused pane, or of the text over all panes, fit on the screen."""
    if seen.paper is not None:
        return max(1, rows - 3)
    room = rows - _header_rows(columns, rows) - 2
    if seen.help_line is not None:
        return max(1, room - 1)
    boxes = [box for side in _layout(sight, seen, columns, room) for box in side]
    return max([1, *(box.height for box in boxes if box.pane == seen.focus)])


# Layout

def _header_rows(columns: int, rows: int) -> int:
    return 4 if columns >= _ROOMY and rows >= _TALL else 2


def _layout(sight: Snapshot, seen: State, columns: int, room: int) -> list[list[Box]]:
    """Return the sides of the screen from left to right, each with its panes from top to bottom."""
    if columns < _WIDE:
        return [_stack(sight, seen, PANES, columns, room)]
    left = columns // 2
    lists = (QUEUE, RECENT, PLUGINS)
    return [_stack(sight, seen, lists, left, room), [Box(pane=CHAIN, width=columns - left - 1, height=room - 1)]]


def _stack(sight: Snapshot, seen: State, panes: Sequence[str], width: int, room: int) -> list[Box]:
    """Divide `room` rows, titles included: each pane gets what it needs, as far as there is room.

    First come plugins that fail, then the focused pane up to a half of the rest, then the others in turn; what is left
    goes to the last pane. Panes that do not fit are left out.
    """
    first = seen.focus if seen.focus in panes else panes[0]
    fitting = 1 + max(0, (room - _LEAST_FOCUSED - 1) // 2)
    shown = [first, *[pane for pane in panes if pane != first][:fitting - 1]]
    needed = {pane: max(1, _needed(sight, seen, pane)) for pane in shown}
    height = dict.fromkeys(shown, 1)
    left = room - 2 * len(shown)

    def give(pane: str, most: int) -> None:
        nonlocal left
        more = max(0, min(left, most - height[pane]))
        height[pane] += more
        left -= more

    if PLUGINS in height:
        give(PLUGINS, sum(map(state.is_failed, state.rows(seen, sight, PLUGINS))))
    give(first, min(needed[first], height[first] + int(left * _FOCUS_SHARE)))
    while left > 0 and (hungry := [pane for pane in shown if height[pane] < needed[pane]]):
        for pane in hungry:
            give(pane, height[pane] + 1)
    height[next(pane for pane in reversed(panes) if pane in height)] += left
    return [Box(pane=pane, width=width, height=height[pane]) for pane in panes if pane in height]


def _needed(sight: Snapshot, seen: State, pane: str) -> int:
    return len(tree.entries(sight.chain, sight.now) if pane == CHAIN else state.rows(seen, sight, pane))


def _beside(sight: Snapshot, seen: State, sides: list[list[Box]], drawn: Sequence[str]) -> list[Line]:
    stacked = [[line for box in side for line in _pane(sight, seen, box, drawn)] for side in sides]
    if len(stacked) == 1:
        return stacked[0]
    return [(*left, Span(text=drawn[2], style=DIM), *right) for left, right in zip(*stacked, strict=True)]


def _paper(sight: Snapshot, seen: State, columns: int, room: int, drawn: Sequence[str]) -> list[Line]:
    """Return a text over all panes, with a title that says where in it this is."""
    paper = seen.paper
    assert paper is not None
    last = min(paper.line + room - 1, len(paper.lines))
    where = f" {paper.title}: lines {min(paper.line + 1, last)} to {last} of {len(paper.lines)} "
    title = fit(f"{drawn[0] * 2}{where}", columns)
    shown = paper.lines[paper.line:last]
    return [(Span(text=title + drawn[0] * (columns - count(title)), style=FOCUS),),
            *((Span(text=fit(line, columns)),) for line in shown)]


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
    return f"up {_ago(sight, since)} as PID {daemon['pid']}, since {_clock(sight, since)}{listens}", PLAIN


def _brief_daemon(sight: Snapshot) -> str:
    daemon = sight.status["daemon"]
    return f"up {_ago(sight, daemon['since'])}" if daemon["running"] else "! down"


def _load(sight: Snapshot) -> tuple[str, str]:
    load = sight.status["config_load"]
    if load is None:
        return "not loaded yet", PLAIN
    if load["ok"]:
        return f"loaded {times.relative(load['loaded_at'], sight.now)}, at {_clock(sight, load['loaded_at'])}", PLAIN
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


def _clock(sight: Snapshot, moment: str) -> str:
    return times.local(moment, sight.zone)


# Panes

def _pane(sight: Snapshot, seen: State, box: Box, drawn: Sequence[str]) -> Iterator[Line]:
    """Yield the title of a pane and then its rows, each as wide as the pane."""
    focused = box.pane == seen.focus
    # Without colours the rule shows the focus.
    rule, style = (drawn[0], FOCUS) if focused else (drawn[1], TITLE)
    title = fit(f"{rule * 2} {_title(sight, seen, box.pane)} ", box.width)
    yield (Span(text=title + rule * (box.width - count(title)), style=style),)
    found, shown = _rows(sight, seen, box, drawn)
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
    if seen.failed:
        return f"{pane}: {shown} failed"
    if pane == RECENT:
        ended = sight.status["ended_24h"]
        return f"recent, 24h: {ended['succeeded']} succeeded, {ended['dead']} dead, {ended['deduped']} deduped"
    return f"{pane}: {total}" if shown >= total else f"{pane}: the first {shown} of {total}"


def _rows(sight: Snapshot, seen: State, box: Box,
          drawn: Sequence[str]) -> tuple[Sequence[Any], Callable[[Any], tuple[str, str]]]:
    """Return the rows of a pane, and a function that renders one: most rows are not on the screen."""
    if box.pane == CHAIN:
        return tree.entries(sight.chain, sight.now), lambda row: (row.text, _OF_STATUS.get(row.status, PLAIN))
    found = state.rows(seen, sight, box.pane)
    width, roomy = _name_width(found, box.width), box.width >= _ROOMY
    if box.pane == PLUGINS:
        lively = drawn if box.width >= _LIVELY else None
        return found, lambda row: _plugin_row(sight, row, width, roomy, lively)
    make = {QUEUE: _queue_row, RECENT: _recent_row}[box.pane]
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


def _plugin_row(sight: Snapshot, row: Mapping[str, Any], width: int, roomy: bool,
                drawn: Sequence[str] | None) -> tuple[str, str]:
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
    if drawn is not None:
        cells.append(_sparkline(sight.activity.get(row["plugin"], ()), drawn))
    # An open breaker is one of the reasons.
    return " ".join([*cells, _reasons(sight, row)]), style


def _reasons(sight: Snapshot, row: Mapping[str, Any]) -> str:
    """Return why a plugin does not run, else its last error if it failed last."""
    if row["held"]:
        return times.localized("; ".join(row["held"]), sight.zone)
    return (row["last_error"] or "").strip() if state.is_failed(row) else ""


_HOURS = 24


def _sparkline(hours: Sequence[tuple[int, int]], drawn: Sequence[str]) -> str:
    """Return a character for each of the last 24 hours: how many attempts ended, or that one failed."""
    levels, failed = drawn[3], drawn[4]
    most = max((ran for ran, _ in hours), default=0)
    shown = "".join(failed if bad else levels[(len(levels) - 1) * ran // most] if ran else " " for ran, bad in hours)
    return pad(shown, _HOURS)


def _plugin_sign(row: Mapping[str, Any]) -> tuple[str, str]:
    if not row["enabled"]:
        return "-", DIM
    if row["held"]:
        return "!", WARN
    if row["last_outcome"] is None:
        return "-", PLAIN
    return ("+", PLAIN) if row["last_outcome"] == "succeeded" else ("x", BAD)


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
    if seen.command is not None:
        return (Span(text=fit(f"run {seen.plugin or ''} {seen.command}_", columns), style=ASK),)
    if seen.message is not None:
        sign, style = ("+", GOOD) if seen.message.good else ("!", WARN)
        return (Span(text=fit(f"{sign} {seen.message.text}", columns), style=style),)
    if seen.filter:
        return (Span(text=fit(f"only what has '{seen.filter}': Esc shows all", columns), style=WARN),)
    if seen.failed:
        return (Span(text=fit("only what failed: f shows all", columns), style=WARN),)
    number = state.cursor(seen, sight, PLUGINS) if seen.focus == PLUGINS else None
    return () if number is None else (Span(text=fit(_about(sight, state.rows(seen, sight, PLUGINS)[number]), columns)),)


def _about(sight: Snapshot, plugin: Mapping[str, Any]) -> str:
    """Return why a plugin does not run, and its last error."""
    error = plugin["last_error"]
    held = [times.localized(reason, sight.zone) for reason in plugin["held"]]
    return "; ".join([*held, *([f"last error: {error.strip()}"] if error else [])])


def _keys_line(columns: int) -> Line:
    """Return as many of the keys as fit."""
    text = ""
    for key in _KEYS:
        longer = f"{text}  {key}" if text else key
        if len(longer) > columns:
            break
        text = longer
    return (Span(text=text, style=DIM),)
