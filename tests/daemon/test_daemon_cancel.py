"""An operator cancels what runs, and watches its standard error."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from pathlib import Path

from support.daemon import RealDaemon
from support.gate import Gate

DUCTILECTL = Path(sys.executable).with_name("ductilectl")
CANCELLED = "cancelled by operator"
# Says its PID and standard error, ignores nothing, and on SIGTERM succeeds as if nothing had happened.
SAYS = """#!/bin/sh
request=$(cat)
text() { printf '%%s\\n' "$request" | sed -n "s/.*\\"$1\\":\\"\\([^\\"]*\\)\\".*/\\1/p"; }
trap 'echo "{\\"status\\": \\"ok\\", \\"events\\": [{\\"type\\": \\"made\\"}]}"; exit 0' TERM
%s
echo $$ >"$(text arrived)"
while :; do read -r line <"$(text go)"; done
"""


def test_a_running_job_is_ended_dead_and_is_not_retried(daemon: RealDaemon, gate: Gate) -> None:
    daemon.plugin("says", SAYS % "", config=gate.config)
    daemon.start()
    job = daemon.submit("says")
    [pid] = gate.arrived()
    said = cancel(daemon, job)
    assert (said.returncode, said.stdout) == (0, f"job {job} is cancelled\n")
    assert (daemon.job(job), daemon.attempts(job)) == (("dead", 1, CANCELLED), [(1, "failed")])
    assert daemon.rows("SELECT count(*) FROM job_queue") == [(1,)]
    assert not Path(f"/proc/{pid}").exists()
    assert daemon.log("cancelling the running job", job_id=job)


def test_a_success_that_came_first_wins(daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("waits", config=gate.config)
    daemon.start()
    job = daemon.submit("waits")
    gate.arrived()
    # The row says so, but no signal has reached the daemon yet.
    daemon.write("UPDATE job_queue SET cancel_requested_at = '2026-01-01T00:00:00.000Z'")
    gate.let_through()
    daemon.await_job(job, "succeeded")
    said = cancel(daemon, job)
    assert (said.returncode, said.stderr) == (
        1, f"job {job} is succeeded: only a queued or running job can be cancelled\n")


def test_a_failure_after_the_operator_asked_is_the_end_of_the_job(daemon: RealDaemon, gate: Gate) -> None:
    daemon.plugin("fails", "#!/bin/sh\nread -r _ <\"$(sed -n 's/.*\"go\":\"\\([^\"]*\\)\".*/\\1/p')\"\nexit 1\n",
                  config=gate.config)
    daemon.start()
    job = daemon.submit("fails")
    daemon.await_job(job, "running")
    daemon.write("UPDATE job_queue SET cancel_requested_at = '2026-01-01T00:00:00.000Z'")
    gate.let_through()
    daemon.await_job(job, "dead")
    assert daemon.job(job) == ("dead", 1, CANCELLED)
    assert daemon.rows("SELECT cancel_requested_at FROM job_queue") == [(None,)]


def test_a_wish_that_a_killed_daemon_left_is_obeyed_at_the_start(daemon: RealDaemon, gate: Gate) -> None:
    daemon.install("waits", config=gate.config)
    daemon.start()
    job = daemon.submit("waits")
    gate.arrived()
    daemon.kill()
    said = cancel(daemon, job)
    assert (said.returncode, said.stdout) == (0, f"job {job} will be cancelled when ductiled starts\n")
    daemon.start()
    assert (daemon.job(job), daemon.attempts(job)) == (("dead", 1, CANCELLED), [(1, "failed")])
    assert gate.is_empty()


def test_what_a_running_plugin_writes_to_standard_error_can_be_read(daemon: RealDaemon, gate: Gate) -> None:
    daemon.plugin("says", SAYS % "echo halfway >&2", config=gate.config)
    daemon.start()
    job = daemon.submit("says")
    gate.arrived()
    shown = daemon.database.parent / "running" / f"{job}.stderr"
    daemon.await_file(shown, "halfway\n")
    assert stat.S_IMODE(shown.stat().st_mode) == 0o600
    assert cancel(daemon, job, "--no-wait").stdout == f"job {job} is being cancelled\n"
    daemon.await_job(job, "dead")
    assert not shown.exists()
    assert daemon.rows("SELECT stderr FROM job_log") == [("halfway\n",)]


def test_what_a_killed_daemon_showed_of_a_run_is_removed_at_the_start(daemon: RealDaemon, gate: Gate) -> None:
    daemon.plugin("says", SAYS % "echo halfway >&2", config=gate.config)
    daemon.start()
    job = daemon.submit("says")
    gate.arrived()
    shown = daemon.database.parent / "running" / f"{job}.stderr"
    daemon.await_file(shown, "halfway\n")
    daemon.kill()
    (daemon.directory("says") / "run").write_text("#!/bin/sh\necho '{\"status\": \"ok\"}'\n")
    daemon.start()
    daemon.await_job(job, "succeeded")
    assert not shown.exists()


def test_a_job_that_is_cancelled_while_the_daemon_stops_does_not_come_back(daemon: RealDaemon, gate: Gate) -> None:
    daemon.plugin("says", SAYS % "", config=gate.config)
    daemon.start()
    job = daemon.submit("says")
    gate.arrived()
    daemon.send(signal.SIGTERM)
    daemon.await_note("STOPPING=1")
    assert cancel(daemon, job).returncode == 0
    daemon.ends(0)
    assert daemon.job(job) == ("dead", 1, CANCELLED)


def cancel(daemon: RealDaemon, job: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DUCTILECTL, "-c", daemon.home, "cancel", job, *options], env=daemon.environ, text=True,
                          capture_output=True, timeout=30)
