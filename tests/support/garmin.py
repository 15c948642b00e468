"""A stand-in for Garmin's personal API that enforces its keys, tokens, spans and limits."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, date, datetime, timedelta
from typing import Any

from support.standin import Asked, Reply, Service

KEY = "s3cr3t-t0ken"
DAY = 86_400


class Garmin(Service):
    """One account; `tokens` are those that are valid. A list is None where the API answers with nothing at all."""

    def __init__(self) -> None:
        super().__init__(self._reply)
        self.tokens: set[str] = set()
        self.lasts = DAY
        self.days: list[dict] = []
        self.nights: list[dict] | None = []
        self.hrv: list[dict] = []
        self.weights: list[dict] = []
        self.activities: list[dict] = []
        self.missing: set[str] = set()

    def _reply(self, asked: Asked) -> Reply:
        kind, _, word = asked.headers.get("authorization", "").partition(" ")
        if asked.path.endswith("/personal-api-key/token"):
            if (asked.method, kind, word, asked.body) != ("POST", "ApiKey", KEY, b""):
                return 401, ""
            return 200, f"{self._issue()}\n"
        if kind != "Bearer" or word not in self.tokens or asked.headers.get("accept") != "application/json":
            return 401, ""
        return self._data(asked)

    def _issue(self) -> str:
        claims = json.dumps({"exp": int(time.time() + self.lasts), "n": len(self.tokens)}).encode()
        token = f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.sig"
        self.tokens.add(token)
        return token

    def _data(self, asked: Asked) -> Reply:
        if any(asked.path.startswith(each) for each in self.missing):
            return 404, ""
        parts = asked.path.split("/")
        first, last = (asked.query["startDate"], asked.query["endDate"]) if "startDate" in asked.query else parts[-2:]
        if (date.fromisoformat(last) - date.fromisoformat(first)).days >= 28 or first > last:
            return 400, {"message": "range"}

        def within(rows: list[dict]) -> list[dict]:
            return [row for row in rows if first <= row["calendarDate"] <= last]

        if asked.path == "/usersummary-service/v2/dailysummaries":
            return 200, {"data": within(self.days)}
        if asked.path == "/sleep-service/sleep/dailySleepSummariesByDate":
            return (204, b"") if self.nights is None else (
                200, [{"dailySleepDTO": row} for row in within(self.nights)])
        if asked.path.startswith("/hrv-service/hrv/daily/"):
            return 200, {"hrvSummaries": within(self.hrv)}
        if asked.path.startswith("/weight-service/weight/range/") and asked.query == {"includeAll": "true"}:
            return 200, {"dailyWeightSummaries": [
                {"summaryDate": row["calendarDate"], "latestWeight": row, "allWeightMetrics": [row]}
                for row in within(self.weights)], "totalAverage": {"weight": 1.0}}
        if asked.path == "/activitylist-service/activities/search/activities":
            start, limit = int(asked.query["start"]), int(asked.query["limit"])
            newest = sorted((row for row in self.activities if first <= row["startTimeGMT"][:10] <= last),
                            key=lambda row: row["startTimeGMT"], reverse=True)
            return 200, newest[start:start + limit]
        return 404, ""


def ago(days: int) -> str:
    """Return the date of so many days ago, in UTC."""
    return (datetime.now(UTC).date() - timedelta(days=days)).isoformat()


def summary(day: str, steps: int | None, **more: Any) -> dict[str, Any]:
    return {"calendarDate": day, "totalSteps": steps, "restingHeartRate": None, "averageStressLevel": -1,
            "newThing": 5, **more}


def sleep(day: str, seconds: int | None, **more: Any) -> dict[str, Any]:
    return {"id": seconds, "calendarDate": day, "sleepTimeSeconds": seconds, "sleepScores": {"overall": {"value": 81}},
            "sleepEndTimestampGMT": 1_764_568_800_000, "sleepEndTimestampLocal": 1_764_572_400_000, **more} if (
        seconds is not None) else {"id": None, "calendarDate": day, "sleepTimeSeconds": None, "sleepScores": None}


def weight(number: int, day: str, grams: float) -> dict[str, Any]:
    return {"samplePk": number, "calendarDate": day, "weight": grams, "bodyFat": 21.5, "bmi": None,
            "timestampGMT": 1_764_568_800_000, "date": 1_764_572_400_000, "weightDelta": -200.0}


def activity(number: int, day: str, **more: Any) -> dict[str, Any]:
    return {"activityId": number, "activityName": "Run", "activityType": {"typeKey": "running"}, "duration": 1800.5,
            "distance": 5000.0, "startTimeGMT": f"{day} 10:00:00", "startTimeLocal": f"{day} 11:00:00", **more}
