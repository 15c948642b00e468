"""The shipped example runs as it stands, and what it shows in comments is right."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from config.config_files import lines, load_text
from ductile.config.load import load
from ductile.config.model import Every, Unit
from ductile.runtime_config import read

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "etc" / "ductile" / "config.yaml"
COMMENTED_KEY = re.compile(r"^( *)# ( *(?:- )?(?:[a-z_]+:(?: .*)?|\{.*))$", re.MULTILINE)

# Every key of the specification's section on configuration.
KEYS = """
    service name tick_interval log_level log log_format dedupe_ttl job_log_retention max_hops max_queue_depth
    shutdown_grace env_file state path workspace ttl plugins_dir pipelines_dir plugins enabled uses schedule every at
    day jitter preferred_window timezone command config env retry max_attempts backoff_base backoff_max timeouts
    circuit_breaker threshold reset_after max_outstanding_polls webhooks listen health_listen metrics connections
    trusted_proxies endpoints plugin event secret preset signature_header signed signature_prefix
    signature_separator signature_format secret_encoding url dedupe success_status handshake verify_token
    max_body_size routes from event_type to id start end poll handle health init
""".split()


def test_the_example_loads_without_a_word_and_without_a_variable():
    loaded = load(EXAMPLE, {})
    assert (lines(loaded), loaded.warnings) == ([], ())


def test_the_example_runs_echo_every_five_minutes_on_the_shipped_plugins():
    config = load(EXAMPLE, {}).config
    [schedule] = config.plugins["echo"].schedules
    assert (list(config.plugins), schedule.every) == (["echo"], Every(count=300, unit=Unit.SECONDS))
    assert config.state_path == EXAMPLE.parent / "data" / "state.db"
    assert [directory.resolve() for directory in config.plugins_dirs] == [ROOT / "plugins"]
    assert config.pipelines_dir == EXAMPLE.parent / "pipelines"


def test_the_example_of_the_wisdom_loop_runs_every_shipped_pipeline_and_names_its_variables(tmp_path):
    for tree in ("plugins", "pipelines", "etc"):
        shutil.copytree(ROOT / tree, tmp_path / tree, ignore=shutil.ignore_patterns("__pycache__", "data"))
    file = tmp_path / "etc" / "video-wisdom" / "config.yaml"
    secrets = file.with_name("secrets.env")
    secrets.touch(mode=0o600)
    assert [line.split(": ")[-1] for line in read(file, {}).problems] == [
        "the variable DISCORD_RELAY_SECRET is not set", "the variable DISCORD_BOT_TOKEN is not set"]
    secrets.write_text("DISCORD_RELAY_SECRET=sixteen bytes ok\nDISCORD_BOT_TOKEN=token\n")
    reading = read(file, {})
    assert (reading.problems, reading.faults, reading.warnings) == ((), (), ())
    pipelines = reading.runtime.router.pipelines
    assert {name: list(pipeline.nodes) for name, pipeline in pipelines.items()} == {
        "on-failure": ["notify.1"], "on-recovery": ["notify.1"], "on-schedule-recovered": ["notify.1"],
        "on-plugin-available": ["notify.1"], "on-silence": ["notify.1"], "on-plugin-unavailable": ["notify.1"],
        "video-wisdom": ["transcript", "summary", "reply", "file"]}


def test_the_example_shows_every_key():
    text = EXAMPLE.read_text()
    assert [key for key in KEYS if not re.search(rf"[#\s{{]{key}:", text)] == []


def test_what_the_example_shows_in_comments_is_right(tmp_path):
    text = COMMENTED_KEY.sub(r"\1\2", EXAMPLE.read_text())
    # A time of day and a weekday ask for another interval than the one that is active.
    text = text.replace("every: 5m", "every: weekly")
    (tmp_path / "secrets.env").touch(mode=0o600)
    loaded = load_text(tmp_path, text, {"ECHO_WEBHOOK_SECRET": "sixteen bytes ok"})
    assert (lines(loaded), loaded.warnings) == ([], ())
    [schedule] = loaded.config.plugins["echo"].schedules
    assert (schedule.zone_name, schedule.jitter, schedule.day) == ("Australia/Sydney", 30, (0,))
    assert len(loaded.config.webhooks.endpoints) == len(loaded.config.routes) == 1
    assert loaded.config.service.env_file == tmp_path / "secrets.env"


def test_the_defaults_that_the_example_shows_are_the_defaults(tmp_path):
    shown, default = load(EXAMPLE, {}).config, load_text(tmp_path, "").config
    assert (shown.service, shown.workspace_ttl) == (default.service, default.workspace_ttl)
    text = COMMENTED_KEY.sub(r"\1\2", EXAMPLE.read_text()).replace("every: 5m", "every: weekly")
    everything = load_text(tmp_path, text, {}, keep_unset=True).config.plugins["echo"]
    plain = shown.plugins["echo"]
    assert (everything.retry, everything.timeouts, everything.breaker, everything.max_outstanding_polls) == (
        plain.retry, plain.timeouts, plain.breaker, plain.max_outstanding_polls,
    )
