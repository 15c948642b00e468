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
    """The attempt failed; `retry` says whether another one may succeed, `state_updates` what is kept all the same."""

    retry = False

    def __init__(self, text, *, retry=None, state_updates=None):
        super().__init__(text)
        self.state_updates = state_updates
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
        if error.state_updates is not None:
            response["state_updates"] = error.state_updates
        code = EXIT_CONFIG if isinstance(error, ConfigError) else 0
    except RecursionError:
        response = {"status": "error", "error": "the request is nested too deeply", "retry": False}
    if _log_lines:
        response = response | {"logs": [*response.get("logs", ()), *_log_lines]}
    return response, code


def event_of(request):
    """Return the request's event; an empty one where there is none."""
    event = request.get("event")
    return event if isinstance(event, dict) else {}


def payload_of(request):
    """Return the payload of the request's event; an empty mapping where it is none."""
    payload = event_of(request).get("payload")
    return payload if isinstance(payload, dict) else {}


def workspace_of(request):
    """Return the workspace as a real path, without links."""
    return os.path.realpath(request.get("workspace_dir") or ".")


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


def is_absolute(value):
    """Say whether a value is an absolute path, or one below a home directory, as ~/notes is."""
    return is_line(value) and os.path.isabs(os.path.expanduser(value))


ZONE = "a time zone such as Europe/Berlin"


def is_zone(value):
    """Say whether a value is the name of a time zone: see ZONE."""
    from zoneinfo import ZoneInfo
    try:
        return isinstance(value, str) and bool(ZoneInfo(value))
    except (LookupError, OSError, ValueError):
        return False


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


def counted(number, noun):
    """Return a number with its noun: `1 file`, `2 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def digest(value, size=9):
    """Return `size` bytes, as hexadecimal digits, that stand for bytes, a string or another JSON value."""
    from hashlib import blake2b
    value = value if isinstance(value, bytes) else as_text(value).encode("utf-8", "replace")
    return blake2b(value, digest_size=size).hexdigest()


def workspace_text(request, key, name, what, *, limit=4 * MIB, cut=False, optional=False):
    """Return the text in the file that the payload names under `key`, else in `name`. Raises Failed.

    A file outside of the workspace counts for nothing: a payload may come from a stranger. `what` it should be is for
    the errors. `limit`: more is refused, or cut there with `cut`. With `optional` a missing file is empty, with a WARN.
    """
    workspace = workspace_of(request)
    path, given = os.path.join(workspace, name), payload_of(request).get(key)
    if isinstance(given, str) and "\0" not in given:
        given = os.path.realpath(os.path.join(workspace, given))
        path = given if given.startswith(os.path.join(workspace, "")) else path
    shown = os.path.relpath(path, workspace)
    try:
        if not os.path.isfile(path):
            missing = f"{shown}: there is no such {what} in the workspace"
            if not optional:
                raise Permanent(missing)
            log(missing, "warn")
            return ""
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise Retry(f"{shown}: {error.strerror}") from None
    if len(data) > limit and not cut:
        raise Permanent(f"{shown}: larger than {_size(limit)}, that is no {what}")
    return data[:limit].decode("utf-8", "replace").removeprefix("\ufeff").replace("\0", "")


def write_file(path, data):
    """Write a file completely or not at all, and never into one that is there: that may be another job's as well."""
    new = f"{path}.new"
    try:
        with open(new, "wb") as file:
            file.write(data)
        os.replace(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise


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


# Programs

ARGV = "a list of strings, the command and its arguments (a number needs quotes)"


def is_argv(value):
    """Say whether a value is a command and its arguments: see ARGV."""
    return (isinstance(value, list) and value != [] and value[0] != ""
            and all(isinstance(word, str) and "\0" not in word for word in value))


def start(argv, given, name=""):
    """Start a program without a shell and return its subprocess.Popen. Raises Failed, which begins with `name`.

    Its input is a file in memory, so that nothing waits for it to be read.
    """
    import errno
    import subprocess
    with open(os.memfd_create("input"), "w+b") as file:
        file.write(given)
        file.seek(0)
        try:
            # What this process inherited goes on: the lock by which Ductile knows that something of the run lives.
            return subprocess.Popen(argv, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, close_fds=False)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a string that a command line can hold"
            # The machine lacks something for the moment, or the file is just being written.
            passing = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY)
            raise Failed(f"{name}{argv[0]}: {reason}", retry=getattr(error, "errno", None) in passing) from None


