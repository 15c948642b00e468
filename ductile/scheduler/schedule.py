"""When a schedule runs next: its grid, its jitter and its window.

A grid of seconds continues from its last point. A calendar grid is a list of wall times in the schedule's zone. Each is
computed from the grid's origin and not from the previous point, so schedules do not drift. All moments are aware UTC
datetimes, truncated to the millisecond, as stored.
"""

from __future__ import annotations

import bisect
import calendar
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, tzinfo

from ductile import units
from ductile.config.model import Every, Schedule, Unit, Window
from ductile.injected import Chance

_DAILY = Every(count=1, unit=Unit.DAYS)
_WEEKLY = Every(count=1, unit=Unit.WEEKS)
_WEEK_START = datetime(2001, 1, 1)    # a Monday
_ONE_DAY = timedelta(days=1)
_ONE_SECOND = timedelta(seconds=1)
_ONE_MILLISECOND = timedelta(milliseconds=1)

# A clock outside this range counts as the nearest end. The ends are far enough from those of the calendar that local
# time in every zone, and a window some days away, still have a date. The last point of a grid is later than any clock,
# so there is always a next point.
_FIRST_CLOCK = datetime(1, 2, 1, tzinfo=UTC)
_LAST_CLOCK = datetime(9999, 12, 1, tzinfo=UTC)
_LAST_POINT = datetime(9999, 12, 5, tzinfo=UTC)
_FIRST_WALL = datetime(1, 1, 3)
_LAST_WALL = datetime(9999, 12, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The next run: its point on the grid, and the time drawn for it.

    `anchor` is the local wall time of a calendar grid's origin, in ISO 8601 without a zone: with several times or days
    the first of them. It is empty for a grid of seconds.
    """

    base_at: datetime
    next_run_at: datetime
    anchor: str


def first(schedule: Schedule, now: datetime, rng: Chance) -> Slot:
    """Return the first slot of a new grid.

    With `at` the grid starts at the next such wall time after `now`. Otherwise the first run is within the jitter from
    `now`, and the grid starts there.
    """
    now = _within_clocks(now)
    elapsed = schedule.every.unit is Unit.SECONDS
    if not schedule.at or elapsed:
        base_at = _later(now, rng.uniform(0, schedule.jitter))
        anchor = "" if elapsed else _wall(base_at, schedule.zone).isoformat()
        return Slot(base_at=base_at, next_run_at=next_in_window(schedule, base_at, rng), anchor=anchor)
    origin = _origin(schedule, now)
    base_at = _instant(_next_wall(schedule, origin, now), schedule.zone)
    return _drawn(schedule, base_at, origin.isoformat(), rng)


def advance(schedule: Schedule, slot: Slot, now: datetime, rng: Chance) -> Slot:
    """Return the slot after `slot`, whose run is enqueued or skipped at `now`.

    The grid advances at least one step, and past `now`: missed runs are skipped.
    """
    return _drawn(schedule, _next_base(schedule, slot, max(now, slot.base_at)), slot.anchor, rng)


def redraw_if_stalled(schedule: Schedule, slot: Slot, now: datetime, rng: Chance) -> Slot | None:
    """Return a new slot on the same grid if `slot` is later than the rule allows from `now`, else None.

    That happens after the clock was set back.
    """
    if slot.next_run_at <= _latest(schedule, slot, now):
        return None
    return _drawn(schedule, _next_base(schedule, slot, now), slot.anchor, rng)


def in_window(schedule: Schedule, moment: datetime) -> bool:
    """Return whether a run may be due at `moment`."""
    if schedule.window is None:
        return True
    start, _ = _window_from(schedule.window, schedule.zone, moment)
    return start <= moment


def next_in_window(schedule: Schedule, moment: datetime, rng: Chance) -> datetime:
    """Return `moment` if it is in the window, else a random time within the jitter from the next start."""
    if schedule.window is None:
        return moment
    start, end = _window_from(schedule.window, schedule.zone, moment)
    if start <= moment:
        return moment
    longest = (end - start - _ONE_MILLISECOND).total_seconds()
    return _later(start, rng.uniform(0, min(schedule.jitter, longest)))


def _drawn(schedule: Schedule, base_at: datetime, anchor: str, rng: Chance) -> Slot:
    half = schedule.jitter / 2
    moment = _later(base_at, rng.uniform(-half, half))
    return Slot(base_at=base_at, next_run_at=next_in_window(schedule, moment, rng), anchor=anchor)


def _latest(schedule: Schedule, slot: Slot, now: datetime) -> datetime:
    """Return the latest moment that `first` or `advance` could have drawn by `now`, on the grid of `slot`."""
    # A run is drawn up to half the jitter before its base, and the base then advances past that.
    half = schedule.jitter / 2
    moment = _later(_next_base(schedule, slot, _later(_within_clocks(now), half)), half)
    if schedule.window is None:
        return moment
    start, end = _window_from(schedule.window, schedule.zone, moment)
    return max(moment, min(_later(start, schedule.jitter), end))


def _next_base(schedule: Schedule, slot: Slot, after: datetime) -> datetime:
    """Return the first point of the slot's grid that is later than `after`."""
    after = _within_clocks(after)
    if schedule.every.unit is Unit.SECONDS:
        step = timedelta(seconds=schedule.every.count)
        ahead = step - (after - slot.base_at) % step
        return after + min(ahead, _LAST_POINT - after)
    origin = datetime.fromisoformat(slot.anchor)
    return _instant(_next_wall(schedule, origin, after), schedule.zone)


def _origin(schedule: Schedule, now: datetime) -> datetime:
    """Return the wall time that a grid with `at` is counted from."""
    today = _wall(now, schedule.zone).date()
    unit = schedule.every.unit
    if unit is Unit.MONTHS and schedule.day:
        # January has all 31 days, so that a 31st survives a start in a short month.
        return datetime.combine(date(today.year, 1, schedule.day[0]), schedule.at[0])
    every = _WEEKLY if unit is Unit.WEEKS and schedule.day else _DAILY
    start = _WEEK_START if every is _WEEKLY else datetime.combine(today, schedule.at[0])
    found = _next_wall(replace(schedule, every=every), start, now)
    return datetime.combine(found.date(), schedule.at[0])


def _next_wall(schedule: Schedule, origin: datetime, after: datetime) -> datetime:
    """Return the wall time of the first point later than `after` on the calendar grid counted from `origin`."""
    every, zone = schedule.every, schedule.zone
    local = _wall(after, zone)
    if every.unit is Unit.MONTHS:
        index = (_month_number(local) - _month_number(origin)) // every.count
    else:
        index = (local.date() - _first_day(schedule, origin)).days // _days(every)
    while True:
        for wall in _grid_walls(schedule, origin, index):
            if _instant(wall, zone) > after:
                return wall
        index += 1


def _grid_walls(schedule: Schedule, origin: datetime, index: int) -> Iterator[datetime]:
    """Yield the wall times of one step of the grid, in their order: one for each day and each time of day."""
    wall = _grid_wall(datetime.combine(_first_day(schedule, origin), origin.time()), schedule.every, index)
    days = schedule.day if schedule.every.unit is Unit.WEEKS and schedule.day else (0,)
    for day in days:
        for at in schedule.at or (origin.time(),):
            point = datetime.combine(wall.date(), at) + day * _ONE_DAY
            yield min(max(point, _FIRST_WALL), _LAST_WALL)


def _first_day(schedule: Schedule, origin: datetime) -> date:
    """Return the day from which the steps are counted: with weekdays the Monday of their week."""
    is_by_week = schedule.every.unit is Unit.WEEKS and schedule.day
    return origin.date() - origin.weekday() * _ONE_DAY if is_by_week else origin.date()


def _grid_wall(origin: datetime, every: Every, index: int) -> datetime:
    """Return the wall time of one point, within the range of the calendar."""
    if every.unit is Unit.MONTHS:
        year, month = divmod(_month_number(origin) + index * every.count, 12)
        if not _FIRST_WALL.year <= year <= _LAST_WALL.year:
            return _FIRST_WALL if year < _FIRST_WALL.year else _LAST_WALL
        last_day = calendar.monthrange(year, month + 1)[1]
        wall = origin.replace(year=year, month=month + 1, day=min(origin.day, last_day))
    else:
        ordinal = origin.toordinal() + index * _days(every)
        ordinal = min(max(ordinal, _FIRST_WALL.toordinal()), _LAST_WALL.toordinal())
        wall = datetime.combine(date.fromordinal(ordinal), origin.time())
    return min(max(wall, _FIRST_WALL), _LAST_WALL)


def _month_number(wall: datetime) -> int:
    return wall.year * 12 + wall.month - 1


def _days(every: Every) -> int:
    return every.seconds // units.DAY


def _window_from(window: Window, zone: tzinfo, moment: datetime) -> tuple[datetime, datetime]:
    """Return start and end of the window that `moment` is in, else of the next one."""
    moment = _within_clocks(moment)
    today = _wall(moment, zone).date()
    length = _ONE_DAY if window.end <= window.start else timedelta(0)
    # Yesterday's window may end after midnight.
    day = today - _ONE_DAY
    while True:
        start = _instant(datetime.combine(day, window.start), zone)
        end = _instant(datetime.combine(day + length, window.end), zone)
        # A window inside the hour that a clock skips is empty on that day.
        if start < end and moment < end:
            return start, end
        day += _ONE_DAY


def _wall(moment: datetime, zone: tzinfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def _instant(wall: datetime, zone: tzinfo) -> datetime:
    """Return the moment of a wall time: the first of two, or the end of the gap for a missing one."""
    # PEP 495: fold 0 reads a missing time with the offset before the gap, fold 1 with the one after it.
    before = _offset(wall.replace(tzinfo=zone, fold=0))
    after = _offset(wall.replace(tzinfo=zone, fold=1))
    utc = wall.replace(tzinfo=UTC)
    if before >= after:
        return utc - before
    earliest = utc.replace(microsecond=0) - after
    gap_end = bisect.bisect_left(
        range((after - before) // _ONE_SECOND + 1),
        True,
        key=lambda second: _offset((earliest + second * _ONE_SECOND).astimezone(zone)) > before,
    )
    return earliest + gap_end * _ONE_SECOND


def _offset(local: datetime) -> timedelta:
    offset = local.utcoffset()
    assert offset is not None
    return offset


def _within_clocks(moment: datetime) -> datetime:
    return min(max(moment, _FIRST_CLOCK), _LAST_CLOCK)


def _later(moment: datetime, seconds: float) -> datetime:
    """Return the moment moved by `seconds`, truncated to the millisecond and at most the last point of a grid."""
    least = (_FIRST_CLOCK - moment).total_seconds()
    most = (_LAST_POINT - moment).total_seconds()
    moved = moment + timedelta(seconds=min(max(seconds, least), most))
    return moved.replace(microsecond=moved.microsecond // 1000 * 1000)
