"""The page that `report` writes: one HTML document that loads nothing and runs nothing."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import ductile
from ductile.ctl import markup, report_charts
from ductile.ctl.markup import EMPTY, Markup, fill, joined
from ductile.ctl.report_charts import Label, Logarithmic, Piece
from ductile.ctl.report_facts import Coming, Counts, Facts, Failure, Period, spread, total
from ductile.ctl.report_style import STYLE
from ductile.text import counted
from ductile.units import format_duration, parse_utc

_WEEK_SECONDS = 7 * 86400
_FAILURES_SHOWN = 50
_MOST_LABELS = 7
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything on the page. `status` is that of `ductilectl status`, `stderr` by job id; `zone` None is the system's.

    `truncated` is how many attempts the durations and waits are of, if that is not all.
    """

    name: str
    facts: Facts
    status: Mapping[str, Any]
    coming: Sequence[Coming]
    stderr: Mapping[str, str]
    zone: tzinfo | None
    truncated: int | None


def page(report: Report) -> str:
    """Return the document. It is in ASCII, so that it reads the same wherever it is stored and served."""
    sections = (_problems(report), _overview(report), _plugins(report), _failures(report), _durations(report),
                _week(report))
    document = fill(_DOCUMENT, style=STYLE, title=_title(report), header=_header(report), sections=joined(sections),
                    version=ductile.__version__)
    return document.encode("ascii", "xmlcharrefreplace").decode("ascii")


# The policy holds even if something were not escaped: nothing is loaded, no script runs.
_DOCUMENT = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{header}
{sections}
</main>
<footer>ductilectl report, Ductile {version}</footer>
</body>
</html>
"""


def _title(report: Report) -> str:
    period = report.facts.period
    return f"{report.name}: {format_duration((period.until - period.since).total_seconds())}"


def _header(report: Report) -> Markup:
    period, daemon = report.facts.period, report.status["daemon"]
    until = period.until.astimezone(report.zone)
    if daemon["running"]:
        state = fill('<span class="good">ductiled is running</span> since {since}',
                     since=_dated(parse_utc(daemon["since"]), report.zone))
    else:
        state = Markup('<span class="alarm">ductiled is not running</span>')
    cut = EMPTY if report.truncated is None else fill(
        "<p>Durations and queue waits are those of the latest {number} attempts.</p>",
        number=f"{report.truncated:,}")
    return fill("<header><h1>{name}</h1><p>{since} to {until} ({offset})</p><p>{state}</p>{cut}</header>",
                name=report.name, since=_dated(period.since, report.zone), until=_dated(period.until, report.zone),
                offset=f"UTC{until:%z}", state=state, cut=cut)


def _section(title: str, content: Markup, note: str = "") -> Markup:
    return fill("<section><h2>{title}</h2>{note}{content}</section>", title=title, content=content,
                note=fill('<p class="note">{note}</p>', note=note) if note else EMPTY)


def _row(name: Markup, chart: Markup, figures: Markup) -> Markup:
    return fill('<div class="row"><div class="name">{name}</div><div class="chart">{chart}</div>'
                '<div class="figures">{figures}</div></div>', name=name, chart=chart, figures=figures)


def _rows(rows: Iterable[Markup], about: str, labels: Sequence[Label]) -> Markup:
    """Return rows, and below them the labels of all their charts."""
    axis = report_charts.bars([[]], [""], height=0, about=about, labels=labels)
    return fill('<div class="rows">{rows}<div class="row axis"><div class="name"></div><div class="chart">{axis}</div>'
                '<div class="figures"></div></div></div>', rows=joined(rows), axis=axis)


# What needs attention now

_BAD_OUTCOMES = ("failed", "timed_out", "orphaned")


def _problems(report: Report) -> Markup:
    load = report.status["config_load"]
    items = []
    if load is not None and not load["ok"]:
        items.append(_problem("configuration", "rejected; the previous one stays in force",
                              markup.lines(load["errors"] or "")))
    for plugin in report.status["plugins"]:
        reasons = [] if plugin["held"] == ["disabled"] else plugin["held"]
        error = None
        if plugin["enabled"] and plugin["last_outcome"] in _BAD_OUTCOMES:
            error = markup.lines(plugin["last_error"] or "")
            reasons = [f"last run {plugin['last_outcome'].replace('_', ' ')}"
                       f" {_moment(parse_utc(plugin['last_run']), report.zone)}", *reasons]
        if reasons:
            items.append(_problem(plugin["plugin"], _reasons(reasons, report.zone), error))
    if not items:
        return _section("Now", Markup('<p class="good">Every plugin is well: none is blocked, and each last run'
                                      ' succeeded.</p>'))
    return _section("Now", fill('<ul class="cards">{items}</ul>', items=joined(items)))


_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def _reasons(held: Sequence[str], zone: tzinfo | None) -> str:
    """Return why a plugin's next run does not start, as `status` found it, with times as people read them."""
    return _UTC.sub(lambda match: _moment(parse_utc(match[0]), zone), "; ".join(held))


