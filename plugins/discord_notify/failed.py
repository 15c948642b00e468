"""Why the summary was not posted, or not all of it."""

from __future__ import annotations


class Failed(Exception):
    """Not everything was posted; `retry` says whether it may be posted later."""

    def __init__(self, text: str, *, retry: bool = False) -> None:
        super().__init__(text)
        self.retry = retry
