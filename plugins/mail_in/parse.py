"""A mail as a payload: what its headers say, its text, and its attachments as files with names that do no harm."""

from __future__ import annotations

import contextlib
import email
import email.policy
import hashlib
import html
import os
import re
from email.header import decode_header, make_header
from email.message import Message
from email.utils import getaddresses, parsedate_to_datetime
from pathlib import Path

from ductile_plugin import decoded, one_line, write_file

# Of a longer text the whole is in a file.
LONGEST_TEXT = 50_000
LONGEST_HEADER = 2000
# What is looked at of a header and of HTML.
LONGEST_RAW_HEADER, LONGEST_HTML = 20_000, 2_000_000
# Each may begin a part, which takes a kilobyte of memory.
MOST_BOUNDARIES = 20_000
MOST_PARTS, DEEPEST = 100, 20
LONGEST_NAME_BYTES = 150
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
# What turns the direction of writing, so that a name reads as another.
_BIDI = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def read(data: bytes, directory: Path) -> dict:
    """Return the payload for a mail; its attachments go into the directory. A mail that nobody can read is a file."""
    try:
        return _read(data, directory)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, email.errors.MessageError) as error:
        directory.mkdir(exist_ok=True)
        write_file(directory / "message.eml", data)
        found = {"subject": header(_head(data), "Subject"), "from": header(_head(data), "From"), "text": "",
                 "unreadable": one_line(f"{type(error).__name__}: {error}")}
        return found | {"attachments": [_described(directory / "message.eml", "message/rfc822", len(data))]}


def _read(data: bytes, directory: Path) -> dict:
    if data.count(b"\n--") > MOST_BOUNDARIES:
        raise ValueError("too many parts")
    # The modern policy raises on headers that are out of order; so each is decoded here.
    mail = email.message_from_bytes(data, policy=email.policy.compat32)
    [(name, sender), *_] = [*getaddresses([header(mail, "From")]), ("", "")]
    plain, rich, files = _parts(mail)
    text = plain if plain is not None else _visible((rich or "")[:LONGEST_HTML])
    found = {}
    if len(text) > LONGEST_TEXT:
        directory.mkdir(exist_ok=True)
        write_file(directory / "text.txt", text.encode("utf-8", "replace"))
        found = {"text_path": str(directory / "text.txt")}
    return found | {
        "message_id": header(mail, "Message-ID"), "subject": header(mail, "Subject"), "from": sender,
        "from_name": name, "to": _addresses(mail, "To"), "cc": _addresses(mail, "Cc"),
        "reply_to": _addresses(mail, "Reply-To"), "in_reply_to": header(mail, "In-Reply-To"),
        "list_id": header(mail, "List-Id"), "date": _date(header(mail, "Date")),
        "is_automatic": header(mail, "Auto-Submitted").lower() not in ("", "no"),
        "text": text[:LONGEST_TEXT],
        "attachments": [_saved(part, directory) for part in files]}


def identity(data: bytes, size: int) -> str:
    """Return what tells a mail from others, also after a server has numbered its mails anew."""
    mail = _head(data)
    parts = [header(mail, name) for name in ("Message-ID", "From", "Date", "Subject")]
    if not parts[0]:
        parts.append(str(size))
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:32]


def _head(data: bytes) -> Message:
    """Return a mail without its body."""
    head = re.split(rb"\r?\n\r?\n", data[:64 * LONGEST_RAW_HEADER], maxsplit=1)[0]
    return email.message_from_bytes(head, policy=email.policy.compat32)


def header(mail: Message, name: str) -> str:
    """Return a header as one line of text; empty where there is none."""
    value = mail.get(name)
    if value is None:
        return ""
    text = str(value)[:LONGEST_RAW_HEADER]
    # What cannot be decoded is shown as it is written.
    with contextlib.suppress(ValueError, LookupError, email.errors.MessageError):
        text = str(make_header(decode_header(text)))
    return one_line(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), LONGEST_HEADER)


def _addresses(mail: Message, name: str) -> list[str]:
    return [found for _, found in getaddresses([header(mail, name)]) if found][:MOST_PARTS]


def _date(text: str) -> str | None:
    try:
        return parsedate_to_datetime(text).isoformat()
    except (TypeError, ValueError, OverflowError):
        return None


