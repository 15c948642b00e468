"""Reads the section `webhooks`: where to listen and what each endpoint takes."""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from ductile.config.handshakes import read_handshake
from ductile.config.model import Address, Asked, AskedCommand, AskedEvent, Endpoint, RequestPlace, Webhooks
from ductile.config.presets import Preset
from ductile.config.signing import PREFIX, decode_secret, read_scheme, same_text
from ductile.config.values import as_file_path, as_header, as_plugins_event, as_size, sections
from ductile.config.variables import at, is_variable
from ductile.protocol import HANDLE
from ductile.text import one_line
from ductile.validation import Path as Place
from ductile.validation import Problem, Section, as_text, dotted, kind_of

Network = IPv4Network | IPv6Network

_DEFAULT_BODY_SIZE = 1024**2
_LARGEST_BODY = "64MB"
# RFC 2104, section 3, advises a key no shorter than the digest; half of that is still beyond guessing.
_SHORT_SECRET_BYTES = 16
_RESERVED_PATH = "/healthz"
_METRICS_PATH = "/metrics"
_PORT = re.compile("[0-9]{1,5}")
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")
_LISTEN = "expected HOST:PORT such as 127.0.0.1:8081 or [::1]:8081, or unix:PATH"
_SOCKET_BYTES = 107     # sun_path without its NUL, see unix(7)


def read_webhooks(
    document: Section, authored: Any, base: Path, warnings: list[Problem], asked: list[Asked]
) -> Webhooks | None:
    """Return the section `webhooks` of the document, None if it is empty.

    `authored` is the whole document before variables were replaced: a secret is judged by what was written. Relative
    paths start at `base`. `asked` gets what every endpoint asks for, whatever else is wrong with it and whether or not
    anything is listened on.
    """
    section = document.section("webhooks")
    endpoints: dict[str, Endpoint] = {}
    secrets: dict[bytes, tuple[Endpoint, Place]] = {}
    for item in sections(section, "endpoints"):
        endpoint = _read_endpoint(item, authored, warnings)
        if endpoint.plugin is not None:
            asked.append(AskedCommand(place=(*item.path, "plugin"), plugin=endpoint.plugin, command=HANDLE))
        if endpoint.event is not None:
            asked.append(AskedEvent(place=(*item.path, "event"), event=endpoint.event))
        if endpoint.path and endpoint.path in endpoints:
            item.wrong("path", f"expected a path that no other endpoint has, got {endpoint.path!r}")
        endpoints.setdefault(endpoint.path, endpoint)
        _check_secrets(item, endpoint, secrets, warnings)
    webhooks = Webhooks(
        listen=section.read("listen", (), lambda value: _as_addresses(value, base)),
        health_listen=section.read("health_listen", (), lambda value: _as_addresses(value, base)),
        has_metrics=section.boolean("metrics", False),
        connections=section.integer("connections", 64, least=1, most=10_000),
        trusted_proxies=section.read("trusted_proxies", (), _as_networks),
        endpoints=tuple(endpoints.values()),
    )
    if webhooks.has_metrics and _METRICS_PATH in endpoints:
        section.wrong("metrics", f"expected an endpoint of another path beside it, as {_METRICS_PATH} is its own")
    if set(webhooks.listen) & set(webhooks.health_listen):
        section.wrong("health_listen", "expected an address that 'listen' does not have")
    if endpoints and not section.has("listen"):
        warnings.append(Problem((*section.path, "endpoints"), "nothing is served, as webhooks.listen is absent, unless"
                                " systemd passes a socket"))
    section.finish()
    return webhooks if webhooks != Webhooks() else None


def _as_addresses(value: Any, base: Path) -> tuple[Address, ...]:
    addresses = tuple(_as_address(each, base) for each in (value if isinstance(value, list) else [value]))
    if not addresses:
        raise ValueError("expected at least one address, got an empty list")
    if len(set(addresses)) < len(addresses):
        raise ValueError("expected each address once, got one that is repeated")
    return addresses


