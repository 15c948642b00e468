"""The daemon's door: opens the listener where one is configured, moves it, closes it.

The listener and all that it needs is imported when there is one: it takes a quarter of the daemon's memory.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ductile import db
from ductile.clock import Clock
from ductile.errors import EXIT_SYSTEM, DuctileError
from ductile.health import Health
from ductile.injected import NewId
from ductile.runtime_config import RuntimeConfig
from ductile.webhook.group_commit import GroupCommit

Address = tuple[str, int]

# At a stop, for requests that are being answered; a client that is slower loses nothing that was acknowledged.
_PATIENCE_SECONDS = 1.0


class Front:
    """At most one listener, at the address that the world in force names."""

    def __init__(self, database: Path, *, clock: Clock, new_id: NewId, health: Callable[[], Health],
                 post: Callable[[BaseException | None], None]) -> None:
        """`health` tells how the daemon is; `post` takes None for a new job in the queue, or a fatal error."""
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._health = health
        self._post = post
        self._group: GroupCommit | None = None
        self._reception: Any = None
        self._listener: Any = None
        self._wanted: Address | None = None    # what `_listener` was told to listen on
        self._closed: list[Any] = []           # listeners that may still have a request to answer

    @property
    def address(self) -> str | None:
        """Return where webhooks are taken, None where nowhere."""
        return None if self._listener is None else self._listener.address

    def follow(self, runtime: RuntimeConfig) -> None:
        """Listen where `world` says, by its endpoints, from now on. A request that is being answered keeps its own.

        A new address is bound before the old one is given up. Where both overlap the old one goes first, and comes
        back if the new one cannot be had. Raises DuctileError (71), and then all is as it was.
        """
        webhooks = runtime.config.webhooks
        if webhooks is None:
            self.close()
            return
        self._prepare(runtime)
        wanted = (webhooks.host, webhooks.port)
        fresh = None if wanted == self._wanted else self._take(wanted)
        # Before the first request on the new address, which is to find the new endpoints.
        self._reception.runtime = runtime
        if fresh is not None:
            _start(fresh)
            self.close()
            self._listener, self._wanted = fresh, wanted

    def go_back(self, runtime: RuntimeConfig) -> None:
        """`follow` the world that was in force: its endpoints count even where its address cannot be had again."""
        if self._reception is not None:
            self._reception.runtime = runtime
        self.follow(runtime)

    def close(self) -> None:
        """Stop listening. What is being answered is answered."""
        if self._listener is not None:
            self._listener.close()
            self._closed = [*(each for each in self._closed if not each.is_quiet), self._listener]
        self._listener = self._wanted = None

    def finish(self) -> None:
        """Stop listening, and let what is being answered come to its end before the database is closed."""
        self.close()
        patient_until = self._clock.monotonic() + _PATIENCE_SECONDS
        for listener in self._closed:
            listener.wait_until_quiet(max(0.0, patient_until - self._clock.monotonic()))
        if self._group is not None:
            self._group.close()
            self._reception.refusals.tell(at_once=True)

    def beat(self) -> None:
        """Log how many requests were refused, where there were many."""
        if self._reception is not None:
            self._reception.refusals.tell()

    def _prepare(self, runtime: RuntimeConfig) -> None:
        """Have what answers requests, before the first can come. Raises DuctileError (71)."""
        if self._reception is not None:
            return
        try:
            reception = _load("ductile.webhook.handler")
            _load("ductile.webhook.listener")
        except (OSError, ImportError) as error:
            # Out of descriptors, say, or the program was taken away from the disk.
            raise DuctileError(f"cannot take webhooks: {error}; see what the machine lacks, then restart ductiled",
                               exit_code=EXIT_SYSTEM) from error
        self._group = GroupCommit(lambda: db.connect_again(self._database))
        self._reception = reception.Handler(
            runtime, self._group, clock=self._clock, new_id=self._new_id, health=self._health, post=self._post)

    def _take(self, wanted: Address) -> Any:
        """Return a listener on a new address. Raises DuctileError, and then the old one listens."""
        before = self._wanted
        try:
            return self._bind(wanted)
        except DuctileError:
            if before is None or before[1] != wanted[1]:
                raise
        # The old address may be what is in the way.
        self.close()
        try:
            return self._bind(wanted)
        except DuctileError:
            with contextlib.suppress(DuctileError):
                listener = self._bind(before)
                _start(listener)
                self._listener, self._wanted = listener, before
            raise

    def _bind(self, address: Address) -> Any:
        return _load("ductile.webhook.listener").Listener(*address, self._reception)


def _start(listener: Any) -> None:
    """Have a listener accept. Raises DuctileError (71) where there is no thread for it; its address is free then."""
    try:
        listener.start()
    except RuntimeError as error:
        where = listener.address
        listener.close()
        raise DuctileError(f"cannot listen on {where}: {error}; see what the machine lacks (memory, processes)",
                           exit_code=EXIT_SYSTEM) from error


def _load(name: str) -> Any:
    """Import what a listener needs, but for `ssl`: http.client loads it where it can, 4 MiB that are never used."""
    there = "ssl" in sys.modules
    if not there:
        sys.modules["ssl"] = None
    try:
        return import_module(name)
    finally:
        if not there:
            del sys.modules["ssl"]
