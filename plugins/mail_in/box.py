"""A folder of an IMAP server: by UID alone, and without touching what was not asked for (RFC 3501, 6851, 4315)."""

from __future__ import annotations

import base64
import imaplib
import re
from collections.abc import Sequence

from ductile_plugin import Failed, Permanent, Retry, one_line, trusted

PORTS = {"tls": 993, "starttls": 143, "none": 143}
# The server's date of a mail, its size, its number.
_SIZE, _UID = re.compile(rb"RFC822\.SIZE (\d+)"), re.compile(rb"UID (\d+)")
_ARRIVED = re.compile(rb'INTERNALDATE "([^"]{1,40})"')


class Box:
    """A connection that is logged in, with one folder open."""

    def __init__(self, config: dict, place: str, seconds: float) -> None:
        self._config, self._place, self._seconds = config, place, seconds
        self._imap: imaplib.IMAP4 | None = None

    def connect(self) -> None:
        config = self._config
        if config["security"] == "tls":
            self._imap = imaplib.IMAP4_SSL(config["host"], config["port"], ssl_context=trusted(config["ca_file"]),
                                           timeout=self._seconds)
            return
        self._imap = imaplib.IMAP4(config["host"], config["port"], timeout=self._seconds)
        if config["security"] == "starttls":
            if "STARTTLS" not in self._imap.capabilities:
                raise Permanent(f"{self._place} offers no encryption")
            self._imap.starttls(trusted(config["ca_file"]))

    def log_in(self, token: str | None) -> None:
        """Log in by password, or with a token where there is one. Raises Failed where the server refuses."""
        name = self._config["username"]
        try:
            if token is None:
                self._imap.login(name, self._config["password"])
                return
            answers = [f"user={name}\1auth=Bearer {token}\1\1".encode()]
            # A refusal comes as a challenge, which wants an empty answer before it becomes one.
            self._imap.authenticate("XOAUTH2", lambda _: answers.pop() if answers else b"")
        except imaplib.IMAP4.abort:
            raise
        except imaplib.IMAP4.error as error:
            said = one_line(str(error), 200, (self._config["password"], token))
            raise Failed(f"{self._place} refuses the login: {said}", retry=_may_pass(said)) from None

    def open(self, *, readonly: bool) -> tuple[int, int]:
        """Open the folder; return its UIDVALIDITY, and the UID that the next mail gets."""
        try:
            kind, data = self._imap.select(_quoted(self._config["folder"]), readonly=readonly)
        except imaplib.IMAP4.readonly:
            raise Permanent(f"{self._place} does not let {self._config['folder']} be changed") from None
        self._done("SELECT", kind, data, is_final=True)
        numbers = []
        for name in ("UIDVALIDITY", "UIDNEXT"):
            found = (self._imap.response(name)[1] or [None])[-1]
            if found is None or not re.fullmatch(rb"\d{1,10}", found):
                raise Retry(f"{self._place} tells no {name} of the folder")
            numbers.append(int(found))
        return numbers[0], numbers[1]

    def _done(self, what: str, kind: str, data: Sequence, *, is_final: bool = False) -> Sequence:
        if kind == "OK":
            return data
        said = one_line(data[-1].decode("utf-8", "replace"), 200) if data and isinstance(data[-1], bytes) else ""
        raise Failed(f"{self._place} refuses {what}: {said}", retry=not is_final or _may_pass(said))

    def search(self, *criteria: str) -> list[int]:
        """Return the UIDs that fit, in ascending order."""
        data = self._done("SEARCH", *self._imap.uid("SEARCH", *criteria))
        words = b" ".join(each for each in data if isinstance(each, bytes)).split()
        return sorted({int(word) for word in words if re.fullmatch(rb"\d{1,10}", word)})

    def since(self, uid: int) -> list[int]:
        """Return the UIDs from one on. The server gives its last mail too where none is so new."""
        return [found for found in self.search("UID", f"{uid}:*") if found >= uid]

    def describe(self, uid: int) -> tuple[int, str | None] | None:
        """Return a mail's size and when it arrived, as the server writes it; None for a mail that has gone."""
        answer = self._imap.uid("FETCH", str(uid), "(UID RFC822.SIZE INTERNALDATE)")
        data = self._done("FETCH", *answer, is_final=True)
        line = b" ".join(each for each in data if isinstance(each, bytes))
        size, arrived = _SIZE.search(line), _ARRIVED.search(line)
        if size is None or _UID.search(line) is None:
            return None
        return int(size[1]), arrived[1].decode("ascii", "replace") if arrived else None

    def fetch(self, uid: int, *, header_only: bool) -> bytes | None:
        """Return a mail, which stays unread; None where it has gone."""
        section = "BODY.PEEK[HEADER]" if header_only else "BODY.PEEK[]"
        data = self._done("FETCH", *self._imap.uid("FETCH", str(uid), f"(UID {section})"), is_final=True)
        return next((each[1] for each in data if isinstance(each, tuple) and isinstance(each[1], bytes)), None)

    def flag(self, uids: Sequence[int], flag: str) -> None:
        self._done("STORE", *self._imap.uid("STORE", _listed(uids), "+FLAGS.SILENT", f"({flag})"))

    def move(self, uids: Sequence[int], folder: str) -> bool:
        """Move mails. Return False where they were only copied and marked as deleted, as the server can do no more."""
        target = _quoted(folder)
        if "MOVE" in self._imap.capabilities:
            self._done("MOVE", *self._imap.uid("MOVE", _listed(uids), target))
            return True
        self._done("COPY", *self._imap.uid("COPY", _listed(uids), target))
        self.flag(uids, r"\Deleted")
        # Without UIDPLUS, EXPUNGE would also remove what others have marked.
        if "UIDPLUS" not in self._imap.capabilities:
            return False
        self._done("EXPUNGE", *self._imap.uid("EXPUNGE", _listed(uids)))
        return True

    def close(self) -> None:
        if self._imap is not None:
            try:
                self._imap.shutdown()
            except OSError:
                # It is closed all the same.
                return


def _may_pass(said: str) -> bool:
    """Say whether a refusal is one of those that pass (RFC 5530)."""
    return re.search(r"UNAVAILABLE|INUSE|LIMIT|too many|temporar", said, re.IGNORECASE) is not None


def _listed(uids: Sequence[int]) -> str:
    return ",".join(map(str, uids))


def _quoted(folder: str) -> str:
    r"""Return a folder's name in modified UTF-7 (RFC 3501, 5.1.3), quoted."""
    parts = []
    for run in re.findall(r"[ -~]+|[^ -~]+", folder):
        if " " <= run[0] <= "~":
            parts.append(run.replace("&", "&-").replace("\\", "\\\\").replace('"', '\\"'))
        else:
            coded = base64.b64encode(run.encode("utf-16-be")).decode().rstrip("=").replace("/", ",")
            parts.append(f"&{coded}-")
    return f'"{"".join(parts)}"'
