"""What Withings lists, as events: measures, days of activity and nights, each new or changed one once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from zoneinfo import ZoneInfo

from ductile_plugin import Permanent, Retry

EVENT = "new_health_data"
MOST_PAGES = 50
# A response may have 1,000 events.
MOST_EVENTS = 300
# What was stored shortly before the latest row may show up after it.
OVERLAP_SECONDS = 3600
REMEMBERED_SECONDS = 14 * 86_400
REMEMBERED = 1000
DAY = 86_400
UNRELIABLE, AMBIGUOUS = 4, 1

POSITIONS = ("right_wrist", "left_wrist", "right_arm", "left_arm", "right_foot", "left_foot", "between_legs",
             "whole_body", "left_side", "right_side", "left_leg", "right_leg", "torso", "left_hand", "right_hand")
MEASURES = {
    1: ("weight", "kg"), 4: ("height", "m"), 5: ("fat_free_mass", "kg"), 6: ("fat_ratio", "%"), 8: ("fat_mass", "kg"),
    9: ("diastolic", "mmHg"), 10: ("systolic", "mmHg"), 11: ("pulse", "bpm"), 12: ("temperature", "°C"),
    54: ("spo2", "%"), 71: ("body_temperature", "°C"), 73: ("skin_temperature", "°C"), 76: ("muscle_mass", "kg"),
    77: ("hydration", "kg"), 88: ("bone_mass", "kg"), 91: ("pulse_wave_velocity", "m/s"),
    123: ("vo2max", "ml/min/kg"), 130: ("afib_ecg", ""), 135: ("qrs", "ms"), 136: ("pr", "ms"), 137: ("qt", "ms"),
    138: ("corrected_qt", "ms"), 139: ("afib_ppg", ""), 155: ("vascular_age", "years"), 158: ("nerve_score_left", ""),
    159: ("nerve_score_right", ""), 167: ("nerve_score", ""), 168: ("extracellular_water", "kg"),
    169: ("intracellular_water", "kg"), 170: ("visceral_fat", ""), 173: ("fat_free_mass", "kg"),
    174: ("fat_mass", "kg"), 175: ("muscle_mass", "kg"), 196: ("electrodermal", ""), 197: ("electrodermal_left", ""),
    198: ("electrodermal_right", ""), 226: ("basal_metabolic_rate", "kcal"), 227: ("metabolic_age", "years"),
    229: ("skin_conductance", ""),
}
ACTIVITY = {
    "steps": ("steps", ""), "distance": ("distance", "m"), "elevation": ("elevation", "m"), "soft": ("light", "s"),
    "moderate": ("moderate", "s"), "intense": ("intense", "s"), "active": ("active", "s"),
    "calories": ("active_calories", "kcal"), "totalcalories": ("total_calories", "kcal"),
    "hr_average": ("heart_rate", "bpm"), "hr_min": ("heart_rate_min", "bpm"), "hr_max": ("heart_rate_max", "bpm"),
}
SLEEP = {
    "total_sleep_time": ("sleep", "s"), "asleepduration": ("sleep", "s"), "total_timeinbed": ("time_in_bed", "s"),
    "lightsleepduration": ("light_sleep", "s"), "deepsleepduration": ("deep_sleep", "s"),
    "remsleepduration": ("rem_sleep", "s"), "wakeupduration": ("awake", "s"), "wakeupcount": ("wakeups", ""),
    "sleep_latency": ("sleep_latency", "s"), "sleep_score": ("sleep_score", ""),
    "sleep_efficiency": ("sleep_efficiency", ""), "hr_average": ("sleep_heart_rate", "bpm"),
    "hr_min": ("sleep_heart_rate_min", "bpm"), "rr_average": ("sleep_respiration", "1/min"),
    "snoring": ("snoring", "s"), "apnea_hypopnea_index": ("apnea_hypopnea_index", ""),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A row: `modified` in seconds since 1970, `digest` differs where the content does; held back, it is read again.

    `payload` is None for a row that is never an event.
    """

    key: str
    modified: int
    digest: str
    is_held: bool
    payload: dict | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A list of the API: where it is, its form, the key of its rows and what makes an item of one."""

    path: str
    form: dict
    key: str
    item: Callable[[dict, str, float], Item]


def read(kind: Kind, ask: Callable[[str, dict], dict], since: int, now: float) -> list[Item]:
    """Return all rows of a kind that were stored or changed since a time, in seconds since 1970."""
    items, offset, zone = [], None, "UTC"
    for _ in range(MOST_PAGES):
        body = ask(kind.path, kind.form | {"lastupdate": since} | ({} if offset is None else {"offset": offset}))
        rows = body.get(kind.key)
        if not isinstance(rows, list):
            raise Retry(f"Withings answered without {kind.key}")
        zone = body["timezone"] if isinstance(body.get("timezone"), str) else zone
        items += [item for item in (_item(kind, row, zone, now) for row in rows) if item is not None]
        before, offset = offset, body.get("offset")
        if not body.get("more"):
            return items
        if offset in (None, 0, before):
            raise Retry(f"Withings lists {kind.key} without an end")
    raise Permanent(f"Withings lists more than {MOST_PAGES} pages of {kind.key}")


def select(items: list[Item], known: dict, since: int, now: float) -> tuple[list[Item], list[Item], dict, int]:
    """Return the items to emit, those of them that are edits, what to remember, and since when to read next."""
    items = sorted(items, key=lambda item: (item.modified, item.key))
    fresh = [item for item in items if item.payload is not None and not item.is_held
             and known.get(item.key, [0, None])[1] != item.digest]
    emitted, left = fresh[:MOST_EVENTS], fresh[MOST_EVENTS:]
    edited = [item for item in emitted if item.key in known]
    # A time that a server invents must not hide what follows.
    latest = max([item.modified for item in items if item.modified <= now + DAY], default=0) - OVERLAP_SECONDS
    bounds = [item.modified - 1 for item in items if item.is_held] + [item.modified - 1 for item in left[:1]]
    cursor = max(since, min([latest, *bounds]))
    found = known | {item.key: [item.modified, item.digest] for item in emitted}
    kept = sorted(((key, mark) for key, mark in found.items() if mark[0] >= cursor - REMEMBERED_SECONDS),
                  key=lambda entry: entry[1][0], reverse=True)
    remembered = {key: mark for index, (key, mark) in enumerate(kept) if index < REMEMBERED or mark[0] >= cursor}
    return emitted, edited, remembered, cursor


def events(name: str, emitted: list[Item], edited: list[Item]) -> list[dict]:
    """Return the events for items, the oldest measurement first."""
    return [{"type": EVENT, "dedupe_key": f"withings:{name}:{item.key}:{item.digest}",
             "payload": item.payload | {"edited": item in edited}}
            for item in sorted(emitted, key=lambda item: (item.payload["time"], item.key))]


def _item(kind: Kind, row: object, zone: str, now: float) -> Item | None:
    try:
        return kind.item(row, zone, now)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, OSError, InvalidOperation):
        # A row of a form that nobody knows: the others count all the same.
        return None


def _measure(row: dict, zone: str, now: float) -> Item:
    values = []
    for measure in row["measures"]:
        name, unit = MEASURES.get(measure["type"], (f"type_{int(measure['type'])}", ""))
        position = measure.get("position")
        if type(position) is int and 0 <= position < len(POSITIONS) and position != POSITIONS.index("whole_body"):
            name = f"{name}_{POSITIONS[position]}"
        value = Decimal(int(measure["value"])).scaleb(int(measure["unit"]))
        values.append({"metric": name, "value": _number(value), "unit": unit})
    modified = int(row.get("modified") or row.get("created") or row["date"])
    payload = _payload("measure", values, _instant(row["date"]), zone, row.get("model"), id=str(row["grpid"]))
    if row.get("attrib") == AMBIGUOUS:
        payload["ambiguous"] = True
    skipped = row.get("attrib") == UNRELIABLE or not values
    return Item(key=str(row["grpid"]), modified=modified, digest=str(modified), is_held=False,
                payload=None if skipped else payload)


def _day(row: dict, zone: str, now: float) -> Item:
    zone = row.get("timezone") or zone
    day = datetime.fromisoformat(row["date"]).replace(hour=0, tzinfo=_zone(zone))
    end = (day + timedelta(days=1)).timestamp()
    key = f"{row['date']}|{row.get('deviceid') or row.get('brand') or ''}"
    values = _values(row, ACTIVITY)
    return Item(key=key, modified=int(row.get("modified") or end), digest=_digest(values), is_held=end > now,
                payload=_payload("activity", values, day, zone, row.get("model"), id=key) if values else None)


def _night(row: dict, zone: str, now: float) -> Item:
    zone = row.get("timezone") or zone
    values = _values(row["data"], SLEEP)
    modified = int(row.get("modified") or row.get("created") or row["enddate"])
    # A night that Withings still works on; one that never ends is taken as it is.
    is_held = row.get("completed") is False and modified > now - 2 * DAY
    payload = _payload("sleep", values, _instant(row["enddate"]), zone,
                       {16: "tracker", 32: "sleep monitor"}.get(row.get("model")), id=str(row["id"]))
    if row.get("date"):
        payload["date"] = str(row["date"])
    return Item(key=str(row["id"]), modified=modified, digest=_digest(values), is_held=is_held,
                payload=payload if values else None)


def _payload(kind: str, values: list, time: datetime, zone: str, device: object, *, id: str) -> dict:
    return {"source": "withings", "kind": kind, "id": id, "values": values,
            "time": time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"), "zone": zone,
            "date": time.astimezone(_zone(zone)).date().isoformat(), "device": str(device) if device else None}


def _values(data: dict, metrics: dict) -> list:
    found = {}
    for field, (name, unit) in metrics.items():
        if type(data.get(field)) in (int, float) and name not in found:
            found[name] = {"metric": name, "value": data[field], "unit": unit}
    return list(found.values())


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _digest(values: list) -> str:
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=6).hexdigest()


def _instant(seconds: object) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return UTC


KINDS = {
    "measures": Kind(path="/measure", form={"action": "getmeas", "category": 1}, key="measuregrps", item=_measure),
    "activity": Kind(path="/v2/measure", key="activities", item=_day,
                     form={"action": "getactivity", "data_fields": ",".join(ACTIVITY)}),
    "sleep": Kind(path="/v2/sleep", key="series", item=_night,
                  form={"action": "getsummary", "data_fields": ",".join(SLEEP)}),
}