def collect(child, limit=64 * 1024, *, cut=False, end=None):
    """Return the output of a program that `start` gave, whether it was more than `limit`, and what it complained of.

    Its standard error is passed on, and the last 64 KiB of it are returned. It returns once the program has ended; with
    more output than the limit at once, unless `cut`. Raises TimeoutError past `end`, a time of time.monotonic(). What
    the program leaves behind may hold the pipes open or write for ever: it is not waited for.
    """
    import select
    out, err, pidfd = child.stdout.fileno(), child.stderr.fileno(), os.pidfd_open(child.pid)
    kept, is_cut, tail, late, watched = bytearray(), False, b"", 0, [out, err, pidfd]
    try:
        while cut or not is_cut:
            has_ended = pidfd in select.select(watched, [], [], None if end is None else _left(end))[0]
            # Looked at after that: the last words may have come between the looks at the pipes and at the program.
            ready = select.select([fd for fd in watched if fd != pidfd], [], [], 0)[0]
            if has_ended and (is_cut or out not in ready) and (late >= _CHUNK_BYTES or err not in ready):
                break
            for fd in ready:
                data = os.read(fd, _CHUNK_BYTES)
                if not data:
                    watched.remove(fd)
                elif fd == out:
                    room = limit - len(kept)
                    kept += data[:room]
                    is_cut = is_cut or len(data) > room
                else:
                    _pass_on(data)
                    tail = (tail + data)[-_CHUNK_BYTES:]
                    late += len(data) if has_ended else 0
        return bytes(kept), is_cut, tail
    finally:
        os.close(pidfd)


def _pass_on(data):
    """Write to standard error what a program wrote to its own; a reader that is gone is none of its business."""
    while data:
        try:
            data = data[os.write(2, data):]
        except OSError:
            return


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
_HEADER_NAME = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# What a url may hold unquoted.
SAFE = "%/:?#[]@!$&'()*+,;=~"


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