def _problem(name: str, what: str, detail: Markup | None) -> Markup:
    return fill('<li class="problem"><b>{name}</b> {what}{detail}</li>', name=name, what=what,
                detail=fill("<pre>{detail}</pre>", detail=detail) if detail else EMPTY)


# The period as a whole

def _overview(report: Report) -> Markup:
    facts, jobs = report.facts, report.facts.total
    lasted = (facts.period.until - facts.period.since).total_seconds()
    waits: array[float] = array("d")
    for each in facts.waits.values():
        waits.extend(each)
    tiles = [
        ("jobs", f"{jobs.ran:,}", f"{jobs.deduped:,} duplicates besides" if jobs.deduped else "ended in this time"),
        ("succeeded", f"{jobs.succeeded + jobs.retried:,}", _of(jobs.succeeded + jobs.retried, jobs.ran)),
        ("failed", f"{jobs.dead:,}", f"{jobs.cancelled:,} cancelled besides" if jobs.cancelled
         else _of(jobs.dead, jobs.ran)),
        ("failed attempts", f"{facts.failed_attempts:,}", f"{jobs.retried:,} jobs succeeded later"),
        ("busy", _percent(facts.busy_seconds, lasted), f"{format_duration(facts.busy_seconds)} of work"),
        ("queue wait", _short(spread(waits).median) if waits else "-",
         f"median; 95th {_short(spread(waits).high)}" if waits else "nothing ran"),
    ]
    shown = joined(fill('<div class="tile{alarm}"><span>{name}</span><b>{value}</b><small>{more}</small></div>',
                        alarm=Markup(" bad") if name == "failed" and jobs.dead else EMPTY, name=name, value=value,
                        more=more) for name, value, more in tiles)
    return _section("Overview", fill('<div class="tiles">{tiles}</div>{charts}', tiles=shown,
                                     charts=_charts(report) if jobs.ran else EMPTY))


def _charts(report: Report) -> Markup:
    facts = report.facts
    period, labels = facts.period, _labels(facts.period, report.zone)
    most = max(each.ran for each in facts.jobs)
    shares = [busy / max(1.0, end - start) for part, busy in enumerate(facts.busy)
              for start, end in [period.bounds(part)]]
    highest = max(shares) or 1.0
    jobs = report_charts.bars(
        [report_charts.stack(each, most) for each in facts.jobs], _titles(facts.jobs, period, report.zone), height=110,
        about=f"jobs by {period.step}", labels=labels)
    busy = report_charts.bars(
        [[Piece(colour="mark", share=share / highest)] for share in shares],
        [f"{_part(period, part, report.zone)}: {share * 100:.1f}% busy" for part, share in enumerate(shares)],
        height=60, about=f"busy share by {period.step}", labels=labels)
    return fill('<figure><figcaption>Jobs by {step}; the highest bar is {most}{legend}</figcaption>{jobs}</figure>'
                '<figure><figcaption>Busy share by {step}; the highest bar is {highest}</figcaption>{busy}</figure>',
                step=period.step, most=f"{most:,}", legend=_LEGEND, jobs=jobs, highest=_percent(highest, 1), busy=busy)


_LEGEND = fill('<span class="legend">{items}</span>', items=joined(
    fill('<span><i class="{colour}"></i>{what}</span>', colour=colour, what=what)
    for colour, what in (("ok", "succeeded"), ("late", "after a retry"), ("bad", "failed"), ("off", "cancelled"))))


def _titles(columns: Sequence[Counts], period: Period, zone: tzinfo | None) -> list[str]:
    return [f"{_part(period, part, zone)}: {_counts(each)}" for part, each in enumerate(columns)]


def _counts(counts: Counts) -> str:
    said = [counted(counts.ran, "job")]
    said += [f"{number:,} {what}" for number, what in (
        (counts.dead, "failed"), (counts.retried, "after a retry"), (counts.cancelled, "cancelled"),
        (counts.deduped, "duplicates")) if number]
    return ", ".join(said)


