"""Access tokens for a refresh token (RFC 6749, 6)."""

from __future__ import annotations

from urllib.parse import urlencode

from ductile_plugin import Permanent, Retry, http, is_line, is_url, lookup, one_line, where

SPARE_SECONDS = 120
TIMEOUT_SECONDS = 20
KEYS = ("token_url", "client_id", "client_secret", "refresh_token", "scope")
EXPECTED = "a mapping of token_url, client_id, refresh_token and, where they are needed, client_secret and scope"


def is_settings(value: object) -> bool:
    """Say whether a value has what a refresh needs."""
    return (isinstance(value, dict) and set(value) <= set(KEYS) and all(map(is_line, value.values()))
            and is_url(value.get("token_url")) and "client_id" in value and "refresh_token" in value)


def token(config: dict, state: dict, now: float) -> dict:
    """Return what to keep in the state: a valid `access_token`, and a refresh token that took the place of the last.

    A refresh token in the configuration that is another than the one that the state began with wins.
    """
    began = config["refresh_token"]
    is_same = state.get("token_of") == _mark(began)
    if is_same and state.get("access_token") and state.get("token_expires_at", 0) > now + SPARE_SECONDS:
        return {}
    current = (state.get("refresh_token") if is_same else None) or began
    form = {"grant_type": "refresh_token", "refresh_token": current} | {
        key: config[key] for key in ("client_id", "client_secret", "scope") if key in config}
    answer = http("POST", config["token_url"], body=urlencode(form), timeout=TIMEOUT_SECONDS,
                  headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"})
    if answer.status in (400, 401, 403):
        said = lookup("error", _json(answer))
        raise Permanent(f"{where(config['token_url'])} refuses the refresh token: "
                        f"{one_line(str(said), 100, (current, began))}")
    if not answer.ok:
        raise answer.error()
    found = answer.json()
    lasts = lookup("expires_in", found, default=3600)
    if not is_line(lookup("access_token", found)) or type(lasts) not in (int, float):
        raise Retry(f"{where(config['token_url'])} answered without a token")
    return {"access_token": found["access_token"], "token_expires_at": int(now + lasts), "token_of": _mark(began),
            "refresh_token": found["refresh_token"] if is_line(found.get("refresh_token")) else current}


def _json(answer: object) -> object:
    try:
        return answer.json()
    except Retry:
        return {}


def _mark(text: str) -> str:
    import hashlib
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
