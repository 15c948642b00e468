"""What Garmin lists, as events: days, nights, heart rate variability, weight and activities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

from api import Api

EVENT = "new_health_data"
DEEPEST = 8
PAGE, MOST_PAGES = 20, 20

_SECONDS_A_MINUTE = 60
# For each field its metric, its unit and what it is divided by.
DAY = {
    "totalSteps": ("steps", "", 1), "totalDistanceMeters": ("distance", "m", 1),
    "totalKilocalories": ("total_calories", "kcal", 1), "activeKilocalories": ("active_calories", "kcal", 1),
    "restingHeartRate": ("resting_heart_rate", "bpm", 1), "minHeartRate": ("heart_rate_min", "bpm", 1),
    "maxHeartRate": ("heart_rate_max", "bpm", 1), "averageStressLevel": ("stress", "", 1),
    "bodyBatteryHighestValue": ("body_battery_max", "", 1), "bodyBatteryLowestValue": ("body_battery_min", "", 1),
    "moderateIntensityMinutes": ("moderate", "s", 1 / _SECONDS_A_MINUTE),
    "vigorousIntensityMinutes": ("intense", "s", 1 / _SECONDS_A_MINUTE),
    "floorsAscended": ("floors", "", 1), "averageSpo2": ("spo2", "%", 1),
}
NIGHT = {
    "sleepTimeSeconds": ("sleep", "s", 1), "deepSleepSeconds": ("deep_sleep", "s", 1),
    "lightSleepSeconds": ("light_sleep", "s", 1), "remSleepSeconds": ("rem_sleep", "s", 1),
    "awakeSleepSeconds": ("awake", "s", 1), "napTimeSeconds": ("nap", "s", 1), "awakeCount": ("wakeups", "", 1),
    "averageSpO2Value": ("sleep_spo2", "%", 1), "averageRespirationValue": ("sleep_respiration", "1/min", 1),
    "avgSleepStress": ("sleep_stress", "", 1), "sleepScores.overall.value": ("sleep_score", "", 1),
}
HRV = {"lastNightAvg": ("hrv", "ms", 1), "weeklyAvg": ("hrv_week", "ms", 1),
       "lastNight5MinHigh": ("hrv_max", "ms", 1)}
WEIGHT = {
    "weight": ("weight", "kg", 1000), "bmi": ("bmi", "", 1), "bodyFat": ("fat_ratio", "%", 1),
    "bodyWater": ("body_water", "%", 1), "boneMass": ("bone_mass", "kg", 1000),
    "muscleMass": ("muscle_mass", "kg", 1000), "visceralFat": ("visceral_fat", "", 1),
    "metabolicAge": ("metabolic_age", "years", 1),
}
WORKOUT = {
    "duration": ("duration", "s", 1), "distance": ("distance", "m", 1), "averageHR": ("heart_rate", "bpm", 1),
    "maxHR": ("heart_rate_max", "bpm", 1), "calories": ("calories", "kcal", 1),
    "elevationGain": ("elevation", "m", 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A list of the API. `identity` are the fields that make a row one, `name` is that of its events.

    Of days that must be over, today's is no event: its sums still grow.
    """

    name: str
    fetch: Callable[[Api, str, str], object]
    metrics: dict
    identity: tuple[str, ...]
    must_be_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A row; `digest` differs where the content does."""

    key: str
    day: str
    digest: str
    payload: dict


def read(kind: Kind, api: Api, first: date, last: date, zone: tzinfo) -> list[Item]:
    """Return the rows of a kind for these days, both included."""
    found: dict[str, Item] = {}
    for row in _rows(kind.fetch(api, first.isoformat(), last.isoformat()), kind.identity, tuple(kind.metrics)):
        try:
            item = _item(kind, row, zone)
        except (KeyError, TypeError, ValueError, OverflowError, OSError):
            # A row of a form that nobody knows: the others count all the same.
            continue
        if item is not None:
            found.setdefault(item.key, item)
    return list(found.values())


def event(item: Item, is_edited: bool) -> dict:
    return {"type": EVENT, "dedupe_key": f"garmin:{item.key}:{item.digest}",
            "payload": item.payload | {"edited": is_edited}}


def _rows(value: object, identity: tuple[str, ...], metrics: tuple[str, ...], depth: int = 0) -> Iterator[dict]:
    """Yield the mappings at any level that have an identity and a metric: the lists stand under various names."""
    if isinstance(value, dict) and all(name in value for name in identity) and any(name in value for name in metrics):
        yield value
    elif isinstance(value, dict | list) and depth < DEEPEST:
        for each in value.values() if isinstance(value, dict) else value:
            yield from _rows(each, identity, metrics, depth + 1)


def _item(kind: Kind, row: dict, zone: tzinfo) -> Item | None:
    values = [value for value in (_value(row, field, *rule) for field, rule in kind.metrics.items())
              if value is not None]
    if not values or row.get("privacyProtected") is True:
        return None
    time = _time(row, zone)
    day = str(row.get("calendarDate") or time.astimezone(zone).date().isoformat())
    date.fromisoformat(day)
    key = "|".join([kind.name, *(str(row[field]) for field in kind.identity)])
    payload = {"source": "garmin", "kind": kind.name, "id": key.partition("|")[2], "values": values,
               "time": time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"), "zone": str(zone),
               "date": day, "device": None}
    if kind.name == "workout":
        names = row.get("activityType")
        payload |= {"name": row.get("activityName"),
                    "activity": names.get("typeKey") if isinstance(names, dict) else None}
    return Item(key=key, day=day, payload=payload, digest=hashlib.blake2b(
        json.dumps(payload, sort_keys=True).encode(), digest_size=6).hexdigest())


def _value(row: dict, field: str, metric: str, unit: str, divisor: float) -> dict | None:
    found: object = row
    for part in field.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    # A negative value says that there is none.
    if type(found) not in (int, float) or found < 0:
        return None
    value = round(found / divisor, 4) if divisor != 1 else found
    return {"metric": metric, "value": int(value) if value == int(value) else value, "unit": unit}


def _time(row: dict, zone: tzinfo) -> datetime:
    """Return when a row's measurement was. Times named local are no instants and are not used."""
    for field in ("sleepEndTimestampGMT", "timestampGMT"):
        if type(row.get(field)) in (int, float):
            return datetime.fromtimestamp(row[field] / 1000, UTC)
    if isinstance(row.get("startTimeGMT"), str):
        return datetime.fromisoformat(row["startTimeGMT"]).replace(tzinfo=UTC)
    return datetime.fromisoformat(row["calendarDate"]).replace(hour=0, tzinfo=zone)


