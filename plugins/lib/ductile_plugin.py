"""What a Python plugin of Ductile needs: request in, response out, HTTP requests, templates.

    from ductile_plugin import Permanent, http, log, main, text

    def respond(request):
        ...
        return {"status": "ok", "result": "done"}

    if __name__ == "__main__":
        main(respond)

It needs the standard library alone. Copy it beside the run.py of a plugin of your own; ductile-plugin(7) describes it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import time

# EX_CONFIG of sysexits.h: Ductile does not retry the job.
EXIT_CONFIG = 78
MIB = 1024 * 1024
_CHUNK_BYTES = 64 * 1024
# Ductile takes 100 levels in a response, of which an event's payload has the fourth.
_DEEPEST = 90


# Failures

class Failed(Exception):
    """The attempt failed; `retry` says whether another one may succeed."""

    retry = False

    def __init__(self, text, *, retry=None):
        super().__init__(text)
        if retry is not None:
            self.retry = retry


class Retry(Failed):
    """The attempt failed, and another one may succeed."""

    retry = True


class Permanent(Failed):
    """The attempt failed, and another one would fail the same way."""


class ConfigError(Permanent):
    """The operator has to mend the configuration first: the plugin exits with 78."""


# Request and response

_log_lines = []
# An escaped NUL; behind an escaped backslash the same letters are no escape.
_NUL = re.compile(rb"(\\\\)|\\u0000")


def log(message, level="info"):
    """Add a line to the response's `logs`. The levels are debug, info, warn and error."""
    _log_lines.append({"level": level, "message": message})


def main(respond):
    """Read the request, print what `respond` makes of it, and exit with 0, or with 78 for a ConfigError.

    What the plugin prints meanwhile goes to standard error: standard output is for the response alone.
    """
    try:
        request = json.load(sys.stdin.buffer)
    except (ValueError, RecursionError):
        request = None
    with contextlib.redirect_stdout(sys.stderr):
        response, code = _answer(respond, request)
        line = _encoded(response)
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()
    sys.stderr.flush()
    # At once: a process that is killed between its response and its end has stored its state and lost its events.
    os._exit(code)


def _encoded(response):
    """Return a response as JSON, without what Ductile refuses in a stranger's text: NUL and half a character."""
    line = json.dumps(response, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    return _NUL.sub(lambda found: found[1] or b"", line)


def answer(respond, request):
    """Return the response that `main` would print; for tests, which need no process."""
    return _answer(respond, request)[0]


def _answer(respond, request):
    _log_lines.clear()
    code = 0
    try:
        if not isinstance(request, dict):
            raise Permanent("the request is not a JSON object")
        response = respond(request)
    except Failed as error:
        response = {"status": "error", "error": str(error), "retry": error.retry}
        code = EXIT_CONFIG if isinstance(error, ConfigError) else 0
    except RecursionError:
        response = {"status": "error", "error": "the request is nested too deeply", "retry": False}
    if _log_lines:
        response = response | {"logs": [*response.get("logs", ()), *_log_lines]}
    return response, code


def settings(request, keys):
    """Return the request's `config` with defaults; a null counts as absent. Raises ConfigError.

    `keys`: for each name a tuple of a check (a function, or the values that are allowed), what to say that is expected
    (None: the allowed values), and a default; without one, the key is required.
    """
    config = request.get("config")
    if not isinstance(config, dict):
        raise ConfigError("config: expected a mapping")
    found = {name: rule[2] for name, rule in keys.items() if len(rule) > 2}
    found |= {name: value for name, value in config.items() if value is not None}
    for name, value in found.items():
        if name not in keys:
            raise ConfigError(f"config: unknown key {name!r}, expected one of {', '.join(keys)}")
        check, expected = keys[name][:2]
        is_default = config.get(name) is None
        if not is_default and not (check(value) if callable(check) else _is_one_of(value, check)):
            raise ConfigError(f"{name}: expected {expected or 'one of ' + ', '.join(map(as_text, check))}")
    missing = [name for name in keys if name not in found]
    if missing:
        raise ConfigError(f"config: {', '.join(missing)} missing")
    return found


def _is_one_of(value, allowed):
    # True equals 1.
    return any(type(value) is type(each) and value == each for each in allowed)


def is_line(value):
    """Say whether a value is a string that is not empty and on one line, as names, addresses and passwords are."""
    return isinstance(value, str) and value != "" and value.isprintable()


def is_number(least, most, *, whole=False):
    """Return a check for a number between two bounds, both of them included."""
    return lambda value: type(value) in ((int,) if whole else (int, float)) and least <= value <= most


def seconds_left(request, *, spare=1.0, default=60.0):
    """Return the seconds until `deadline_at`, less some to spare for the response; 0 or less where there are none.

    A request without a deadline gives `default`.
    """
    from datetime import datetime
    try:
        return datetime.fromisoformat(request["deadline_at"]).timestamp() - time.time() - spare
    except (KeyError, TypeError, ValueError):
        return default


def one_line(value, limit=300, secrets=()):
    """Return a stranger's text on one line, printable, cut to `limit` characters, with *** for each secret."""
    for secret in filter(None, secrets):
        value = value.replace(secret, "***")
    return " ".join("".join(char if char.isprintable() else " " for char in value).split())[:limit]


def write_file(path, data):
    """Write a file completely or not at all, and never into one that is there: that may be another job's as well."""
    new = f"{path}.new"
    with open(new, "wb") as file:
        file.write(data)
    os.replace(new, path)


@contextlib.contextmanager
def within(seconds, what, error=Permanent):
    """Raise an error, which begins with `what`, where the block takes longer.

    It is for regular expressions, and for protocols whose libraries have a time limit only for each read. It works in
    the main thread alone, as signals do.
    """
    import signal

    def stop(*_):
        raise error(f"{what} took more than {seconds:.3g} s")

    if seconds <= 0:
        stop()
    before, began = signal.signal(signal.SIGALRM, stop), time.monotonic()
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            # A block around this one goes on being timed.
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 0.001))


