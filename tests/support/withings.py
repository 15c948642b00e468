"""A stand-in for the Withings API that enforces its rules on codes, tokens, the envelope and limits."""

from __future__ import annotations

import time
from typing import Any

from support.standin import Asked, Reply, Service

CLIENT = {"client_id": "app-1", "client_secret": "s3cr3t-t0ken"}
CALLBACK = "http://localhost:8089/withings"
HOUR, YEAR = 3600, 365 * 86_400


class Withings(Service):
    """One account. `now` can be moved; `statuses` are answered first, one a data call, in an HTTP 200."""

    def __init__(self) -> None:
        super().__init__(self._reply)
        self.ahead = 0.0
        self.codes: dict[str, float] = {}
        self.access: dict[str, float] = {}
        # Each refresh token with the time it dies at; the one before the latest dies with its successor's first use.
        self.refresh: dict[str, float] = {}
        self.predecessor: dict[str, str] = {}
        self.groups: list[dict] = []
        self.days: list[dict] = []
        self.nights: list[dict] = []
        self.statuses: list[int] = []
        self.page = 2
        self.issued = 0

    @property
    def now(self) -> float:
        return time.time() + self.ahead

    def authorized(self) -> str:
        """Return a code as the browser brings it."""
        code = f"code-{len(self.codes)}"
        self.codes[code] = self.now + 30
        return code

    def state(self) -> dict[str, Any]:
        """Return the state of a plugin that was authorized just now."""
        tokens = self._issue(None)
        return {"access_token": tokens["access_token"], "refresh_token": tokens["refresh_token"],
                "expires_at": int(self.now) + tokens["expires_in"], "userid": "7"}

    def _issue(self, used: str | None) -> dict[str, Any]:
        self.issued += 1
        access, refresh = f"access-{self.issued}", f"refresh-{self.issued}"
        self.access[access] = self.now + 3 * HOUR
        self.refresh[refresh] = self.now + YEAR
        if used is not None:
            self.refresh[used] = self.now + 8 * HOUR
            self.predecessor[access] = used
        return {"userid": 7, "access_token": access, "refresh_token": refresh, "expires_in": 10_800,
                "scope": "user.metrics", "token_type": "Bearer"}

    def _reply(self, asked: Asked) -> Reply:
        form = asked.form
        if asked.method != "POST" or asked.headers.get("content-type") != "application/x-www-form-urlencoded":
            return 200, {"status": 2555, "error": "wrong service"}
        if asked.path == "/v2/oauth2":
            return 200, self._token(form)
        if self.statuses:
            return 200, {"status": self.statuses.pop(0), "body": {}, "error": f"no {asked.headers['authorization']}"}
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if self.access.get(token, 0) < self.now:
            return 200, {"status": 401, "body": {}, "error": "XRequestID: invalid_token"}
        self.refresh.pop(self.predecessor.pop(token, ""), None)
        rows, key = {("/measure", "getmeas"): (self.groups, "measuregrps"),
                     ("/v2/measure", "getactivity"): (self.days, "activities"),
                     ("/v2/sleep", "getsummary"): (self.nights, "series")}[asked.path, form["action"]]
        if "lastupdate" not in form or {"startdateymd", "startdate", "enddate"} & form.keys():
            return 200, {"status": 503, "error": "Invalid Params"}
        if key == "series" and "data_fields" not in form:
            rows = [row | {"data": {}} for row in rows]
        found = [row for row in rows if row.get("modified", row.get("created", 0)) >= int(form["lastupdate"])]
        start = int(form.get("offset", 0))
        page, more = found[start:start + self.page], len(found) > start + self.page
        end = {"more": int(more) if key == "measuregrps" else more, "offset": start + self.page if more else 0}
        return 200, {"status": 0, "body": {key: page, "updatetime": int(self.now), "timezone": "Europe/Berlin", **end}}

    def _token(self, form: dict[str, str]) -> dict[str, Any]:
        if form.get("action") != "requesttoken" or CLIENT.items() - form.items():
            return {"status": 503, "error": "Invalid Params: invalid client"}
        if form["grant_type"] == "authorization_code":
            alive = self.codes.pop(form["code"], 0) >= self.now and form["redirect_uri"] == CALLBACK
            return {"status": 0, "body": self._issue(None)} if alive else {
                "status": 503, "error": "Invalid Params: invalid code"}
        token = form["refresh_token"]
        if self.refresh.get(token, 0) < self.now:
            return {"status": 503, "error": f"Invalid Params: invalid refresh_token {token}"}
        return {"status": 0, "body": self._issue(token)}


def group(grpid: int, at: float, *measures: tuple[int, int, int], **more: Any) -> dict[str, Any]:
    """Return a group of measures, each a type, a value and the power of ten of its unit."""
    return {"grpid": grpid, "attrib": 0, "date": int(at), "created": int(at), "modified": int(at), "category": 1,
            "deviceid": "d1", "model": "Body+",
            "measures": [{"type": kind, "value": value, "unit": unit} for kind, value, unit in measures], **more}


def day(date: str, modified: float, steps: int, **more: Any) -> dict[str, Any]:
    return {"date": date, "timezone": "Europe/Berlin", "deviceid": "d2", "model": "Steel HR", "brand": 1,
            "modified": int(modified), "steps": steps, "hr_zone_0": 5, **more}


def night(number: int, end: float, date: str, seconds: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "timezone": "Europe/Berlin", "model": 32, "startdate": int(end) - 30_000, "enddate": int(end),
            "date": date, "created": int(end), "modified": int(end), "completed": True,
            "data": {"total_sleep_time": seconds, "sleep_score": 80}, **more}
