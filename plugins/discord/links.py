"""The links in the text of a Discord message, as Discord shows them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

# What is skipped: code, in which Discord makes no links, and the text of [text](url). Then the url itself, which ends
# at white space, also at an invisible one, at what quotes it, at a backslash (browsers take it for a slash) and where
# [text] becomes (url).
_PARTS = re.compile(
    r"```.*?```|``.*?``|`[^`]*`"
    r"|\[[^\[\]]*\]\((?=\s*<?https?://)"
    r"""|(?P<url>https?://(?:(?!\]\()[^\s<>"`\\\x00-\x1f\x7f\u200b\u2060\ufeff])+)""",
    re.DOTALL | re.IGNORECASE)
_AFTER_A_LINK = ".,:;!?'*~|…’”›»」』"
_PAIRS = {")": "(", "]": "["}


def find(content: str, hosts: list[str]) -> list[str]:
    """Return the distinct links to one of `hosts` or a host below one, to any where there are none, in their order."""
    found: dict[str, None] = {}
    for part in _PARTS.finditer(content):
        if part["url"] is None:
            continue
        before = content[max(0, part.start() - 3):part.start()]
        url = _trimmed(part["url"], underscores=len(before) - len(before.rstrip("_")))
        host = host_of(url)
        if host and (not hosts or any(host == name or host.endswith(f".{name}") for name in hosts)):
            found[url] = None
    return list(found)


def host_of(url: str) -> str:
    """Return the host of a url in lower case; an empty text where there is none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _trimmed(url: str, *, underscores: int) -> str:
    """Return a url without what belongs to the sentence around it.

    Of the underscores at its end as many go as stand before it, for italics and underlining; any other can be the
    last letter of a video's id.
    """
    end = len(url)
    opened = {mark: url.count(opening) - url.count(mark) for mark, opening in _PAIRS.items()}
    while end:
        last = url[end - 1]
        if last in _PAIRS and opened[last] < 0:
            opened[last] += 1
        elif last == "_" and underscores:
            underscores -= 1
        elif last not in _AFTER_A_LINK:
            break
        end -= 1
    return url[:end]
