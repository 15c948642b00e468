"""Why there is no summary."""

from __future__ import annotations


class Failed(Exception):
    """There is no summary; `retry` says whether there may be one later."""

    def __init__(self, text: str, *, retry: bool = False) -> None:
        super().__init__(text)
        self.retry = retry
