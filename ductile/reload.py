"""Reload: read everything again, compare, and switch to it, or keep the current configuration and say why."""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Iterator, Mapping
from datetime import datetime

from ductile import db, log, submit
from ductile.changes import compare
from ductile.config import load_table
from ductile.db import Damaged, FateUnknown, NotWritten, transaction
from ductile.errors import DuctileError
from ductile.injected import NewId
from ductile.pipeline import version_table
from ductile.plugin import plugin_table
from ductile.protocol import PLUGIN_AVAILABLE, PLUGIN_UNAVAILABLE
from ductile.queue import job_table
from ductile.runtime_config import ConfigSource, LoadResult, RuntimeConfig
from ductile.text import one_line
from ductile.webhook.server import WebhookServer

_log = log.Component("daemon")


class Reload:
    """Replaces the configuration in force. The daemon holds the current one."""

    def __init__(self, conn: sqlite3.Connection, *, source: ConfigSource, webhooks: WebhookServer,
                 new_id: NewId) -> None:
        self._conn = conn
        self._new_id = new_id
        self._source = source
        self._webhooks = webhooks

    def start(self, runtime: RuntimeConfig, now: datetime) -> None:
        """Listen and record the first configuration. Raises DuctileError, NotWritten."""
        self._webhooks.apply(runtime)
        self._record(runtime, (), now)

    def read_again(self, in_force: RuntimeConfig, now: datetime) -> RuntimeConfig | None:
        """Return the new configuration, or log why it is rejected and return None.

        No error of reading ends a running daemon, not even a bug. Only Damaged and FateUnknown are raised: then the
        state of the disk is unknown, and another start has to read it.
        """
        try:
            reading = self._source.read_again(in_force)
            changes = compare(in_force, reading.runtime, self._failing(reading.runtime))
            self._swap(in_force, reading, changes, now)
        except (Damaged, FateUnknown):
            raise
        except Exception as error:
            self._reject(_reasons(error), now)
            return None
        for line in reading.faults:
            _log.error(line)
        for line in reading.warnings:
            _log.warn(line)
        _log.info("configuration reloaded", changes=changes)
        return reading.runtime

    def _failing(self, runtime: RuntimeConfig) -> Mapping[str, int]:
        """Return how many queued jobs the new configuration fails, by plugin."""
        with db.database_errors(self._conn):
            return job_table.count_queued_outside(self._conn, runtime.enabled)

    def _swap(self, in_force: RuntimeConfig, reading: LoadResult, changes: tuple[str, ...], now: datetime) -> None:
        """Switch to the new configuration and its log. If that fails, nothing has changed."""
        opened = self._source.open_log(reading.runtime.config)
        try:
            self._follow(in_force, reading.runtime, changes, now)
        except BaseException:
            opened.close()
            raise
        opened.use()

    def _follow(self, in_force: RuntimeConfig, runtime: RuntimeConfig, changes: tuple[str, ...], now: datetime) -> None:
        try:
            self._webhooks.apply(runtime)
            self._record(runtime, changes, now)
        except (Damaged, FateUnknown):
            # The daemon ends with this error; a rollback that fails would hide it.
            raise
        except Exception as error:
            try:
                self._webhooks.restore(in_force)
            except DuctileError as another:
                raise DuctileError(*_reasons(error), *another.lines, exit_code=another.exit_code) from error
            raise

    def _record(self, runtime: RuntimeConfig, changes: tuple[str, ...], now: datetime) -> None:
        """Record the configuration in force."""
        with transaction(self._conn):
            load_table.add(self._conn, digest=runtime.digest, errors=(), changes=changes, listen=self._webhooks.address,
                            now=now)
            before = {load.plugin: load for load in plugin_table.loads(self._conn)}
            plugin_table.replace_loads(self._conn, _loads(runtime), now)
            version_table.add(self._conn, runtime.router.pipelines.values(), now)
            for event_type, payload in _availability(before, runtime):
                submit.submit_core_event(self._conn, runtime, event_type, payload, new_id=self._new_id, now=now)

    def _reject(self, errors: tuple[str, ...], now: datetime) -> None:
        for line in errors:
            _log.error(line)
        _log.error("reload rejected; keeping the current configuration")
        try:
            with transaction(self._conn):
                load_table.add(self._conn, digest="", errors=errors, now=now)
        except NotWritten as error:
            _log.error("rejected reload not recorded", error=str(error))


def _reasons(error: Exception) -> tuple[str, ...]:
    """Return the reasons of an error, a line each. Log the traceback of a bug."""
    if isinstance(error, DuctileError):
        return error.lines
    if isinstance(error, NotWritten):
        return (str(error),)
    _log.error("the configuration cannot be read because of a bug in ductiled",
               traceback="".join(traceback.format_exception(error)))
    return (one_line(f"a bug in ductiled, please report it: {type(error).__name__}: {error}"),)


def _availability(before: Mapping[str, plugin_table.PluginLoad],
                  runtime: RuntimeConfig) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Yield a core event for each enabled plugin that cannot be loaded any more, or can be again."""
    for name in runtime.enabled:
        reason = runtime.unavailable.get(name)
        known = before.get(name)
        was_unavailable = known is not None and known.enabled and known.reason is not None
        if (reason is not None) != was_unavailable:
            yield (PLUGIN_AVAILABLE if reason is None else PLUGIN_UNAVAILABLE), {"plugin": name, "reason": reason}


def _loads(runtime: RuntimeConfig) -> list[plugin_table.PluginLoad]:
    return [
        plugin_table.PluginLoad(plugin=name, version=plugin.version, enabled=plugin.settings.enabled,
                         needs_init=plugin.needs_init, reason=plugin.reason, commands=plugin.commands)
        for name, plugin in runtime.plugins.items()
    ]