def _as_networks(value: Any) -> tuple[Network, ...]:
    networks = []
    for each in value if isinstance(value, list) else [value]:
        try:
            networks.append(ipaddress.ip_network(as_text(each)))
        except ValueError:
            raise ValueError(f"expected addresses such as 192.0.2.7 or 10.0.0.0/8, got {kind_of(each)}") from None
    return tuple(networks)


def _check_secrets(section: Section, endpoint: Endpoint, known: dict[bytes, tuple[Endpoint, Place]],
                   warnings: list[Problem]) -> None:
    """Report a secret that another endpoint uses for another signed text.

    What is signed with a timestamp at one of them is, byte by byte, also a body, and would be valid at the other.
    """
    for key in endpoint.keys:
        other, place = known.setdefault(key, (endpoint, section.path))
        if _accepted(other) == _accepted(endpoint):
            continue
        problem = Problem((*section.path, "secret"), f"{dotted(place)} has the same secret for another signed text, so"
                          " that a request to one could be sent to the other; use another secret")
        (warnings if other.scheme.is_legacy and endpoint.scheme.is_legacy else section.problems).append(problem)
        return


def _accepted(endpoint: Endpoint) -> tuple[Any, ...]:
    """Return a value that is equal for two endpoints of which each accepts what the other's sender signs.

    An endpoint that signs challenges accepts only what no challenge can be.
    """
    return *same_text(endpoint.scheme), endpoint.handshake is not None and endpoint.handshake.mac is not None


def _read_endpoint(section: Section, authored: Any, warnings: list[Problem]) -> Endpoint:
    section.require("path", "secret")
    if section.has("plugin") == section.has("event"):
        got = "both" if section.has("event") else "neither"
        section.wrong(None, f"expected either 'plugin' or 'event', got {got}")
    scheme, encoding, preset = read_scheme(section)
    token = _read_token(section, authored)
    status = section.read("success_status", preset.status if preset else 202, _as_status)
    endpoint = Endpoint(
        path=section.read("path", "", _as_endpoint_path),
        plugin=section.read("plugin", None, as_text),
        event=section.read("event", None, as_plugins_event),
        keys=_read_secrets(section, encoding, authored, warnings),
        scheme=scheme,
        preset=section.value("preset") if preset else None,
        dedupe=_read_dedupe(section, preset),
        handshake=read_handshake(section, preset.handshake if preset else None, has_token=token is not None),
        verify_token=token,
        success_status=status,
        answers_empty=status == 204 or bool(preset and preset.empty),
        refusal_status=preset.refusal if preset else 403,
        max_body_size=section.read("max_body_size", _DEFAULT_BODY_SIZE, _as_body_size),
    )
    section.finish()
    return endpoint


def _read_token(section: Section, authored: Any) -> bytes | None:
    token = section.raw("verify_token")
    if token is None:
        return None
    fault = _secret_fault(token, b"", "text", at(authored, (*section.path, "verify_token")))
    if fault is not None:
        section.wrong("verify_token", fault)
        return None
    return str(token).encode("utf-8", "surrogatepass")


def _read_dedupe(section: Section, preset: Preset | None) -> tuple[RequestPlace, ...]:
    header = section.read("dedupe_header", None, as_header)
    if header is not None and section.has("dedupe"):
        section.wrong("dedupe_header", "expected either 'dedupe' or 'dedupe_header', got both")
    if header is not None:
        return (RequestPlace(kind="header", name=header),)
    default = tuple(map(as_place, preset.dedupe)) if preset else ()
    return section.read("dedupe", default, _as_places)


def _as_places(value: Any) -> tuple[RequestPlace, ...]:
    return tuple(map(as_place, value if isinstance(value, list) else [value]))


