"""Calls of Garmin's personal API: a key gives a token for a day, and the token gives data."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import urlencode

from ductile_plugin import Answer, Failed, Permanent, Retry, digest, http, where

TOKEN_PATH = "/personalapitoken-service/personal-api/personal-api-key/token"
TIMEOUT_SECONDS = 30
# A token that expires sooner is replaced.
SPARE_SECONDS = 3600
# Where Garmin names no time, and the longest that is believed.
WAIT_SECONDS, LONGEST_WAIT_SECONDS = 900, 24 * 3600


class Busy(Retry):
    """Too many requests; `seconds` says how long to wait."""

    def __init__(self, answer: Answer) -> None:
        asked = answer.retry_after
        self.seconds = WAIT_SECONDS if asked is None else min(max(asked, 1), LONGEST_WAIT_SECONDS)
        super().__init__(f"{where(answer.url)} asks to wait {self.seconds:.0f} s: too many requests")


class Api:
    """The API with a token, which is taken from a state or fetched; `state` is what to keep of it."""

    def __init__(self, config: dict, state: dict, now: float, timeout: float) -> None:
        self._config, self._now, self._timeout = config, now, timeout
        mark = digest(f"{config['base_url']} {config['api_key']}", 8)
        self.state = {"key_mark": mark}
        if state.get("key_mark") == mark and state.get("expires_at", 0) > now + SPARE_SECONDS:
            self.state |= {"access_token": state.get("access_token"), "expires_at": state["expires_at"]}

    def get(self, path: str, **query: object) -> object:
        """Return what is at a path, or None where there is nothing. Raises Busy and the library's errors."""
        is_new = not self.state.get("access_token")
        if is_new:
            self._fetch_token()
        answer = self._ask("GET", path + (f"?{urlencode(query)}" if query else ""),
                           f"Bearer {self.state['access_token']}")
        if answer.status == 401 and not is_new:
            self.state.pop("access_token")
            return self.get(path, **query)
        if answer.status == 404:
            raise Missing(f"{where(answer.url)} has no such data for this account (404)")
        if answer.status in (401, 403):
            raise Permanent(f"{where(answer.url)} refuses the access ({answer.status})")
        if not answer.ok:
            raise answer.error()
        return answer.json() if answer.body.strip() else None

    def _fetch_token(self) -> None:
        answer = self._ask("POST", TOKEN_PATH, f"ApiKey {self._config['api_key']}")
        if answer.status in (401, 403):
            raise Permanent(f"{where(answer.url)} refuses the API key ({answer.status}): it may have expired; create "
                            "another in Garmin Connect")
        if not answer.ok:
            raise answer.error()
        token = answer.text.strip().strip('"')
        if not re.fullmatch(r"[!-~]{1,16384}", token) or token.count(".") != 2:
            raise Retry(f"{where(answer.url)} answered without a token")
        self.state |= {"access_token": token, "expires_at": _expiry(token, self._now)}

    def _ask(self, method: str, path: str, authorization: str) -> Answer:
        headers = {"Accept": "application/json", "Authorization": authorization}
        answer = http(method, self._config["base_url"].rstrip("/") + path, headers=headers, timeout=self._timeout,
                      body=b"" if method == "POST" else None)
        if answer.status == 429:
            raise Busy(answer)
        return answer


class Missing(Failed):
    """The API has nothing at a path."""


def _expiry(token: str, now: float) -> int:
    """Return when a token expires; one that does not say is used only now."""
    try:
        part = token.split(".")[1]
        return int(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["exp"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return int(now)
