"""The configuration in etc/health with stand-ins for Withings, Garmin and a mail server, whatever is killed."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from ductile import runtime_config
from support.chains import AGAIN, await_rest, await_that, ctl, ends, is_sound
from support.daemon import RealDaemon
from support.garmin import KEY, Garmin, ago, sleep, summary
from support.held_back import HeldBack
from support.smtp import STALL, Smtp, taking_mail
from support.withings import CLIENT, Withings, group

ROOT = Path(__file__).resolve().parents[2]
HEALTH = ROOT / "etc" / "health"
SECRETS = {"WITHINGS_CLIENT_ID": CLIENT["client_id"], "WITHINGS_CLIENT_SECRET": CLIENT["client_secret"],
           "GARMIN_API_KEY": KEY, "MAIL_PASSWORD": "m4il-s3cret"}


@pytest.fixture
def withings() -> Iterator[Withings]:
    with closing(Withings()) as running:
        running.groups = [group(1, time.time() - 60, (1, 80_100, -3)), group(2, time.time() - 60, (11, 61, 0))]
        yield running


@pytest.fixture
def garmin() -> Iterator[Garmin]:
    with closing(Garmin()) as running:
        running.days = [summary(ago(1), 9000)]
        running.nights = [sleep(ago(0), 27_000)]
        yield running


@pytest.fixture
def mail() -> Iterator[Smtp]:
    with taking_mail(password=SECRETS["MAIL_PASSWORD"]) as running:
        yield running


@pytest.fixture
def health(daemon: RealDaemon, withings: Withings, garmin: Garmin, mail: Smtp) -> RealDaemon:
    """A daemon with that configuration, with other addresses of the services and without schedules."""
    shutil.copytree(HEALTH / "pipelines", daemon.home / "pipelines")
    config = yaml.safe_load((HEALTH / "config.yaml").read_text(encoding="utf-8"))
    secrets = daemon.home / "secrets.env"
    secrets.touch(mode=0o600)
    secrets.write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))
    plugins = config["plugins"]
    for settings in plugins.values():
        settings.pop("schedule", None)
        settings["retry"] = AGAIN
    plugins["withings"]["config"]["base_url"] = withings.url
    plugins["garmin"]["config"] |= {"base_url": garmin.url, "timezone": "UTC"}
    plugins["health_analyzer"]["config"]["timezone"] = "UTC"
    plugins["mail_out"]["config"] |= {"host": "127.0.0.1", "port": mail.port, "security": "none"}
    daemon.environ["DUCTILE_CONFIG"] = os.fspath(daemon.home)
    daemon.config |= config | {"service": {**daemon.config["service"], "env_file": "./secrets.env"},
                               "plugins_dir": os.fspath(ROOT / "plugins")}
    daemon.configure()
    return daemon


def test_the_configuration_has_no_problem_but_its_secrets() -> None:
    assert runtime_config.read(HEALTH / "config.yaml", SECRETS, keep_unset=True).problems == ()


def test_a_week_of_both_accounts_arrives_as_one_mail(
        health: RealDaemon, withings: Withings, garmin: Garmin, mail: Smtp, tmp_path: Path) -> None:
    health.start()
    authorize(health, withings, tmp_path)
    for plugin in ("withings", "garmin", "health_analyzer"):
        health.submit(plugin)
        await_rest(health)
    health.stop()
    assert {status for _, status, _ in ends(health)} == {"succeeded"}
    is_done(health, mail, mails=1)


def test_killed_in_every_plugin_nothing_is_lost(
        health: RealDaemon, withings: Withings, garmin: Garmin, mail: Smtp, tmp_path: Path) -> None:
    held_back = HeldBack(health)
    health.start()
    authorize(health, withings, tmp_path)
    # The renewed token is issued, and nobody gets it; then it is used, and the answer gets nowhere.
    for service, plugin, paths in ((withings, "withings", ("/v2/oauth2", "/v2/sleep")), (
            garmin, "garmin", ("/usersummary-service/v2/dailysummaries",))):
        held = [service.hold(path) for path in paths]
        health.submit(plugin)
        for each in held:
            each.await_request()
            kill(health)
            each.release()
    await_rest(health)
    held_back.hold("health_analyzer", "command")
    health.submit("health_analyzer")
    held_back.kill_in("health_analyzer")
    mail.answers["."] = STALL
    held_back.kill_in("command")
    await_that(health, lambda: len(mail.mails) == 1)
    mail.answers.clear()
    kill(health)
    await_rest(health)
    health.stop()
    assert is_sound(health)
    assert {status for _, status, _ in ends(health)} == {"succeeded"}
    # It was handed over before the daemon was killed, and again: as the same mail.
    is_done(health, mail, mails=2)
    assert len({mail.message["Message-ID"] for mail in mail.mails}) == 1
    assert withings.issued == 3


def authorize(daemon: RealDaemon, withings: Withings, tmp_path: Path) -> None:
    """Hand the plugin a state as `plugins/withings/authorize` prints it; its access token has expired."""
    state = tmp_path / "state.json"
    state.write_text(json.dumps(withings.state() | {"expires_at": 0}))
    assert ctl(daemon, "state", "withings", "--set", str(state)).code == 0


def kill(daemon: RealDaemon) -> None:
    daemon.kill()
    daemon.start()


def is_done(daemon: RealDaemon, mail: Smtp, *, mails: int) -> None:
    """Hold what was kept and sent against what the services have; no secret is in the database."""
    [(state,)] = daemon.rows("SELECT state FROM plugin_state WHERE plugin_name = 'health_analyzer'")
    values = {name: series["values"] for name, series in json.loads(state).items()}
    assert values == {"withings.weight": [80.1], "withings.pulse": [61], "garmin.steps": [9000],
                      "garmin.sleep": [27_000], "garmin.sleep_score": [81]}
    assert len(mail.mails) == mails
    message = mail.mails[-1].message
    assert message["Subject"] == f"Health until {datetime.now(UTC).date()}"
    assert message.get_body(("plain",)).get_content().split()[:2] == ["weight:", "80.1"]
    files = {part.get_filename(): part.get_payload(decode=True) for part in message.iter_attachments()}
    assert set(files) == {"summary.md", "chart.svg", "report.html"}
    assert b"80.1 kg" in files["summary.md"] and b"<svg" in files["chart.svg"] and b"<html" in files["report.html"]
    dump = repr([daemon.rows(f"SELECT * FROM {table}") for table in ("job_queue", "event_context")])
    assert [secret for secret in (*SECRETS.values(), "access-", "refresh-") if secret in dump] == []


def test_a_failure_is_mailed(health: RealDaemon, withings: Withings, mail: Smtp) -> None:
    health.start()
    health.submit("withings")
    await_rest(health)
    health.stop()
    (sent,) = mail.mails
    assert sent.message["Subject"] == "withings poll failed permanently"
    assert "plugins/withings/authorize" in sent.message.get_content()