def as_place(value: Any) -> RequestPlace:
    """Return a header, `json:PATH`, `form:NAME` or `signature` as a place of a request. Raises ValueError."""
    text = as_text(value)
    if text == "signature":
        return RequestPlace(kind="signature")
    kind, colon, name = text.partition(":")
    if colon and kind in ("json", "form") and name.isprintable() and name:
        return RequestPlace(kind=kind, name=name)
    try:
        return RequestPlace(kind="header", name=as_header(name if colon and kind == "header" else text))
    except ValueError:
        raise ValueError(f"expected a header, json:PATH, form:NAME or signature, got {text!r}") from None


def _as_status(value: Any) -> int:
    if value not in (200, 202, 204) or isinstance(value, bool):
        raise ValueError(f"expected 200, 202 or 204, got {kind_of(value)}")
    return int(value)


def _read_secrets(section: Section, encoding: str, authored: Any, warnings: list[Problem]) -> tuple[bytes, ...]:
    path = (*section.path, "secret")
    value = section.raw("secret")
    if isinstance(value, list):
        if not value:
            section.wrong("secret", "expected at least one ${NAME}, got an empty list")
        places: list[tuple[Place, Any]] = [((*path, index), item) for index, item in enumerate(value)]
    else:
        places = [(path, value)] if value is not None else []
    keys = []
    for place, secret in places:
        written = at(authored, place)
        # Unset, where variables are not needed.
        is_unknown = secret == written and is_variable(written)
        key = decode_secret(secret, "text" if is_unknown else encoding) if isinstance(secret, str) else None
        fault = _secret_fault(secret, key, encoding, written)
        if fault is not None:
            section.problems.append(Problem(place, fault))
            continue
        assert key is not None
        keys.append(key)
        if len(key) < _SHORT_SECRET_BYTES and not is_unknown:
            name = one_line(str(at(authored, (*section.path, "path"))))
            warnings.append(Problem(place, f"the secret of {name} is shorter than {_SHORT_SECRET_BYTES} bytes"))
    return tuple(keys)


def _secret_fault(secret: Any, key: bytes | None, encoding: str, written: Any) -> str | None:
    if secret is None or isinstance(secret, (dict, list)):
        return f"expected one ${{NAME}} and nothing else, got {kind_of(secret)}"
    if not is_variable(written):
        # A secret that was pasted here must not travel on into the log.
        return ("expected one ${NAME} and nothing else, got a literal; put the secret into service.env_file or the"
                " environment")
    if not secret:
        return "expected a variable that is not empty, got an empty one"
    if key is None:
        # The secret itself is never shown.
        expected = {"base64": "base64", "hex": "hexadecimal digits"}.get(encoding, f"base64 after {PREFIX!r}")
        return f"expected {expected}, as the sender shows it, got something else"
    return None


def _as_address(value: Any, base: Path) -> Address:
    text = value if isinstance(value, str) else ""
    if text.startswith("unix:"):
        path = as_file_path(text.removeprefix("unix:"), base)
        if len(str(path).encode("utf-8", "surrogateescape")) > _SOCKET_BYTES:
            raise ValueError(f"expected the path of a socket in at most {_SOCKET_BYTES} bytes, got {str(path)!r}")
        return Address(path=path)
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if bracketed else host
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise ValueError(f"{_LISTEN}, got {kind_of(value)}")
    if not (_is_ip(name, 6) if bracketed else _is_ip(name, 4) or _is_host_name(name)):
        raise ValueError(f"{_LISTEN}, got {kind_of(value)}")
    return Address(host=name, port=int(port))


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def _is_host_name(text: str) -> bool:
    # It is looked up when the daemon listens. One of digits alone would be a mistyped address.
    return _HOST_NAME.fullmatch(text) is not None and not text.replace(".", "").isdigit()


def _as_endpoint_path(value: Any) -> str:
    text = as_text(value)
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"expected a path that starts with '/', in ASCII without spaces, got {text!r}")
    if "?" in text or "#" in text:
        raise ValueError(f"expected a path without query and fragment, got {text!r}")
    if text == _RESERVED_PATH:
        raise ValueError(f"expected another path than that of the daemon's own health, got {text!r}")
    return text


def _as_body_size(value: Any) -> int:
    return as_size(value, least=1, most=_LARGEST_BODY)