def _activities(api: Api, first: str, last: str) -> list:
    """Return all pages of activities; they begin with the newest and end with one that is not full."""
    pages = []
    for number in range(MOST_PAGES):
        page = api.get("/activitylist-service/activities/search/activities", start=number * PAGE, limit=PAGE,
                       startDate=first, endDate=last)
        pages.append(page)
        if sum(1 for _ in _rows(page, ("activityId",), tuple(WORKOUT))) < PAGE:
            break
    return pages


KINDS = {
    "days": Kind(name="activity", metrics=DAY, identity=("calendarDate",), must_be_over=True,
                 fetch=lambda api, first, last: api.get("/usersummary-service/v2/dailysummaries", startDate=first,
                                                        endDate=last)),
    "sleep": Kind(name="sleep", metrics=NIGHT, identity=("calendarDate",),
                  fetch=lambda api, first, last: api.get("/sleep-service/sleep/dailySleepSummariesByDate",
                                                         startDate=first, endDate=last)),
    "hrv": Kind(name="hrv", metrics=HRV, identity=("calendarDate",),
                fetch=lambda api, first, last: api.get(f"/hrv-service/hrv/daily/{first}/{last}")),
    "weight": Kind(name="measure", metrics=WEIGHT, identity=("samplePk",),
                   fetch=lambda api, first, last: api.get(f"/weight-service/weight/range/{first}/{last}",
                                                          includeAll="true")),
    "activities": Kind(name="workout", metrics=WORKOUT, identity=("activityId",), fetch=_activities),
}


def spans(first: date, last: date, days: int) -> Iterator[tuple[date, date]]:
    """Yield the days from first to last in spans of at most so many days, the last days included in both."""
    while first <= last:
        end = min(first + timedelta(days=days - 1), last)
        yield first, end
        first = end + timedelta(days=1)