# Plugin by plugin

def _plugins(report: Report) -> Markup:
    facts = report.facts
    # Those that fail first, then those that run most.
    order = sorted(((name, total(columns)) for name, columns in facts.plugins.items()),
                   key=lambda item: (-item[1].dead, -item[1].ran, item[0]))
    rows = [_plugin(report, name, counts) for name, counts in order]
    if not rows:
        return _section("Plugins", Markup("<p>No job ended in this time.</p>"))
    return _section("Plugins", _rows(rows, "the time", _labels(facts.period, report.zone)),
                    f"A cell is one {facts.period.step}; it is red by the share that failed.")


def _plugin(report: Report, name: str, counts: Counts) -> Markup:
    columns = report.facts.plugins[name]
    strip = report_charts.bars([report_charts.cell(each) for each in columns],
                               _titles(columns, report.facts.period, report.zone), height=22,
                               about=f"{name}: {_counts(counts)}")
    failed = fill(' <b class="alarm">{dead} failed</b>', dead=f"{counts.dead:,}") if counts.dead else EMPTY
    return _row(fill("{name}", name=name), strip,
                fill("{ran}{failed}", ran=counted(counts.ran, "job"), failed=failed))


# Failures

def _failures(report: Report) -> Markup:
    facts = report.facts
    if not facts.failures:
        return _section("What failed, and why", Markup('<p class="good">No job failed.</p>'))
    shown = facts.failures[:_FAILURES_SHOWN]
    left = sum(each.count for each in facts.failures[_FAILURES_SHOWN:]) + facts.other_failures
    more = fill("<p>And {jobs} with other errors: ductilectl jobs --failed</p>", jobs=counted(left, "job")) \
        if left else EMPTY
    return _section("What failed, and why",
                    fill('<ul class="cards">{items}</ul>{more}', more=more,
                         items=joined(_failure(each, report) for each in shown)),
                    "The latest first. Equal errors of a command are one entry, with the job that failed last.")


def _failure(failure: Failure, report: Report) -> Markup:
    latest = _moment(parse_utc(failure.latest), report.zone)
    when = latest if failure.count == 1 else \
        f"{failure.count:,} times from {_moment(parse_utc(failure.earliest), report.zone)} to {latest}"
    step = EMPTY if failure.pipeline is None else fill(
        '<div class="note">pipeline {pipeline}, step {step}</div>', pipeline=failure.pipeline, step=failure.step or "-")
    stderr = report.stderr.get(failure.job_id)
    printed = EMPTY if not stderr else fill(
        "<details><summary>standard error of {job}</summary><pre>{stderr}</pre></details>", job=failure.job_id[:8],
        stderr=markup.lines(stderr))
    return fill('<li class="problem"><div class="head"><span><b>{plugin}</b> {command}</span><span>{when}</span></div>'
                "<pre>{error}</pre>{step}{stderr}<code>ductilectl inspect {job}</code></li>",
                plugin=failure.plugin, command=failure.command, when=when,
                error=markup.lines(failure.error or "no error was given"), step=step, stderr=printed,
                job=failure.job_id[:8])


# Durations

