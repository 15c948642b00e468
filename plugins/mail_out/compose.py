"""The mail that an event becomes."""

from __future__ import annotations

import hashlib
import html
import mimetypes
import os
import re
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, getaddresses, parseaddr

from ductile_plugin import Permanent, as_text, event_of, one_line
from ductile_plugin import text as fill

MOST_RECIPIENTS = 100
# Base64 makes it 27 MiB; the largest services take 25 MB.
MOST_ATTACHED_BYTES = 18 * 1024 * 1024
LONGEST_SUBJECT = 200
_LOCAL_PART = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+")


def address(value: str) -> tuple[str, str] | None:
    """Return the display name and the address in ASCII, or None where there is none that SMTP can carry."""
    return _carried(*parseaddr(value))


def _carried(name: str, spec: str) -> tuple[str, str] | None:
    local, _, domain = spec.rpartition("@")
    try:
        domain = domain.encode("idna").decode()
    except UnicodeError:
        return None
    # The library would encode another local part as a word that no server understands.
    if not _LOCAL_PART.fullmatch(local) or not re.fullmatch(r"[A-Za-z0-9.-]+", domain) or not name.isprintable():
        return None
    return name, f"{local}@{domain}"


def is_address(value: object) -> bool:
    return isinstance(value, str) and address(value) is not None


def compose(request: dict, config: dict) -> EmailMessage:
    """Return the mail. Raises Permanent for what a template lacks, for an address and for an attachment."""
    event = event_of(request)
    payload, context = event.get("payload", {}), request.get("context")

    def filled(key: str, **options: object) -> str:
        return as_text(fill(config[key], payload, context, name=key, **options))

    mail = EmailMessage(policy=SMTP)
    sender = address(config["from"])
    mail["From"] = _address(sender)
    for key, header in (("to", "To"), ("cc", "Cc")):
        if config[key]:
            mail[header] = [_address(found) for found in _recipients(config[key], payload, context, key)]
    mail["Subject"] = one_line(_subject(event, payload) if config["subject"] is None else filled("subject"),
                               LONGEST_SUBJECT)
    mail["Date"] = formatdate()
    # The same for each attempt of a job, so that a server or a reader can fold a mail that was sent again.
    mark = hashlib.sha256(str(request.get("job_id")).encode()).hexdigest()[:32]
    mail["Message-ID"] = f"<{mark}@{sender[1].rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(_clean(_text(payload) if config["text"] is None else filled("text")))
    if config["html"] is not None:
        mail.add_alternative(_clean(filled("html", escape=html.escape)), subtype="html")
    _attach(mail, _paths(config["attach"], payload, context), str(request.get("workspace_dir")))
    return mail


def _address(found: tuple[str, str]) -> Address:
    return Address(display_name=found[0], addr_spec=found[1])


def _recipients(templates: object, payload: object, context: object, key: str) -> list[tuple[str, str]]:
    listed = templates if isinstance(templates, list) else [templates]
    texts = [as_text(fill(each, payload, context, name=key)) for each in listed]
    found = [_carried(name, spec) for name, spec in getaddresses(texts)]
    if not found or None in found or len(found) > MOST_RECIPIENTS:
        raise Permanent(f"{key}: expected 1 to {MOST_RECIPIENTS} addresses in ASCII such as ann@example.org")
    return found


def _subject(event: dict, payload: object) -> str:
    subject = payload.get("subject") if isinstance(payload, dict) else None
    return subject if isinstance(subject, str) and subject.strip() else f"{event.get('type', 'event')}"


def _text(payload: object) -> str:
    message = payload.get("message") if isinstance(payload, dict) else None
    return as_text(payload if message is None else message)


def _clean(value: str) -> str:
    return value.encode("utf-8", "replace").decode().replace("\0", "") + "\n"


def _paths(templates: list | None, payload: object, context: object) -> list[str]:
    """Return the paths to attach, without the empty ones. Raises Permanent."""
    if templates is not None:
        paths = [as_text(fill(each, payload, context, name=f"attach[{index}]"))
                 for index, each in enumerate(templates)]
    else:
        paths = payload.get("attach") if isinstance(payload, dict) else None
    if paths is None:
        return []
    if not isinstance(paths, list) or not all(isinstance(each, str) for each in paths):
        raise Permanent("attach: expected a list of paths in the payload")
    return [path for path in paths if path]


def _attach(mail: EmailMessage, paths: list[str], workspace: str) -> None:
    left = MOST_ATTACHED_BYTES
    for index, path in enumerate(paths):
        data = _read(path, workspace, f"attach[{index}]", left)
        left -= len(data)
        kind = (mimetypes.guess_type(path)[0] or "application/octet-stream").split("/")
        mail.add_attachment(data, maintype=kind[0], subtype=kind[1], filename=one_line(os.path.basename(path), 150))


def _read(path: str, workspace: str, name: str, limit: int) -> bytes:
    """Return what is in a file of the workspace, and of nowhere else: a payload may come from a stranger."""
    real = os.path.realpath(os.path.join(workspace, path))
    if not real.startswith(os.path.join(os.path.realpath(workspace), "")) or not os.path.isfile(real):
        raise Permanent(f"{name}: no such file in the workspace")
    with open(real, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Permanent(f"{name}: the attachments are larger than {MOST_ATTACHED_BYTES // 1024 // 1024} MiB")
    return data