# Templates

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_ALONE = re.compile(r"\{([^{}]*)\}")
_EMPTY = object()


def text(template, payload, context=None, *, name="template", missing=None, escape=None):
    """Return a template with values for its placeholders; in a list or a mapping, those of all its strings.

    `{a.b.0}` is looked up in the payload, then in the context; `{a?}` is empty where there is none; `{{` and `}}` are
    braces. A string that is one placeholder keeps the value's type; in a longer one null is empty and a number, list
    or mapping is JSON. Raises Permanent, which begins with `name`, for a missing name or a lone brace.

    With `missing`, a function that is called with each name that is missing or null, those are empty and a lone brace
    stays as it is. With `escape`, a function for the text of each value, a string always gives a string.
    """
    if isinstance(template, dict):
        return {key: text(value, payload, context, name=f"{name}.{key}", missing=missing, escape=escape)
                for key, value in template.items()}
    if isinstance(template, list):
        return [text(value, payload, context, name=f"{name}.{index}", missing=missing, escape=escape)
                for index, value in enumerate(template)]
    if not isinstance(template, str):
        return template

    def value_of(placeholder):
        value = _find(placeholder, (payload, context), name, missing)
        return "" if value is _EMPTY else value

    def replaced(part):
        if part[1] is not None:
            value = as_text(value_of(part[1]))
            return value if escape is None else escape(value)
        if len(part[0]) == 1 and missing is None:
            raise Permanent(f"{name}: a lone {part[0]} at character {part.start() + 1}; write {part[0] * 2} for "
                            f"a brace")
        return part[0][0]

    alone = _ALONE.fullmatch(template)
    return value_of(alone[1]) if alone and escape is None else _PART.sub(replaced, template)