def _durations(report: Report) -> Markup:
    facts = report.facts
    if not facts.durations:
        return EMPTY
    spreads = {key: spread(values) for key, values in facts.durations.items()}
    scale = Logarithmic(max(each.longest for each in spreads.values()))
    rows = []
    for (plugin, command), each in sorted(spreads.items(), key=lambda item: (-item[1].median, item[0])):
        figures = f"{_short(each.median)} / {_short(each.high)} / {_short(each.longest)}"
        waits = facts.waits.get((plugin, command))
        wait = f"waited {_short(spread(waits).median)} / {_short(spread(waits).high)}" if waits else ""
        about = f"{plugin} {command}: median {_short(each.median)}, 95th {_short(each.high)}"
        rows.append(_row(fill("{plugin} <span>{command}</span>", plugin=plugin, command=command),
                         report_charts.span(each, scale, about),
                         fill("{figures}<span>{wait}</span>", figures=figures, wait=wait)))
    every = -(-len(scale.ticks()) // (_MOST_LABELS - 1))
    labels = [Label(at=at * 0.98 + 0.01, text=f"{seconds:g} s" if seconds >= 1 else _short(seconds))
              for seconds, at in scale.ticks()[::every]]
    return _section("How long it took", _rows(rows, "seconds", labels),
                    "Per attempt: median / 95th percentile / longest, and how long first attempts waited in the queue"
                    " (median / 95th).")


# The next week

def _week(report: Report) -> Markup:
    start = report.facts.period.until.timestamp()
    blocked = {row["plugin"]: row["held"] for row in report.status["plugins"]}
    midnights = [(moment.timestamp() - start) / _WEEK_SECONDS
                 for moment in _midnights(report.facts.period.until, report.zone)]
    rows = [_coming(each, blocked.get(each.plugin, []), start, midnights, report.zone)
            for each in sorted(report.coming, key=lambda each: (each.plugin, each.schedule_id))]
    if not rows:
        return _section("The next week", Markup("<p>Nothing is scheduled.</p>"))
    days = [Label(at=at + 1 / 14, text=_WEEKDAYS[moment.astimezone(report.zone).weekday()])
            for at, moment in zip(midnights, _midnights(report.facts.period.until, report.zone), strict=True)
            if at + 1 / 14 < 0.99]
    return _section("The next week", _rows(rows, "the days", days),
                    "From now on, without jitter; lines are midnights, a band is a schedule that runs often.")


def _coming(coming: Coming, held: Sequence[str], start: float, midnights: Sequence[float],
            zone: tzinfo | None) -> Markup:
    about = f"{coming.plugin} {coming.schedule_id}: {counted(coming.count, 'run')}"
    chart = report_charts.week(
        [_share(run, start) for run in coming.runs],
        [(_share(begin, start), _share(end, start)) for begin, end in coming.bands], midnights, about)
    reason = fill('<span class="alarm">{reason}</span>', reason=_reasons(held, zone)) if held else EMPTY
    following = f"next {_moment(datetime.fromtimestamp(coming.runs[0], UTC), zone)}" if coming.runs else ""
    what = coming.command if coming.schedule_id == "default" else f"{coming.schedule_id} ({coming.command})"
    return _row(fill("{plugin} <span>{what}, {every}</span>", plugin=coming.plugin, what=what, every=coming.every),
                chart, fill("{runs}<span>{following}</span>{reason}", runs=counted(coming.count, "run"),
                            following=following, reason=reason))


def _share(moment: float, start: float) -> float:
    return min(max((moment - start) / _WEEK_SECONDS, 0.0), 1.0)


def _midnights(now: datetime, zone: tzinfo | None) -> Iterable[datetime]:
    here = now.astimezone(zone)
    for day in range(1, 8):
        yield (datetime(here.year, here.month, here.day, tzinfo=zone) + timedelta(days=day)).astimezone(UTC)


# Times and figures

def _moment(moment: datetime, zone: tzinfo | None) -> str:
    here = moment.astimezone(zone)
    return f"{_WEEKDAYS[here.weekday()]} {here.day} {_MONTHS[here.month - 1]} {here:%H:%M}"


def _dated(moment: datetime, zone: tzinfo | None) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"


def _part(period: Period, part: int, zone: tzinfo | None) -> str:
    here = datetime.fromtimestamp(period.starts[part], UTC).astimezone(zone)
    return f"{_WEEKDAYS[here.weekday()]} {here:%Y-%m-%d}{f' {here:%H:%M}' if period.step == 'hour' else ''}"


def _labels(period: Period, zone: tzinfo | None) -> list[Label]:
    parts = len(period.starts)
    every = -(-parts // (_MOST_LABELS + 1))
    return [Label(at=(part + 0.5) / parts, text=_label(period, part, zone)) for part in range(0, parts, every)]


def _label(period: Period, part: int, zone: tzinfo | None) -> str:
    here = datetime.fromtimestamp(period.starts[part], UTC).astimezone(zone)
    if period.step == "hour":
        return f"{here:%H:%M}"
    if len(period.starts) <= _MOST_LABELS + 1:
        return f"{_WEEKDAYS[here.weekday()]} {here.day}"
    return f"{here.day} {_MONTHS[here.month - 1]}"


def _short(seconds: float) -> str:
    """Return a duration in a few characters: `12 ms`, `3.4 s`, `2m 5s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else format_duration(seconds)


def _percent(part: float, whole: float) -> str:
    share = 100 * part / whole if whole else 0.0
    return f"{share:.0f}%" if share >= 10 or share == 0 else f"{share:.1f}%" if share >= 0.1 else "<0.1%"


def _of(part: float, whole: float) -> str:
    return f"{_percent(part, whole)} of them" if whole else "nothing ran"
