"""The daemon's side of webhooks: opens the listener, moves it on a reload, and closes it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ductile import db
from ductile.clock import Clock
from ductile.config.model import Address, Webhooks
from ductile.errors import EXIT_CONFIG, EXIT_SYSTEM, DuctileError
from ductile.injected import NewId
from ductile.runtime_config import RuntimeConfig
from ductile.webhook.group_commit import GroupCommit, JobStore
from ductile.webhook.health import Health, document
from ductile.webhook.metrics import Metrics
from ductile.webhook.sockets import ServerSocket, adopt, bind, text_of, unnamed

if TYPE_CHECKING:
    from ductile.webhook.handler import Handler
    from ductile.webhook.listener import Limits, Listener

# An address, or a passed socket that is served whatever its address; and whether only health is served there.
Wanted = tuple[Address | ServerSocket, bool]

# At a stop, for requests in progress. Nothing that was acknowledged depends on it.
_FINISH_SECONDS = 1.0


class WebhookServer:
    """Listens on the addresses that the current configuration names, and on the sockets that systemd has passed."""

    def __init__(self, database: Path, *, clock: Clock, new_id: NewId, health: Callable[[], Health],
                 post: Callable[[BaseException | None], None], passed: Sequence[socket.socket] = ()) -> None:
        """`health` returns the state of the loop; `post` takes None for a new job in the queue, or a fatal error."""
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._health = health
        self._post = post
        self._passed = tuple(passed)
        self._runtime: RuntimeConfig
        self._group: GroupCommit | None = None
        self._handler: Handler | None = None
        self._metrics: Metrics | None = None
        self._listener: Listener | None = None
        self._sockets: tuple[ServerSocket, ...] = ()

    @property
    def address(self) -> str | None:
        """The listening addresses; None without any."""
        return ", ".join(map(str, self._sockets)) or None

    def apply(self, runtime: RuntimeConfig) -> None:
        """Listen as `runtime` says. Requests in progress keep their configuration.

        A new address is bound before an old one is closed. If both overlap, the old one is closed first, and bound
        again if the new one fails. Raises DuctileError, and then nothing has changed: 71 if an address is not
        available, 78 for a passed socket without one.
        """
        wanted = self._wanted(runtime)
        if not wanted and self._listener is None:
            self._runtime = runtime
            return
        self._load()
        after = self._bound(wanted)
        before = self._sockets
        # Before the first request on a new address.
        self._runtime = runtime
        try:
            self._serve(after, self._limits(runtime))
        except DuctileError:
            # No thread for the first of all sockets.
            _close(after)
            self._sockets = ()
            raise
        _close(each for each in before if each not in after)

    def _wanted(self, runtime: RuntimeConfig) -> list[Wanted]:
        """Return where to listen. Raises DuctileError (78) for a passed socket that no address names."""
        webhooks = runtime.config.webhooks or Webhooks()
        listen: Sequence[Address | ServerSocket] = webhooks.listen
        strangers = unnamed(self._passed, (*webhooks.listen, *webhooks.health_listen))
        if not listen:
            known = {each.socket: each for each in self._sockets}
            listen = [known.get(each) or adopt(each) for each in strangers]
        elif strangers:
            raise DuctileError("systemd passed a socket that webhooks.listen does not name:"
                               f" {', '.join(map(text_of, strangers))}; add the address, or remove it from the socket"
                               " unit", exit_code=EXIT_CONFIG)
        return [*((each, False) for each in listen), *((each, True) for each in webhooks.health_listen)]

    def _bound(self, wanted: Sequence[Wanted]) -> tuple[ServerSocket, ...]:
        """Return sockets for all addresses. Raises DuctileError (71), and then the old ones still listen."""
        try:
            return self._bind_missing(wanted)
        except DuctileError:
            addresses = [each for each, _ in wanted]
            ports = {(each.port, each.path) for each in addresses if isinstance(each, Address)}
            in_the_way = [each for each in self._sockets if (each.address.port, each.address.path) in ports
                          and not each.is_passed and each.address not in addresses]
            if not in_the_way:
                raise
        # The same port on another address.
        self._serve(each for each in self._sockets if each not in in_the_way)
        _close(in_the_way)
        try:
            return self._bind_missing(wanted)
        except DuctileError:
            for each in in_the_way:
                with contextlib.suppress(DuctileError):
                    self._serve((*self._sockets, bind(each.address, is_health=each.is_health)))
            raise

    def _bind_missing(self, wanted: Sequence[Wanted]) -> tuple[ServerSocket, ...]:
        """Return sockets for all addresses; those that are listened on already are kept. Raises DuctileError (71)."""
        old = {(each.address, each.is_health): each for each in self._sockets}
        new: list[ServerSocket] = []
        after: list[ServerSocket] = []
        try:
            for address, is_health in wanted:
                if isinstance(address, ServerSocket):
                    after.append(address)
                elif (address, is_health) in old:
                    after.append(old[address, is_health])
                else:
                    new.append(bind(address, is_health=is_health, passed=self._passed))
                    after.append(new[-1])
        except DuctileError:
            _close(new)
            raise
        return tuple(after)

    def _serve(self, sockets: Iterable[ServerSocket], limits: Limits | None = None) -> None:
        assert self._listener is not None
        self._sockets = tuple(sockets)
        self._listener.serve(self._sockets, limits)

    def _limits(self, runtime: RuntimeConfig) -> Limits | None:
        webhooks = runtime.config.webhooks
        return None if webhooks is None else self._module("listener").Limits(connections=webhooks.connections)

    def restore(self, runtime: RuntimeConfig) -> None:
        """`apply` the previous configuration; its endpoints are in force even if its address cannot be bound again."""
        self._runtime = runtime
        self.apply(runtime)

    def close(self) -> None:
        """Stop listening. Requests in progress are still answered. Passed sockets stay open: systemd holds them."""
        if self._listener is not None:
            self._listener.close()
        _close(self._sockets)
        self._sockets = ()

    def finish(self) -> None:
        """Stop listening, wait for requests in progress, and close the database connection."""
        self.close()
        if self._listener is not None:
            self._listener.wait_until_quiet(_FINISH_SECONDS)
        if self._group is not None:
            self._group.close()
        if self._handler is not None:
            self._handler.refusals.report(at_once=True)

    def beat(self) -> None:
        """Log how many more requests were refused."""
        if self._handler is not None:
            self._handler.refusals.report()

    def _load(self) -> None:
        """Create what answers requests, once. Raises DuctileError (71).

        It is imported only for a configured listener: `http.server` takes 6 of the 30 MiB that a daemon without one may
        use.
        """
        if self._listener is not None:
            return
        module = self._module("handler")
        group = GroupCommit(lambda: db.connect_again(self._database))
        store = JobStore(group, current=lambda: self._runtime, post=self._post)
        handler: Handler = module.Handler(current=lambda: self._runtime, clock=self._clock, new_id=self._new_id,
                                          submit=store.submit, health=self._health_document,
                                          metrics=self._metrics_text)
        self._metrics = group.look(lambda conn: Metrics(conn, self._clock.now()))
        self._group, self._handler = group, handler
        self._listener = self._module("listener").Listener(handler.handle)

    def _module(self, name: str) -> Any:
        try:
            return import_module(f"ductile.webhook.{name}")
        except (OSError, ImportError) as error:
            # Out of descriptors, for example.
            raise DuctileError(f"cannot receive webhooks: {error}; check the installation and the limit on open files",
                               exit_code=EXIT_SYSTEM) from error

    def _health_document(self) -> Mapping[str, Any]:
        assert self._group is not None
        limit = self._runtime.config.service.max_queue_depth
        health = self._health()
        return self._group.look(lambda conn: document(health, conn, limit))

    def _metrics_text(self) -> str:
        assert self._group is not None and self._handler is not None and self._metrics is not None
        metrics, answers, health, now = self._metrics, self._handler.answers(), self._health(), self._clock.now()
        return self._group.look(lambda conn: metrics.text(conn, health=health, answers=answers, now=now))


def _close(sockets: Iterable[ServerSocket]) -> None:
    for each in sockets:
        each.close()
