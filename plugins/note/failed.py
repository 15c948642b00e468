"""Why there is no note."""

from __future__ import annotations


class Failed(Exception):
    """No note was filed; `retry` says whether one may be filed later."""

    def __init__(self, text: str, *, retry: bool = False) -> None:
        super().__init__(text)
        self.retry = retry
