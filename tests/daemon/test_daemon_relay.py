"""An event on its way from the relay plugin through the webhook of a daemon, once whatever is repeated."""

from __future__ import annotations

import json
from pathlib import Path

from support import hooks
from support.chains import await_rest, ctl, job_of
from support.daemon import RealDaemon

_SHIPPED = Path(__file__).resolve().parents[2] / "plugins"
_KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_a_relayed_event_becomes_one_job_there(daemon: RealDaemon) -> None:
    port = hooks.free_port()
    daemon.config["plugins_dir"] = str(_SHIPPED)
    daemon.environ["RELAY_SECRET"] = _KEY
    relay = {"url": f"http://127.0.0.1:{port}/in", "secret": "${RELAY_SECRET}"}
    endpoint = {"path": "/in", "event": "relayed", "secret": "${RELAY_SECRET}", "preset": "standard"}
    daemon.configure(plugins={"relay": {"config": relay}, "command": {"config": {"argv": ["cat"]}}},
                     webhooks={"listen": f"127.0.0.1:{port}", "endpoints": [endpoint]})
    daemon.pipelines({"name": "in", "on": "relayed", "steps": [{"uses": "command"}]})
    daemon.start()
    daemon.submit("relay", "handle", {"type": "t", "payload": {"a": 1}})
    await_rest(daemon)
    # The same event once more.
    assert ctl(daemon, "replay", job_of(daemon, "relay")).code == 0
    await_rest(daemon)
    [(result,)] = daemon.rows("SELECT result FROM job_log WHERE plugin = 'command'")
    came = json.loads(json.loads(result)["result"])
    assert (came["a"], came["relay_hops"], came["origin_plugin"]) == (1, 1, "webhook:/in")
    sent = [json.loads(each)["result"] for each, in daemon.rows("SELECT result FROM job_log WHERE plugin = 'relay'")]
    assert sent == [f"posted to http://127.0.0.1:{port}", f"posted to http://127.0.0.1:{port}, which had it already"]