def _parts(mail: Message) -> tuple[str | None, str | None, list[Message]]:
    """Return the plain text, the HTML, and what is attached. A mail within the mail is an attachment."""
    plain, rich, files = None, None, []
    waiting, count = [(mail, 0)], 0
    while waiting and count < MOST_PARTS:
        part, depth = waiting.pop(0)
        count += 1
        kind = part.get_content_type()
        is_file = part.get_content_disposition() == "attachment" or _name_of(part) != ""
        if part.get_content_maintype() == "multipart" and isinstance(part.get_payload(), list):
            waiting[:0] = [(each, depth + 1) for each in part.get_payload()] if depth < DEEPEST else []
        elif kind == "text/plain" and not is_file:
            plain = "\n".join(filter(None, (plain, _text_of(part))))
        elif kind == "text/html" and not is_file:
            rich = rich if rich is not None else _text_of(part)
        else:
            files.append(part)
    return plain, rich, files


def _text_of(part: Message) -> str:
    data = part.get_payload(decode=True) or b""
    text = decoded(data, part.get_content_charset() or "")
    return text.replace("\r\n", "\n").replace("\0", "").strip()


def _name_of(part: Message) -> str:
    name = part.get_filename()
    if not name:
        return ""
    try:
        return str(make_header(decode_header(name)))
    except (ValueError, LookupError, email.errors.MessageError):
        return str(name)


def _saved(part: Message, directory: Path) -> dict:
    kind = part.get_content_type()
    if kind == "message/rfc822" and isinstance(part.get_payload(), list):
        data = part.get_payload(0).as_bytes()
    else:
        payload = part.get_payload(decode=True)
        data = payload if isinstance(payload, bytes) else b""
    directory.mkdir(exist_ok=True)
    path = directory / free_name(_name_of(part) or _made_up(kind), directory)
    write_file(path, data)
    return _described(path, kind, len(data))


def _described(path: Path, kind: str, size: int) -> dict:
    return {"name": path.name, "path": str(path), "type": kind, "size": size}


def _made_up(kind: str) -> str:
    ending = {"message/rfc822": ".eml", "text/calendar": ".ics", "text/plain": ".txt", "text/html": ".html",
              "image/png": ".png", "image/jpeg": ".jpg", "application/pdf": ".pdf"}.get(kind, ".bin")
    return f"attachment{ending}"


def free_name(name: str, directory: Path) -> str:
    """Return a name for a file that leads nowhere, is none of a system's own, and is not taken."""
    name = name.encode("utf-8", "replace").decode().replace("\\", "/").rpartition("/")[2]
    name = "".join(char for char in _BIDI.sub("", name) if char.isprintable()).strip().lstrip(".")
    if not name or _RESERVED.fullmatch(name):
        name = f"file-{name}"
    stem, ending = os.path.splitext(name)
    ending = ending if len(ending.encode()) <= 20 else ""
    stem = stem.encode()[:LONGEST_NAME_BYTES - len(ending.encode())].decode(errors="ignore")
    found, number = f"{stem}{ending}", 1
    while (directory / found).exists():
        number += 1
        found = f"{stem}-{number}{ending}"
    return found


_HIDDEN = ("script", "style", "head", "title", "template")
_BLOCKS = ("p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "table", "blockquote", "hr", "ul", "ol", "body")
_TAG = re.compile("</?([a-z][a-z0-9]*)")


def _visible(rich: str) -> str:
    """Return the text of HTML: without what is not shown, with a line for each block.

    The library's reader takes the square of the time for HTML that is made so; here each search that fails is the last.
    """
    small, parts, at = rich.lower(), [], 0
    while (start := rich.find("<", at)) >= 0:
        parts.append(rich[at:start])
        tag = _TAG.match(small, start)
        if tag is None and not rich.startswith(("<!", "<?", "</"), start):
            # A sign and no tag.
            parts.append("<")
            at = start + 1
            continue
        end = "-->" if rich.startswith("<!--", start) else ">"
        if tag is not None and tag[1] in _HIDDEN and small[start + 1] != "/":
            end = f"</{tag[1]}"
        found = small.find(end, start)
        at = len(rich) if found < 0 else found + len(end)
        if end.startswith("</") and found >= 0:
            found = small.find(">", at)
            at = len(rich) if found < 0 else found + 1
        if tag is not None and tag[1] in _BLOCKS:
            parts.append("\0")
    parts.append(rich[at:])
    shown = re.sub(r"\s+", " ", html.unescape("".join(parts)))
    lines = [line.strip() for line in shown.split("\0")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
