"""Calls of the Withings API: one envelope, its status numbers, and tokens that change at each refresh."""

from __future__ import annotations

from urllib.parse import urlencode

from ductile_plugin import Failed, Permanent, Retry, http, one_line, where

TOKEN_PATH = "/v2/oauth2"
TIMEOUT_SECONDS = 20
# What a limit without a time is answered with, and the longest that a server may ask for.
WAIT_SECONDS, LONGEST_WAIT_SECONDS = 60, 6 * 3600
TOO_MANY = 601
UNAUTHORIZED = {100, 101, 102, 200, 401}
FORBIDDEN = {214, 277, 2553, 2554, 2555}
# Parameters that are wrong now and at each attempt. All other numbers may pass.
INVALID = {*range(201, 214), *range(216, 305), *range(321, 354), *range(380, 383), 400, *range(501, 512), 523, 532,
           *range(3017, 3020)} - {219, 222}
KEPT = ("access_token", "refresh_token", "expires_at", "userid")


class Unauthorized(Failed):
    """The token is not, or no longer, valid."""


class Busy(Retry):
    """Too many requests; `seconds` says how long to wait."""

    def __init__(self, place, seconds):
        self.seconds = min(max(seconds, WAIT_SECONDS), LONGEST_WAIT_SECONDS)
        super().__init__(f"{place} asks to wait {self.seconds:.0f} s: too many requests")


def call(base_url: str, path: str, form: dict, *, token: str | None = None, secrets: tuple = (),
         timeout: float = TIMEOUT_SECONDS) -> dict:
    """Return the body of the answer to one call. Raises Unauthorized, Busy and the library's errors."""
    place = where(base_url)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    answer = http("POST", base_url.rstrip("/") + path, headers=headers, body=urlencode(form), timeout=timeout)
    if answer.status == 429:
        raise Busy(place, answer.retry_after or 0)
    if answer.status == 401:
        raise Unauthorized(f"{place} answered 401")
    if not answer.ok:
        raise answer.error()
    found = answer.json()
    status = found.get("status") if isinstance(found, dict) else None
    if type(status) is not int:
        raise Retry(f"{place} answered without a status")
    if status != 0:
        raise _error(place, status, one_line(str(found.get("error") or ""), secrets=(token, *secrets)))
    if not isinstance(found.get("body"), dict):
        raise Retry(f"{place} answered without a body")
    return found["body"]


def _error(place: str, status: int, text: str) -> Failed:
    if status == TOO_MANY:
        return Busy(place, 0)
    line = f"{place} answered status {status}" + (f": {text}" if text else "")
    if status in UNAUTHORIZED:
        return Unauthorized(line)
    return Permanent(line) if status in FORBIDDEN | INVALID else Retry(line)


def exchange(config: dict, form: dict, now: float, *, timeout: float = TIMEOUT_SECONDS) -> dict:
    """Return new tokens for a code or a refresh token, as they stand in the state."""
    secrets = (config["client_secret"], form.get("code"), form.get("refresh_token"))
    body = call(config["base_url"], TOKEN_PATH, {
        "action": "requesttoken", "client_id": config["client_id"], "client_secret": config["client_secret"], **form},
        secrets=secrets, timeout=timeout)
    try:
        found = {"access_token": body["access_token"], "refresh_token": body["refresh_token"],
                 "expires_at": int(now + float(body["expires_in"])), "userid": str(body["userid"])}
    except (KeyError, TypeError, ValueError, OverflowError):
        found = {}
    if not all(isinstance(found.get(key), str) and found[key] for key in ("access_token", "refresh_token")):
        raise Retry(f"{where(config['base_url'])} answered without tokens")
    return found


def refreshed(config: dict, state: dict, now: float) -> dict:
    """Return what a refresh changes in the state. The token before is tried where the latest is refused.

    A refresh whose answer was lost leaves the token before valid, until the new access token is used.
    """
    refusal = None
    for name in ("refresh_token", "previous_refresh_token"):
        token = state.get(name)
        if not token:
            continue
        try:
            found = exchange(config, {"grant_type": "refresh_token", "refresh_token": token}, now)
        except Busy:
            raise
        except Failed as error:
            if error.retry:
                raise
            refusal = error
            continue
        return found | {"previous_refresh_token": token}
    reason = "" if refusal is None else f" ({refusal})"
    raise Permanent(f"not authorized{reason}: run plugins/withings/authorize, see the README of the plugin")
