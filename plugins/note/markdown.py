"""A note as text: its front matter, its body, and the name of its file."""

from __future__ import annotations

import json
import re
import unicodedata

NAME_BYTES = 120
# What a number at the end of a taken name and the ending need.
RESERVED_BYTES = len("-9999.md")
# They join the letters of Persian and the people of an emoji; other invisible characters only deceive.
_JOINERS = "\u200c\u200d"
_NO_TEXT = "\ufffe\uffff"


def one_line(text: str) -> str:
    """Return `text` on one line, without characters that control, break or turn it."""
    return " ".join("".join(char if _is_fit(char) else " " for char in text).split())


def front_matter(fields: dict[str, str | list[str]], date: str) -> str:
    """Return the YAML block: every field a quoted line, whatever strangers wrote into it; `date` is ISO 8601, ours."""
    lines = [f"{key}: {quoted(value)}" for key, value in fields.items()]
    return "\n".join(["---", *lines, f"date: {date}", "---", ""])


def identity(text: str) -> dict[str, str]:
    """Return the values of a note's front matter as they stand there; none where it has no whole one."""
    block = re.match(r"---\n(.*?)^---\n", text, re.DOTALL | re.MULTILINE)
    pairs = (line.partition(": ") for line in block[1].split("\n")) if block else ()
    return {key: value for key, _, value in pairs}


def body(title: str, url: str, summary: str, transcript: str) -> str:
    """Return what follows the front matter; an empty part is left out."""
    parts = [f"# {_escaped(title)}"]
    if re.fullmatch(r"https?://[^\s<>]+", url):
        parts.append(f"<{url}>")
    for heading, text in (("Summary", summary), ("Transcript", transcript)):
        if text:
            parts += [f"## {heading}", text]
    return "\n\n".join(parts) + "\n"


def stem(day: str, title: str) -> str:
    """Return the name of a note without its ending: the day and the title's letters and digits, in few enough bytes."""
    kept = (char if unicodedata.category(char)[0] in "LMN" else "-"
            for char in unicodedata.normalize("NFC", title.lower()))
    slug = re.sub("-+", "-", "".join(kept)).strip("-")
    room = NAME_BYTES - RESERVED_BYTES - len(f"{day}-")
    # An ignored error is a character that was cut in two at the end.
    short = slug.encode()[:room].decode(errors="ignore")
    # A mark belongs to the letter before it: without all of its marks a letter is another one.
    while short != slug and short and unicodedata.category(slug[len(short)])[0] == "M":
        short = short[:-1]
    return f"{day}-{short.strip('-') or 'untitled'}"


def quoted(value: str | list[str]) -> str:
    """Return texts of one line each as they stand in a front matter."""
    # A JSON text without control characters is a YAML text in double quotes; escapes of surrogates would not be.
    return json.dumps(value, ensure_ascii=False)


def _is_fit(char: str) -> bool:
    return char in _JOINERS or not (unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") or char in _NO_TEXT)


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_<>\[\]#|])", r"\\\1", text)
