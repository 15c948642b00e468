"""What a daemon that runs takes from a changed configuration, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ductile import log
from ductile.errors import EXIT_CONFIG, EXIT_FAILED, DuctileError
from ductile.runtime_config import ConfigSource
from support.plugins_on_disk import make

GOOD = "plugins: {echo: {}}\n"


@pytest.fixture
def source(tmp_path: Path) -> ConfigSource:
    make(tmp_path / "plugins", "echo")
    (tmp_path / "config.yaml").write_text(GOOD)
    return ConfigSource(path=tmp_path / "config.yaml", environ={"TZ": "UTC"})


def refusal(source: ConfigSource, text: str) -> DuctileError:
    in_force = source.read().runtime
    source.path.write_text(text)
    with pytest.raises(DuctileError) as caught:
        source.read_again(in_force)
    return caught.value


@pytest.mark.parametrize("text", ["plugins: {}\n", "plugins: {echo: {enabled: false}}\n", "service: {name: x}\n"])
def test_a_reload_refuses_a_configuration_without_an_enabled_plugin(source: ConfigSource, text: str) -> None:
    error = refusal(source, text)
    assert (error.exit_code, error.lines) == (
        EXIT_CONFIG, (f"{source.path}: no plugin is enabled, so all queued jobs would fail; a reload needs a"
                      " configuration with at least one",))
    assert source.read().runtime.enabled == ()


def test_a_truncated_file_is_refused(source: ConfigSource) -> None:
    assert refusal(source, "").exit_code == EXIT_CONFIG


@pytest.mark.parametrize("path", ["/", "//", "/proc/1/root", "/proc/1/root/x", "..", "x" * 5000, "x/" * 2000,
                                  "/proc/self/fd/99"])
@pytest.mark.parametrize("setting", ["state", "workspace"])
def test_a_path_that_cannot_be_one_is_told_in_one_line(source: ConfigSource, setting: str, path: str) -> None:
    error = refusal(source, f"{GOOD}{setting}: {{path: {path}}}\n")
    assert (error.exit_code, len(error.lines), error.lines[0].count("\n")) == (EXIT_CONFIG, 1, 0)


def test_a_bug_in_reading_keeps_what_is_in_force_and_its_traceback(source: ConfigSource, tmp_path: Path) -> None:
    class Broken(dict):
        def get(self, *_: object) -> str:
            raise ZeroDivisionError("a bug")

    in_force = source.read().runtime
    broken = ConfigSource(path=source.path, environ=Broken({"TZ": "UTC"}))
    log.set_up(tmp_path / "log", "info")
    with pytest.raises(DuctileError) as caught:
        broken.read_again(in_force)
    log.flush()
    assert caught.value.exit_code == EXIT_FAILED
    assert "ZeroDivisionError" in caught.value.lines[0]
    told = [json.loads(line)["message"] for line in (tmp_path / "log").read_text().splitlines()]
    assert told[0].startswith("Traceback") and told[-1] == "ZeroDivisionError: a bug"
