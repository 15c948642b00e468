"""Shipped plugins that can be held back when they have done all that they do, and nobody knows of it yet."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from support.daemon import RealDaemon
from support.gate import line_from

_SHIPPED = Path(__file__).resolve().parents[2] / "plugins"
# It runs the plugin, and keeps its answer for ever where a FIFO asks for that: the worst moment for a kill.
_HELD_BACK = """\
#!/bin/sh
here=${0%/*}
answer=$("$here"/run.*)
code=$?
[ ! -p "$here/arrived" ] || { echo >"$here/arrived"; exec sleep 999999999; }
printf '%s\\n' "$answer"
exit $code
"""


class HeldBack:
    """The plugins of a daemon, copied from those that are shipped."""

    def __init__(self, daemon: RealDaemon) -> None:
        self._daemon, self._plugins = daemon, daemon.home / "held-back"
        # With what is compiled of them: else each daemon's first runs compile all of it again.
        shutil.copytree(_SHIPPED, self._plugins, ignore=shutil.ignore_patterns("test_*", "_template"))
        for manifest in self._plugins.glob("*/manifest.yaml"):
            manifest.write_text(re.sub(r"^entrypoint: .*", "entrypoint: held-back", manifest.read_text(), flags=re.M))
            program = manifest.parent / "held-back"
            program.write_text(_HELD_BACK)
            program.chmod(0o755)
        daemon.config["plugins_dir"] = os.fspath(self._plugins)
        daemon.configure()

    def hold(self, *plugins: str) -> None:
        """Hold back the next run of each of these."""
        for plugin in plugins:
            os.mkfifo(self._plugins / plugin / "arrived")

    def kill_in(self, plugin: str) -> None:
        """Kill the daemon when the run of a plugin is held back, and start it again."""
        arrived = self._plugins / plugin / "arrived"
        line_from(arrived)
        arrived.unlink()
        self._daemon.kill()
        self._daemon.start()