def as_text(value):
    """Return a value as it is shown within a text: a string as it is, null as nothing, anything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def lookup(path, *sources, default=None):
    """Return what is at a dotted path such as `a.b.0` in the first source that has it, else `default`."""
    for source in sources:
        try:
            return _at(source, path)
        except LookupError:
            continue
    return default


def _find(placeholder, sources, name, missing):
    path = placeholder.strip()
    is_optional = path.endswith("?")
    path = path.removesuffix("?").rstrip()
    if not path and missing is None:
        raise Permanent(f"{name}: a placeholder without a name; write {{{{ and }}}} for braces")
    for source in sources:
        try:
            value = _at(source, path)
        except LookupError:
            continue
        if value is not None or missing is None:
            return value
        break
    if not is_optional and missing is None:
        raise Permanent(f"{name}: no {path!r} in the payload or the context")
    if not is_optional:
        missing(path)
    return _EMPTY


def _at(value, path):
    for part in path.split("."):
        if isinstance(value, dict):
            value = value[part]
        elif isinstance(value, list) and re.fullmatch("[0-9]{1,9}", part):
            value = value[int(part)]
        else:
            raise LookupError(path)
    return value


# HTTP

URL = "http://HOST/... or https://HOST/... in ASCII, without spaces, user or password"
_REDIRECTS = (301, 302, 303, 307, 308)
# All that another origin gets to see of a request's headers: none of them can be a credential.
_HARMLESS = ("accept", "accept-encoding", "accept-language", "user-agent")
# What a redirect's target may hold unquoted.
_SAFE = "%/:?#[]@!$&'()*+,;=~"


class Answer:
    """What a server answered. `headers` have names in lower case; `url` is where redirects ended."""

    __slots__ = ("body", "headers", "status", "url")

    def __init__(self, *, status, headers, body, url):
        self.status, self.headers, self.body, self.url = status, headers, body, url

    @property
    def ok(self):
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def retryable(self):
        """Whether the same request may succeed later."""
        return self.status in (408, 425, 429) or self.status >= 500

    @property
    def retry_after(self):
        """The seconds that a Retry-After asks to wait (RFC 9110, 10.2.3); None where there is none to understand."""
        from email.utils import parsedate_to_datetime
        value = self.headers.get("retry-after", "")
        try:
            return float(value) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) else max(
                0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except (TypeError, ValueError, OverflowError):
            return None

    @property
    def text(self):
        """The body, in the charset that it or its Content-Type names: see `decoded`."""
        charset = re.search(r"charset=[\"']?([\w.:-]+)", self.headers.get("content-type", ""), re.IGNORECASE)
        return decoded(self.body, *(charset.groups() if charset else ()))

    def json(self):
        """Return the body as JSON that an event can carry. Raises Retry where it is none."""
        try:
            value = json.loads(self.body, parse_constant=_no_number, parse_float=_number, parse_int=_number)
            _check_depth(value, _DEEPEST)
            return value
        except (ValueError, RecursionError):
            raise Retry(f"{where(self.url)} answered something that is not JSON") from None

    def error(self, more=""):
        """Return the failure that a refusal means, to be raised: its status, and `more` at the end of the line."""
        from http import client
        phrase = client.responses.get(self.status, "")
        return Failed(f"{where(self.url)} answered {self.status} {phrase}".rstrip() + more, retry=self.retryable)


def decoded(data, *charsets):
    """Return bytes as text: as their byte order mark says, or the first charset that fits, UTF-8 or windows-1252."""
    for mark, charset in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if data.startswith(mark):
            return data[len(mark):].decode(charset, "replace")
    for charset in (*charsets, "utf-8"):
        # Where these are named windows-1252 is meant (WHATWG Encoding Standard, 4.2).
        latin = charset.lower().replace("_", "-") in ("iso-8859-1", "latin1", "latin-1", "us-ascii", "ascii")
        try:
            return data.decode("windows-1252" if latin else charset)
        except (LookupError, ValueError):
            continue
    return data.decode("windows-1252", "replace")


def _no_number(name):
    raise ValueError(name)


def _number(digits):
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError("beyond a double")
    return int(digits) if digits.lstrip("-").isdecimal() else number


def _check_depth(value, left):
    if left == 0:
        raise ValueError("nested too deeply")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(inner, (dict, list)):
            _check_depth(inner, left - 1)


def is_url(value):
    """Say whether a value is a url that `http` can ask: see URL."""
    from urllib.parse import urlsplit
    try:
        parts = urlsplit(value)
        parts.hostname.encode("idna")
        return (parts.scheme in ("http", "https") and parts.hostname != "" and parts.port != 0
                and "@" not in parts.netloc and re.fullmatch("[!-~]+", value) is not None)
    except (AttributeError, TypeError, ValueError):
        return False


def where(url):
    """Return what may be shown of a url: its scheme and host. The rest may hold a secret."""
    from urllib.parse import urlsplit
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def http(method, url, *, headers=None, body=None, timeout=30.0, limit=8 * MIB, cut=False, redirects=0, check=None):
    """Return a server's answer, whatever its status.

    `body`: bytes, a string (UTF-8), or what is sent as JSON. `timeout`: seconds for everything, redirects included.
    `limit`: the most bytes of body that are taken, after decompression; more is refused, or cut there with `cut`.
    `redirects`: how many are followed. Another origin gets none of the headers that could hold a credential and never
    the body; https does not lead to http. `check` is called with each url before it is asked, and may raise.

    No proxy of the environment is used. Raises Retry where there is no whole answer in time, and Permanent for what
    another attempt would not change; neither shows more of the url than scheme and host.
    """
    headers, data = _prepared(method, headers, body)
    end = time.monotonic() + timeout
    if check is not None:
        check(url)
    if not is_url(url):
        raise Permanent(f"url: expected {URL}")
    for left in range(redirects, -1, -1):
        try:
            found = _exchange(method, url, headers, data, end, limit, cut)
        except TimeoutError:
            raise Retry(f"{where(url)} gave no whole answer within {timeout:.3g} s") from None
        location = found.headers.get("location")
        if not redirects or found.status not in _REDIRECTS or not location:
            return found
        if left:
            method, url, headers, data = _redirected(found, location, method, headers, data, check)
    raise Permanent(f"{where(url)} redirects again and again")


def _prepared(method, headers, body):
    """Return the headers, by name in lower case, and the body as bytes. Raises Permanent without showing a value."""
    if not re.fullmatch("[A-Z]+", method):
        raise Permanent("method: expected capital letters, such as GET")
    found = {"user-agent": "ductile-plugin", "accept-encoding": "gzip"}
    if isinstance(body, str):
        body = body.encode("utf-8", "replace")
    elif body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        found["content-type"] = "application/json"
    for name, value in (headers or {}).items():
        value = value.encode("latin-1", "replace") if isinstance(value, str) else value
        if not re.fullmatch("[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise Permanent("headers: expected names of letters, digits and hyphens")
        if not isinstance(value, bytes) or not re.fullmatch(rb"[\t -~\x80-\xff]*", value):
            raise Permanent(f"headers: {name}: expected one line of text")
        found[name.lower()] = value
    return found, body


def _redirected(found, location, method, headers, data, check):
    """Return method, url, headers and body for where a redirect leads."""
    from urllib.parse import quote, urljoin
    try:
        url = quote(urljoin(found.url, location), safe=_SAFE)
    except ValueError:
        url = ""
    # The caller's own check of the place comes first, as it knows more.
    if check is not None:
        check(url)
    if not is_url(url):
        raise Permanent(f"{where(found.url)} redirects to what is no http or https url")
    if _origin(url) != _origin(found.url):
        if found.url.startswith("https:") and not url.startswith("https:"):
            raise Permanent(f"{where(found.url)} redirects from https to http, which is not followed")
        if data is not None and found.status in (307, 308):
            raise Permanent(f"{where(found.url)} redirects to {where(url)}, where the body is not sent")
        headers = {name: value for name, value in headers.items() if name in _HARMLESS}
    if found.status == 303 or (found.status in (301, 302) and method == "POST"):
        method, data = "HEAD" if method == "HEAD" else "GET", None
        headers = {name: value for name, value in headers.items() if not name.startswith("content-")}
    return method, url, headers, data


def _origin(url):
    from urllib.parse import urlsplit
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]


def _exchange(method, url, headers, data, end, limit, cut):
    """Return the answer to one request. Raises TimeoutError past `end`, a time of time.monotonic()."""
    import zlib
    from http import client
    from urllib.parse import urlsplit
    parts, place = urlsplit(url), where(url)
    scheme, host, port = _origin(url)
    kind = client.HTTPSConnection if scheme == "https" else client.HTTPConnection
    connection = kind(host, port, **({"context": _tls()} if scheme == "https" else {}))
    wire = None
    try:
        connection.sock = wire = _Wire(_connected(host, port, scheme, end), end)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, data, headers)
        response = connection.getresponse()
        wire.reader.is_in_head = False
        body = _body(response, place, limit, cut)
        found = {name.lower(): ", ".join(response.headers.get_all(name)) for name in response.headers}
        return Answer(status=response.status, headers=found, body=body, url=url)
    except TimeoutError:
        raise
    except (client.HTTPException, ConnectionResetError, BrokenPipeError, zlib.error):
        raise Retry(f"{place} broke off in mid-answer, or its answer is not HTTP") from None
    except OSError as error:
        reason = getattr(error, "verify_message", None) or error.strerror or "the connection failed"
        raise Retry(f"{place}: {reason}") from None
    finally:
        if wire is not None:
            wire.sock.close()


def _tls():
    import ssl
    if not hasattr(_tls, "context"):
        # Reading the certificates of the system takes longer than an exchange: once is enough.
        _tls.context = ssl.create_default_context()
    return _tls.context


def _connected(host, port, scheme, end):
    """Return a socket that is connected to the first address that takes it. Raises OSError."""
    import socket
    failure = OSError()
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            # A share for each, so that one that never answers leaves time for the next.
            sock.settimeout(_left(end) / (len(addresses) - index))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(_left(end))
            return _tls().wrap_socket(sock, server_hostname=host) if scheme == "https" else sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure


def _left(end):
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Wire:
    """A socket with one end in time for all of an exchange: its own timeout would begin again with each byte."""

    def __init__(self, sock, end):
        self.sock, self._end, self.reader = sock, end, None

    def sendall(self, data):
        for start in range(0, len(data), _CHUNK_BYTES):
            self.sock.settimeout(_left(self._end))
            self.sock.sendall(data[start:start + _CHUNK_BYTES])

    def makefile(self, *_):
        self.reader = _Reader(_Bytes(self.sock, self._end))
        return self.reader

    def close(self):
        """Leave the socket open: the answer is still read from it."""


class _Bytes(io.RawIOBase):
    def __init__(self, sock, end):
        self._sock, self._end = sock, end

    def readable(self):
        return True

    def readinto(self, buffer):
        self._sock.settimeout(_left(self._end))
        return self._sock.recv_into(buffer)


class _Reader(io.BufferedReader):
    """An answer whose head must be whole: the standard library takes one that was cut off for a short one."""

    is_in_head = True

    def readline(self, limit=-1):
        line = super().readline(limit)
        if self.is_in_head and not line.endswith(b"\n") and not 0 <= limit <= len(line):
            raise ConnectionResetError
        return line


def _body(response, place, limit, cut):
    coding = response.getheader("Content-Encoding", "").strip().lower()
    if coding not in ("", "identity", "gzip", "x-gzip"):
        raise Permanent(f"{place} answered in a content encoding that was not asked for")
    chunks = _chunks(response)
    body = bytearray()
    for chunk in _inflated(chunks) if "gzip" in coding else chunks:
        body += chunk
        if len(body) > limit and not cut:
            raise Permanent(f"{place} answered with more than {_size(limit)}")
        if len(body) >= limit and cut:
            break
    return bytes(body[:limit])


def _chunks(response):
    while data := response.read(_CHUNK_BYTES):
        yield data
    if response.length:
        raise ConnectionResetError


def _inflated(chunks):
    """Yield what gzip holds in small pieces, so that a bomb is met by the limit."""
    import zlib
    inflate = None
    for data in chunks:
        while data:
            if inflate is None or inflate.eof:
                inflate = zlib.decompressobj(wbits=31)
            yield inflate.decompress(data, _CHUNK_BYTES)
            data = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
    while inflate and not inflate.eof:
        rest = inflate.decompress(b"", _CHUNK_BYTES)
        if not rest:
            raise ConnectionResetError
        yield rest


def _size(count):
    return f"{count // MIB} MiB" if count >= MIB and count % MIB == 0 else f"{count} bytes"


# Access tokens

OAUTH = "a mapping of token_url, client_id, refresh_token and, where they are needed, client_secret and scope"
_OAUTH_KEYS = ("token_url", "client_id", "refresh_token", "client_secret", "scope")
# A token that expires sooner is renewed.
_SPARE_SECONDS = 120


def is_oauth(value):
    """Say whether a value is what `oauth` needs: see OAUTH."""
    return (isinstance(value, dict) and all(name in _OAUTH_KEYS and is_line(each) for name, each in value.items())
            and all(name in value for name in _OAUTH_KEYS[:3]) and is_url(value["token_url"]))


def oauth(config, state, *, timeout=20.0):
    """Return what has to go into the state for its `access_token` to be valid (RFC 6749, 6); nothing where it is.

    `config`: see OAUTH. Where a server replaces the refresh token, the state has the latest; another one in `config`
    begins anew. List `access_token`, `refresh_token` and `token_expires_at` as `private_state`, and return the updates
    also with a failure. Raises Permanent where the server refuses the refresh token.
    """
    import hashlib
    from urllib.parse import urlencode
    mark = hashlib.blake2b(config["refresh_token"].encode(), digest_size=8).hexdigest()
    known = state if state.get("token_of") == mark else {}
    if known.get("access_token") and known.get("token_expires_at", 0) > time.time() + _SPARE_SECONDS:
        return {}
    latest = known.get("refresh_token") or config["refresh_token"]
    form = {"grant_type": "refresh_token"} | config | {"refresh_token": latest}
    url = form.pop("token_url")
    answer = http("POST", url, body=urlencode(form), timeout=timeout, headers={
        "Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"})
    try:
        found = answer.json()
    except Retry:
        found = None
    if answer.status in (400, 401, 403):
        reason = one_line(str(lookup("error", found, default=answer.status)), 100, (latest, config["refresh_token"]))
        raise Permanent(f"{where(url)} refuses the refresh token: {reason}")
    if not answer.ok:
        raise answer.error()
    lasts = lookup("expires_in", found, default=3600)
    if not is_line(lookup("access_token", found)) or type(lasts) not in (int, float):
        raise Retry(f"{where(url)} answered without a token")
    replaced = found.get("refresh_token")
    return {"access_token": found["access_token"], "token_expires_at": int(time.time() + lasts), "token_of": mark,
            "refresh_token": replaced if is_line(replaced) else latest}