def is_headers(value, reserved=()):
    """Say whether a value is a mapping of header names to strings, without those that are reserved, in lower case."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and re.fullmatch(_HEADER_NAME, name) and name.lower() not in reserved
        and isinstance(content, str) for name, content in value.items())


def basic(user, password):
    """Return the value of an Authorization header (RFC 7617)."""
    from base64 import b64encode
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


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
        if not re.fullmatch(_HEADER_NAME, name):
            raise Permanent("headers: expected names of letters, digits and hyphens")
        if not isinstance(value, bytes) or not re.fullmatch(rb"[\t -~\x80-\xff]*", value):
            raise Permanent(f"headers: {name}: expected one line of text")
        found[name.lower()] = value
    return found, body


def _redirected(found, location, method, headers, data, check):
    """Return method, url, headers and body for where a redirect leads."""
    from urllib.parse import quote, urljoin
    try:
        url = quote(urljoin(found.url, location), safe=SAFE)
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


# Urls that are looked at again and again

_FAILURES_TOLD = 5
_LONGEST_WAIT = 86_400


class Wait(Exception):
    """The server asks to be left alone until a time, in seconds since 1970."""

    def __init__(self, until):
        super().__init__(until)
        self.until = until


def changed(url, known, *, headers, timeout, limit):
    """Return a good answer, or None where the server says that it is still what `known` is of. Raises Failed and Wait.

    `known` is what `validators` returned of an earlier answer.
    """
    asked = {"If-None-Match": known.get("etag"), "If-Modified-Since": known.get("modified")}
    headers = headers | {name: value for name, value in asked.items() if value}
    answer = http("GET", url, headers=headers, timeout=timeout, limit=limit, redirects=5)
    if answer.status == 304:
        return None
    if answer.status in (429, 503) and answer.retry_after is not None:
        raise Wait(int(time.time() + min(answer.retry_after, _LONGEST_WAIT)))
    if not answer.ok:
        raise answer.error(": it is gone permanently, remove it from the configuration" if answer.status == 410 else "")
    return answer


def validators(answer):
    """Return what an answer gives to ask later whether it has changed (RFC 9110, 8.8)."""
    return {"etag": answer.headers.get("etag", "")[:1000], "modified": answer.headers.get("last-modified", "")[:1000]}


class Watched:
    """Urls with names that are looked at in turn: what is known of each, which of them wait, which failed.

    `kind` is what one of them is called: for `feed` the state has `feeds`, and an event is `feed.failing`.
    """

    def __init__(self, request, kind, names):
        kept = (request.get("state") or {}).get(f"{kind}s")
        self.kind, self._before = kind, kept if isinstance(kept, dict) else {}
        self.known = {name: self._before[name] for name in names if isinstance(self._before.get(name), dict)}
        self.errors, self.waiting, self.good, self.events = {}, [], 0, []
        self._end = time.monotonic() + seconds_left(request)

    def look(self, name, url, timeout, look):
        """Keep what `look` makes of what is known of a url; it gets that and the seconds that it has.

        It may raise Failed and Wait: then what was known stays.
        """
        known, now = self.known.get(name, {}), time.time()
        until = known.get("wait_until")
        # Beyond the longest wait the clock has been set back.
        if type(until) is int and now < until <= now + _LONGEST_WAIT:
            self.waiting.append(name)
            return
        left = self._end - time.monotonic()
        try:
            if left <= 0:
                raise Retry("there was no time left for it: raise timeouts.poll")
            found = look(dict(known), min(timeout, left))
        except Wait as wait:
            self.known[name] = known | {"wait_until": wait.until}
            self.waiting.append(name)
            until = time.strftime("%Y-%m-%d %H:%M", time.gmtime(wait.until))
            log(f"{name}: {where(url)} asks to wait until {until} UTC", "warn")
        except Failed as error:
            self.errors[name] = error
        else:
            self.known[name] = {key: value for key, value in found.items() if key not in ("failures", "wait_until")}
            self.good += 1

    def response(self, result):
        """Return the response: `events`, what is known, and a result. Raises Failed where nothing went well."""
        if self.errors and not self.good and not self.waiting:
            first = next(iter(self.errors))
            more = f" ({len(self.errors)} {self.kind}s failed)" if len(self.errors) > 1 else ""
            raise Failed(f"{first}: {self.errors[first]}{more}", retry=any(each.retry for each in self.errors.values()))
        for name, error in self.errors.items():
            self._note(name, error)
        failed = f", {len(self.errors)} failed" if self.errors else ""
        waiting = f", {len(self.waiting)} waiting" if self.waiting else ""
        found = {"status": "ok", "events": self.events, "result": f"{result}{failed}{waiting}"}
        return found | ({} if self.known == self._before else {"state_updates": {f"{self.kind}s": self.known}})

    def _note(self, name, error):
        """Count a failure in a row; one of them is told of."""
        log(f"{name}: {error}", "warn")
        known = self.known.get(name, {})
        count = known.get("failures", 0) + 1
        self.known[name] = known | {"failures": min(count, _FAILURES_TOLD)}
        if count == _FAILURES_TOLD:
            self.events.append({"type": f"{self.kind}.failing", "payload": {
                self.kind: name, "error": str(error), "message": f"{name}: {error}"}})


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


def with_token(config, state, run):
    """Return what `run(token)` answers, with the tokens that `oauth` gives in its `state_updates`.

    A failure keeps them too: a refresh token may have taken the place of the last. A token of an earlier run may have
    been revoked; then the next attempt gets another one.
    """
    tokens = oauth(config, state)
    try:
        response = run((state | tokens)["access_token"])
    except ConfigError:
        raise
    except Failed as error:
        raise Failed(str(error), retry=error.retry or not tokens,
                     state_updates=tokens or {"token_expires_at": 0}) from None
    return response | {"state_updates": tokens | response.get("state_updates", {})}


# Other servers

def server_keys(protocol, ports):
    """Return the keys for `settings` that say where a server is; `ports` has the port for each kind of security."""
    return {
        "host": (lambda value: is_line(value) and re.fullmatch(r"[A-Za-z0-9.:-]+", value),
                 f"the name of an {protocol} server"),
        "port": (is_number(1, 65_535, whole=True), "a port", None),
        "security": (tuple(ports), None, "tls"),
        "ca_file": (is_line, "a file of certificates", None),
        "oauth": (is_oauth, OAUTH, None),
    }


def with_port(config, ports, *, has_secret):
    """Return the configuration with its port. Raises ConfigError where a secret would be sent in the clear."""
    if config["security"] == "none" and has_secret and config["host"] not in ("localhost", "127.0.0.1", "::1"):
        raise ConfigError("security: a password is not sent in the clear; expected tls or starttls")
    return config | {"port": config["port"] or ports[config["security"]]}


def trusted(ca_file):
    """Return what TLS trusts: the certificates of a file, or with None those of the system. Raises ConfigError."""
    import ssl
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"ca_file: {error.strerror or 'it holds no certificates'}") from None


@contextlib.contextmanager
def connection(place, protocol, seconds, *stumbles):
    """Turn what goes wrong on a connection into Retry; `stumbles` are what a library raises for nonsense.

    Each read has a time limit of its own; all of them together have `seconds`.
    """
    import ssl
    try:
        with within(seconds, place, Retry):
            yield
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", None) or "the encrypted connection failed"
        raise Retry(f"{place}: {reason}") from None
    except OSError as error:
        raise Retry(f"{place}: {error.strerror or 'the connection failed'}") from None
    except (ValueError, *stumbles):
        raise Retry(f"{place} answered something that is not {protocol}") from None
