"""The daemon's side of webhooks: opens the listener if one is configured, moves it on a reload, and closes it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ductile import db
from ductile.clock import Clock
from ductile.errors import EXIT_SYSTEM, DuctileError
from ductile.injected import NewId
from ductile.runtime_config import RuntimeConfig
from ductile.webhook.group_commit import GroupCommit, JobStore
from ductile.webhook.health import Health, document

if TYPE_CHECKING:
    from ductile.webhook.handler import Handler
    from ductile.webhook.listener import Listener

Address = tuple[str, int]

# At a stop, for requests in progress. Nothing that was acknowledged depends on it.
_FINISH_SECONDS = 1.0


class WebhookServer:
    """At most one listener, on the address that the current configuration names."""

    def __init__(self, database: Path, *, clock: Clock, new_id: NewId, health: Callable[[], Health],
                 post: Callable[[BaseException | None], None]) -> None:
        """`health` returns the state of the loop; `post` takes None for a new job in the queue, or a fatal error."""
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._health = health
        self._post = post
        self._runtime: RuntimeConfig
        self._group: GroupCommit | None = None
        self._handler: Handler | None = None
        self._listener: Listener | None = None
        self._configured: Address | None = None     # the address of `_listener` in the configuration
        self._closed: list[Listener] = []           # listeners that may still have a request to answer

    @property
    def address(self) -> str | None:
        """The listening address; None without a listener."""
        return None if self._listener is None else self._listener.address

    def apply(self, runtime: RuntimeConfig) -> None:
        """Listen as `runtime` says. Requests in progress keep their configuration.

        A new address is bound before the old one is closed. If both overlap, the old one is closed first, and bound
        again if the new one fails. Raises DuctileError (71), and then nothing has changed.
        """
        webhooks = runtime.config.webhooks
        if webhooks is None:
            self.close()
            return
        address = (webhooks.host, webhooks.port)
        handler = self._load()
        new = None if address == self._configured else self._bind(handler, address)
        # Before the first request on the new address.
        self._runtime = runtime
        if new is not None:
            new.start()
            self.close()
            self._listener, self._configured = new, address

    def restore(self, runtime: RuntimeConfig) -> None:
        """`apply` the previous configuration; its endpoints are in force even if its address cannot be bound again."""
        self._runtime = runtime
        self.apply(runtime)

    def close(self) -> None:
        """Stop listening. Requests in progress are still answered."""
        if self._listener is not None:
            self._listener.close()
            self._closed = [*(each for each in self._closed if not each.is_quiet), self._listener]
        self._listener = self._configured = None

    def finish(self) -> None:
        """Stop listening, wait for requests in progress, and close the database connection."""
        self.close()
        deadline = self._clock.monotonic() + _FINISH_SECONDS
        for listener in self._closed:
            listener.wait_until_quiet(max(0.0, deadline - self._clock.monotonic()))
        if self._group is not None:
            self._group.close()
        if self._handler is not None:
            self._handler.refusals.report(at_once=True)

    def beat(self) -> None:
        """Log how many more requests were refused."""
        if self._handler is not None:
            self._handler.refusals.report()

    def _load(self) -> Handler:
        """Create what answers requests, once. Raises DuctileError (71).

        It is imported only for a configured listener: `http.server` takes 6 of the 30 MiB that a daemon without one may
        use.
        """
        if self._handler is not None:
            return self._handler
        try:
            module = import_module("ductile.webhook.handler")
        except (OSError, ImportError) as error:
            # Out of descriptors, for example.
            raise DuctileError(f"cannot receive webhooks: {error}; check the installation and the limit on open files",
                               exit_code=EXIT_SYSTEM) from error
        group = GroupCommit(lambda: db.connect_again(self._database))
        store = JobStore(group, current=lambda: self._runtime, post=self._post)
        handler: Handler = module.Handler(current=lambda: self._runtime, clock=self._clock, new_id=self._new_id,
                                          submit=store.submit, health=self._health_document)
        self._group, self._handler = group, handler
        return handler

    def _health_document(self) -> Mapping[str, Any]:
        assert self._group is not None
        limit = self._runtime.config.service.max_queue_depth
        health = self._health()
        return self._group.look(lambda conn: document(health, conn, limit))

    def _bind(self, handler: Handler, address: Address) -> Listener:
        """Return a listener on a new address. Raises DuctileError, and then the old one still listens."""
        old = self._configured
        try:
            return handler.listen(*address)
        except DuctileError:
            if old is None or old[1] != address[1]:
                raise
        # The same port: the old address may be in the way.
        self.close()
        try:
            return handler.listen(*address)
        except DuctileError:
            with contextlib.suppress(DuctileError):
                listener = handler.listen(*old)
                listener.start()
                self._listener, self._configured = listener, old
            raise
