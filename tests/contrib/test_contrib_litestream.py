"""contrib/litestream: the machine of a busy daemon dies, and another one goes on with what Litestream has copied."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

from ctl import desk
from support import hooks
from support.daemon import RealDaemon, until
from support.warm import Warm
from support.wire import ask, signed

ROOT = Path(__file__).resolve().parents[2]
LITESTREAM = ROOT / "contrib" / "litestream"
PATIENCE_SECONDS = 60
# Of what was acknowledged: a look and an upload, and what a busy machine adds to both.
LOST_SECONDS = 0.25 + 1 + 3
PAUSE_SECONDS = 0.05

needs_litestream = pytest.mark.skipif(
    shutil.which("litestream") is None,
    reason="the program litestream is not in PATH; contrib/litestream/README.md says how to install it")


def test_the_unit_runs_beside_ductiled_as_its_user_and_replicates_its_database() -> None:
    unit = (LITESTREAM / "ductile-litestream.service").read_text(encoding="utf-8").splitlines()
    daemon = (ROOT / "contrib" / "systemd" / "ductiled.service").read_text(encoding="utf-8").splitlines()
    document = yaml.safe_load((LITESTREAM / "litestream.yml").read_text(encoding="utf-8"))
    assert document["dbs"][0]["path"] == "/var/lib/ductile/state.db"
    assert {"BindsTo=ductiled.service", "WantedBy=ductiled.service"} <= set(unit)
    for line in ("User=ductile", "Group=ductile", "UMask=0077", "StateDirectory=ductile"):
        assert line in unit
        assert line in daemon


class Sender:
    """A thread that posts webhooks, and notes when each was acknowledged."""

    def __init__(self, address: hooks.Address) -> None:
        self.acknowledged: list[tuple[float, str]] = []
        self._address = address
        self._is_over = threading.Event()

    @contextmanager
    def sending(self) -> Iterator[None]:
        thread = threading.Thread(target=self._send, name="sender")
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _send(self) -> None:
        while not self._is_over.wait(PAUSE_SECONDS):
            try:
                answer = ask(self._address, signed(b"{}"))
            except OSError:
                # The daemon is being restarted, or is gone.
                continue
            if answer.status == 202:
                self.acknowledged.append((time.monotonic(), answer.json["job_id"]))


class Litestream:
    """The program, with the project's configuration and the paths of a test."""

    def __init__(self, daemon: RealDaemon, directory: Path) -> None:
        self.config = directory / "litestream.yml"
        self._replica = directory / "replica"
        self._url = f"file://{self._replica}"
        self._log = directory / "litestream.log"
        document = yaml.safe_load((LITESTREAM / "litestream.yml").read_text(encoding="utf-8"))
        document["dbs"][0]["path"] = str(daemon.database)
        self.config.write_text(yaml.safe_dump(document))
        self._environ = {"PATH": os.environ["PATH"], "HOME": str(directory), "DUCTILE_REPLICA": self._url}

    def replicating(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        return self._running("replicate", "-config", self.config)

    def following(self, copy: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
        return self._running("restore", "-f", "-o", copy, self._url)

    @contextmanager
    def _running(self, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
        with open(self._log, "ab") as log, subprocess.Popen(["litestream", *arguments], env=self._environ,
                                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log) as made:
            try:
                yield made
            finally:
                made.terminate()

    def restore(self, copy: Path) -> None:
        self.call("restore", "-o", copy, self._url)

    def call(self, *arguments: str | Path) -> None:
        done = subprocess.run(["litestream", *arguments], env=self._environ, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def newest(self) -> int:
        """Return the number of the last transaction in the replica, 0 if there is none."""
        return max((int(file.stem.partition("-")[2], 16) for file in self._replica.rglob("*.ltx")), default=0)

    def followed(self, copy: Path) -> int:
        """Return the number of the last transaction in the copy that follows the replica."""
        return int(copy.with_name(f"{copy.name}-txid").read_text(), 16)

    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture
def standby(tmp_path: Path, warm: Warm) -> Iterator[RealDaemon]:
    """The daemon of another machine, with the same configuration and no database."""
    (tmp_path / "standby").mkdir()
    real = RealDaemon(tmp_path / "standby", warm=warm)
    hooks.install_hook(real)
    hooks.listen(real)
    yield real
    real.close()


def take_over(standby: RealDaemon, copy: Path) -> set[str]:
    """Put the copy in place with `ductilectl`, and return the jobs that it holds."""
    restored = desk.run("restore", copy, home=standby.home)
    assert restored.code == 0, restored.err
    return {job for (job,) in standby.rows("SELECT id FROM job_queue")}


def lost_suffix(acknowledged: list[tuple[float, str]], there: set[str]) -> list[tuple[float, str]]:
    """Return what was acknowledged and is not there; fail if a job that is there was acknowledged after a lost one."""
    lost = [each for each in acknowledged if each[1] not in there]
    assert lost == acknowledged[len(acknowledged) - len(lost):]
    return lost


def runs_everything(standby: RealDaemon) -> None:
    standby.start()
    standby.until("SELECT count(*) FROM job_queue WHERE status <> 'succeeded'", [(0,)])
    standby.stop()


@needs_litestream
@pytest.mark.parametrize("is_warm", [False, True], ids=["restored", "followed"])
def test_what_was_acknowledged_before_the_last_second_runs_on_another_machine(
        daemon: RealDaemon, standby: RealDaemon, tmp_path: Path, is_warm: bool) -> None:
    hooks.install_hook(daemon)
    sender = Sender(hooks.listen(daemon))
    litestream, copy = Litestream(daemon, tmp_path), tmp_path / "copy.db"
    daemon.start()
    with ExitStack() as stack:
        replicating = stack.enter_context(litestream.replicating())
        stack.enter_context(sender.sending())
        await_(lambda: litestream.newest() > 0, daemon, litestream)
        following = stack.enter_context(litestream.following(copy)) if is_warm else None
        await_(lambda: len(sender.acknowledged) >= 20, daemon, litestream)
        # It starts beside a program that reads the database.
        daemon.send(signal.SIGTERM)
        daemon.ends(0)
        daemon.start()
        await_(lambda: len(sender.acknowledged) >= 60, daemon, litestream)
        died_at = time.monotonic()
        replicating.kill()
        daemon.kill()
        if following is not None:
            until(lambda: litestream.followed(copy), litestream.newest(), pause=lambda: lives(following),
                  explain=litestream.log)
    if not is_warm:
        litestream.restore(copy)
    lost = lost_suffix(sender.acknowledged, take_over(standby, copy))
    assert [each for each in lost if each[0] < died_at - LOST_SECONDS] == []
    runs_everything(standby)


@needs_litestream
def test_a_planned_move_loses_nothing(daemon: RealDaemon, standby: RealDaemon, tmp_path: Path) -> None:
    hooks.install_hook(daemon)
    sender = Sender(hooks.listen(daemon))
    litestream, copy = Litestream(daemon, tmp_path), tmp_path / "copy.db"
    daemon.start()
    with litestream.replicating() as replicating, sender.sending():
        await_(lambda: len(sender.acknowledged) >= 20 and litestream.newest() > 0, daemon, litestream)
        # In the order of the unit, which stops before the daemon.
        replicating.send_signal(signal.SIGTERM)
        assert replicating.wait(PATIENCE_SECONDS) == 0, litestream.log()
        await_(lambda: len(sender.acknowledged) >= 30, daemon, litestream)
        daemon.stop()
    litestream.call("replicate", "-once", "-config", litestream.config)
    litestream.restore(copy)
    assert lost_suffix(sender.acknowledged, take_over(standby, copy)) == []
    runs_everything(standby)


def lives(process: subprocess.Popen[bytes]) -> bool:
    """Give a process an instant to end, and return whether it has not."""
    try:
        process.wait(PAUSE_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def await_(look: Callable[[], bool], daemon: RealDaemon, litestream: Litestream) -> None:
    until(look, True, pause=lambda: not daemon.ended_within(PAUSE_SECONDS),
          explain=lambda: litestream.log() + daemon.story())
