"""Answers that are large, or have very many values: what they may take of the daemon's memory, and of its log."""

from __future__ import annotations

import sys
from pathlib import Path

from support.daemon import RealDaemon
from support.processes import status

_PROGRAM = f"#!{sys.executable}\nimport sys\nsys.stdout.write({{}})\n"
_MIB = 1024    # in KiB


def memory(daemon: RealDaemon, name: str) -> int:
    """Return a figure of /proc/PID/status, in KiB."""
    return int(status(daemon.pid)[name].split()[0])


def test_ten_mebibytes_of_empty_lists_are_refused_and_what_they_took_is_given_back(daemon: RealDaemon) -> None:
    daemon.plugin("lists", _PROGRAM.format("""'{"status":"ok","x":[' + '[],' * 3_400_000 + '[]]}'"""),
                  retry={"max_attempts": 1})
    daemon.plugin("half", _PROGRAM.format("""'{"status":"ok","x":[' + '[],' * 490_000 + '[]]}'"""))
    daemon.plugin("none", _PROGRAM.format("""'{"status":"ok"}'"""))
    daemon.start()
    daemon.await_job(daemon.submit("none"), "succeeded")
    before = memory(daemon, "VmRSS")
    refused = daemon.submit("lists")
    daemon.await_job(refused, "dead")
    assert "more than 500,000 values" in daemon.job(refused)[2]
    daemon.await_job(daemon.submit("half"), "succeeded")
    # The loop has let go of the last one when it has seen another to its end.
    daemon.await_job(daemon.submit("none"), "succeeded")
    assert memory(daemon, "VmHWM") < 120 * _MIB
    assert memory(daemon, "VmRSS") < before + 10 * _MIB
    daemon.stop()


def test_of_very_many_log_lines_a_thousand_reach_the_log_and_the_rest_are_counted(daemon: RealDaemon) -> None:
    daemon.plugin("chatters", _PROGRAM.format("""'{"status":"ok","logs":[' + '{"message":"m"},' * 119_999 +"""
                                              """ '{"message":"m"}]}'"""))
    daemon.start()
    job = daemon.submit("chatters")
    line = daemon.await_log("further log lines dropped", job_id=job)
    assert (line["level"], line["component"], line["count"]) == ("warn", "plugin", 119_000)
    assert len(daemon.log("m", job_id=job)) == 1000
    daemon.stop()
    assert Path(daemon.output).stat().st_size < 1024 * 1024
