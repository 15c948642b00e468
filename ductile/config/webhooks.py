"""Reads the section `webhooks`: where to listen and what each endpoint takes."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from ductile.config import misnamed
from ductile.config.model import Asked, AskedCommand, AskedEvent, Endpoint, Webhooks
from ductile.config.values import PREFIX, as_header, as_plugins_event, as_size, key_of, sections
from ductile.config.variables import at, is_variable
from ductile.protocol import HANDLE
from ductile.text import one_line
from ductile.validation import Problem, Section, as_choice, as_text, kind_of

# The header that each scheme prescribes; hex and base64 leave it to the sender.
_DEFAULT_HEADERS = {
    "stripe": "Stripe-Signature",
    "slack": "X-Slack-Signature",
    "standard": "webhook-signature",
}
_FORMATS = ("hex", "base64", *_DEFAULT_HEADERS)
_REFUSED_FORMATS = {
    "gitlab": "GitLab sends a plain token",
    "discord": "Discord signs with Ed25519",
    "ed25519": "Ed25519 is another algorithm",
}
_DEFAULT_BODY_SIZE = 1024**2
_LARGEST_BODY = "64MB"
# RFC 2104, section 3, advises a key no shorter than the digest; half of that is still beyond guessing.
_SHORT_SECRET_BYTES = 16
_RESERVED_PATH = "/healthz"
_PORT = re.compile("[0-9]{1,5}")
_LISTEN = "expected HOST:PORT such as 127.0.0.1:8081 or [::1]:8081"
# Stands in where `listen` is wrong, so that everything else can still be checked.
_SOME_ADDRESS = ("127.0.0.1", 8081)


def read_webhooks(
    document: Section, authored: Any, warnings: list[Problem], asked: list[Asked]
) -> Webhooks | None:
    """Return the section `webhooks` of the document, None where nothing is to be listened on.

    `authored` is the whole document before variables were replaced: a secret is judged by what was written. `asked`
    gets what every endpoint asks for, whatever else is wrong with it and whether or not anything is listened on.
    """
    section = document.section("webhooks")
    host, port = section.read("listen", _SOME_ADDRESS, _as_address)
    endpoints: dict[str, Endpoint] = {}
    for item in sections(section, "endpoints"):
        endpoint = _read_endpoint(item, authored, warnings)
        if endpoint.plugin is not None:
            asked.append(AskedCommand(place=(*item.path, "plugin"), plugin=endpoint.plugin, command=HANDLE))
        if endpoint.event is not None:
            asked.append(AskedEvent(place=(*item.path, "event"), event=endpoint.event))
        if endpoint.path and endpoint.path in endpoints:
            item.wrong("path", f"expected a path that no other endpoint has, got {endpoint.path!r}")
        endpoints.setdefault(endpoint.path, endpoint)
    listens = section.has("listen")
    section.finish()
    if endpoints and not listens:
        warnings.append(Problem((*section.path, "endpoints"), "nothing is served, as webhooks.listen is absent"))
    return Webhooks(host=host, port=port, endpoints=tuple(endpoints.values())) if listens else None


def _read_endpoint(section: Section, authored: Any, warnings: list[Problem]) -> Endpoint:
    section.require("path", "secret")
    if section.has("plugin") == section.has("event"):
        got = "both" if section.has("event") else "neither"
        section.wrong(None, f"expected either 'plugin' or 'event', got {got}")
    signature_format = section.read("signature_format", "hex", _as_format)
    if signature_format not in _DEFAULT_HEADERS:
        section.require("signature_header")
    endpoint = Endpoint(
        path=section.read("path", "", _as_endpoint_path),
        plugin=section.read("plugin", None, as_text),
        event=section.read("event", None, as_plugins_event),
        secrets=_read_secrets(section, signature_format, authored, warnings),
        signature_header=section.read("signature_header", _DEFAULT_HEADERS.get(signature_format, ""), as_header),
        signature_format=signature_format,
        dedupe_header=section.read("dedupe_header", None, as_header),
        max_body_size=section.read("max_body_size", _DEFAULT_BODY_SIZE, _as_body_size),
    )
    section.finish()
    return endpoint


def _read_secrets(section: Section, signature_format: str, authored: Any,
                  warnings: list[Problem]) -> tuple[str, ...]:
    path = (*section.path, "secret")
    value = section.raw("secret")
    if isinstance(value, list):
        if not value:
            section.wrong("secret", "expected at least one ${NAME}, got an empty list")
        places = [((*path, index), item) for index, item in enumerate(value)]
    else:
        places = [(path, value)] if value is not None else []
    secrets = []
    for place, secret in places:
        fault = _secret_fault(secret, signature_format, at(authored, place))
        if fault is not None:
            section.problems.append(Problem(place, fault))
            continue
        secrets.append(secret)
        if len(key_of(secret, signature_format)) < _SHORT_SECRET_BYTES and secret != at(authored, place):
            name = one_line(str(at(authored, (*section.path, "path"))))
            warnings.append(Problem(place, f"the secret of {name} is shorter than {_SHORT_SECRET_BYTES} bytes"))
    return tuple(secrets)


def _secret_fault(secret: Any, signature_format: str, written: Any) -> str | None:
    if secret is None or isinstance(secret, (dict, list)):
        return f"expected one ${{NAME}} and nothing else, got {kind_of(secret)}"
    if not is_variable(written):
        # A secret that was pasted here must not travel on into the log.
        return ("expected one ${NAME} and nothing else, got a literal; put the secret into service.env_file or the"
                " environment")
    if not secret:
        return "expected a variable that is not empty, got an empty one"
    if not key_of(secret, signature_format):
        # The secret itself is never shown.
        return f"expected base64 after {PREFIX!r}, as the sender shows it, got something else"
    return None


def _as_address(value: Any) -> tuple[str, int]:
    text = value if isinstance(value, str) else ""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if bracketed else host
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise ValueError(f"{_LISTEN}, got {kind_of(value)}")
    if host == "localhost":
        return host, int(port)
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        raise ValueError(f"{_LISTEN}, got {kind_of(value)}") from None
    if (address.version == 6) != bracketed:
        raise ValueError(f"{_LISTEN}, got {kind_of(value)}")
    return name, int(port)


def _as_endpoint_path(value: Any) -> str:
    text = as_text(value)
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"expected a path that starts with '/', in ASCII without spaces, got {text!r}")
    if "?" in text or "#" in text:
        raise ValueError(f"expected a path without query and fragment, got {text!r}")
    if text == _RESERVED_PATH:
        raise ValueError(f"expected another path than that of the daemon's own health, got {text!r}")
    return text


def _as_format(value: Any) -> str:
    reason = _REFUSED_FORMATS.get(value.lower()) if isinstance(value, str) else None
    if reason is not None:
        raise ValueError(f"expected a scheme of HMAC-SHA256, got {value!r}: {reason}")
    meant = misnamed.SIGNATURE_FORMATS.get(value.lower()) if isinstance(value, str) else None
    if meant is not None:
        raise ValueError(f"expected one of {', '.join(_FORMATS)}, got {value!r}: write {meant}")
    return as_choice(value, _FORMATS)


def _as_body_size(value: Any) -> int:
    return as_size(value, least=1, most=_LARGEST_BODY)
