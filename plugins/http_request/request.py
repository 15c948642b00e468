"""The request that configuration and event make: checked once, rendered for each job."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_plus, urlencode, urlsplit

from ductile_plugin import (
    SAFE,
    ConfigError,
    Permanent,
    as_text,
    basic,
    digest,
    is_headers,
    is_line,
    is_url,
    text,
)

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
BODIES = ("json", "form", "text")
# The connection's own headers: another value of them would change where a request or its body ends.
RESERVED_HEADERS = ("host", "content-length", "transfer-encoding", "connection", "accept-encoding")
_FIXED_ORIGIN = re.compile(r"https?://[^/{}?#]+(?:[/?#].*)?", re.DOTALL)
_ALONE = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request with all values in it. `secrets` are what an error must not repeat."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None
    secrets: tuple[str, ...]

    @property
    def digest(self) -> str:
        """What tells this request from others."""
        return digest(repr((self.method, self.url, self.body or b"")))


def is_url_template(value: object) -> bool:
    return isinstance(value, str) and bool(_ALONE.fullmatch(value) or _FIXED_ORIGIN.fullmatch(value))


def is_fields(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def is_auth(value: object) -> bool:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        return False
    if value.keys() == {"user", "password"}:
        return ":" not in value["user"]
    if value.keys() == {"header", "value"}:
        return is_headers({value["header"]: ""}, RESERVED_HEADERS) and is_line(value["value"])
    return value.keys() in ({"bearer"}, {"query", "value"}) and all(map(is_line, value.values()))


def check(config: dict) -> None:
    """Raise ConfigError for keys that do not go together."""
    bodies = [name for name in BODIES if config[name] is not None]
    if len(bodies) > 1:
        raise ConfigError(f"config: expected one of {', '.join(BODIES)}, got {' and '.join(bodies)}")
    if bodies and config["method"] in ("GET", "HEAD"):
        raise ConfigError(f"{bodies[0]}: {config['method']} has no body; set method")
    if _ALONE.fullmatch(config["url"]) and not config["hosts"]:
        raise ConfigError("hosts: required if the whole url comes from the event: a list of allowed hosts")
    if config["pages"] and config["response"] != "json":
        raise ConfigError("pages: only with response: json")
    if config["file"] and config["response"] != "file":
        raise ConfigError("file: only with response: file")
    if config["select"] and config["response"] != "json":
        raise ConfigError("select: only with response: json")


def render(config: dict, payload: object, context: object, key: str) -> Request:
    """Return the request for an event. `key` is the same for each attempt of a job. Raises Permanent."""
    url = _url(config["url"], payload, context)
    pairs = _pairs(text(config["query"], payload, context, name="query"))
    auth = config["auth"] or {}
    if "query" in auth:
        pairs.append((auth["query"], auth["value"]))
    if pairs:
        bare, mark, fragment = url.partition("#")
        url = f"{bare}{'&' if '?' in bare else '?'}{urlencode(pairs)}{mark}{fragment}"
    kind, body = _body(config, payload, context)
    headers = {"User-Agent": "ductile", "Accept": "application/json" if config["response"] == "json" else "*/*"} | kind
    given = text(config["headers"], payload, context, name="headers")
    for name, value in (given | _authorization(auth)).items():
        headers = {other: kept for other, kept in headers.items() if other.lower() != name.lower()}
        headers[name] = as_text(value)
    found = Request(method=config["method"], url=url, headers=headers, body=body, secrets=_secrets(url, auth, given))
    if found.method in ("POST", "PATCH") and "idempotency-key" not in map(str.lower, headers):
        # A service that knows it does nothing twice, whatever attempt this is.
        headers["Idempotency-Key"] = digest(f"{key}\n{found.digest}", 16)
    return found


def _url(template: str, payload: object, context: object) -> str:
    if _ALONE.fullmatch(template):
        url = text(template, payload, context, name="url")
        url = quote(url, safe=SAFE) if isinstance(url, str) else None
    else:
        url = text(template, payload, context, name="url", escape=_segment)
    if not is_url(url):
        raise Permanent("url: the event gives no http or https URL")
    return url


def _segment(value: str) -> str:
    """Return a value as it may stand in a path or a query: it cannot lead anywhere else."""
    if value in (".", ".."):
        raise Permanent("url: a value from the event is . or .., which would be another path")
    return quote(value, safe="")


def _pairs(fields: dict) -> list[tuple[str, str]]:
    """Return names and values as a form or a query has them: a list gives its name several times."""
    return [(name, as_text(each).encode("utf-8", "replace").decode()) for name, value in fields.items()
            for each in (value if isinstance(value, list) else [value])]


def _body(config: dict, payload: object, context: object) -> tuple[dict[str, str], bytes | None]:
    if config["form"] is not None:
        fields = _pairs(text(config["form"], payload, context, name="form"))
        return {"Content-Type": "application/x-www-form-urlencoded"}, urlencode(fields).encode()
    if config["json"] is not None:
        value = text(config["json"], payload, context, name="json")
        # A string of its own has quotes in JSON.
        written = as_text(value) if not isinstance(value, str) else as_text([value])[1:-1]
        return {"Content-Type": "application/json"}, written.encode("utf-8", "replace")
    if config["text"] is not None:
        value = text(config["text"], payload, context, name="text")
        return {"Content-Type": "text/plain; charset=utf-8"}, as_text(value).encode("utf-8", "replace")
    return {}, None


def _authorization(auth: dict) -> dict[str, str]:
    if "bearer" in auth:
        return {"Authorization": f"Bearer {auth['bearer']}"}
    if "password" in auth:
        return {"Authorization": basic(auth["user"], auth["password"])}
    return {auth["header"]: auth["value"]} if "header" in auth else {}


def _secrets(url: str, auth: dict, headers: dict) -> tuple[str, ...]:
    """Return what of a request can be a secret, the longest first: a server may repeat it in its answer."""
    parts = urlsplit(url)
    found = {*re.findall(r"[^/&=]+", f"{parts.path}&{parts.query}"), *map(str, headers.values()), *auth.values()}
    found |= {unquote_plus(each) for each in found}
    return tuple(sorted((each for each in found if len(each) >= 6), key=len, reverse=True))
