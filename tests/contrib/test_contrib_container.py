"""The container: not root, one volume, a health check that is a command, and time to stop."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ductile.config.model import Service
from ductile.ctl import commandline
from ductile.strictjson import decode
from ductile.units import parse_duration
from ductile.validation import nearest
from ductile.yamlfile import read_yaml

ROOT = Path(__file__).resolve().parents[2]
CONTAINER = ROOT / "contrib" / "container"
COMPOSE = read_yaml((CONTAINER / "compose.yaml").read_bytes(), "compose.yaml").value
README = (CONTAINER / "README.md").read_text(encoding="utf-8")


def instructions(name: str) -> list[str]:
    """Return what follows each instruction of a name in the Containerfile, with continued lines joined."""
    text = (CONTAINER / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)


def test_it_runs_as_a_user_whose_number_is_told() -> None:
    assert instructions("USER") == ["ductile"]
    [number] = {found for text in instructions("RUN") for found in re.findall(r"--uid (\d+)", text)}
    assert COMPOSE["services"]["ductile"]["user"] == f"{number}:{number}"
    assert f"user {number}" in README


def test_all_that_is_kept_is_in_the_volume() -> None:
    assert instructions("VOLUME") == instructions("WORKDIR")[-1:] == ["/ductile"]
    assert "DUCTILE_CONFIG=/ductile" in instructions("ENV")[0]
    assert COMPOSE["services"]["ductile"]["volumes"] == ["ductile:/ductile"]


def test_the_health_check_is_a_command_that_ends_in_time() -> None:
    [check] = instructions("HEALTHCHECK")
    program, *arguments = decode(check.partition("CMD ")[2].encode())
    assert program == "ductilectl"
    limit = re.search(r"--timeout=(\w+)", check)
    assert commandline.parse(arguments, nearest).timeout < parse_duration(limit[1])


def test_there_is_an_init_and_time_to_stop() -> None:
    service = COMPOSE["services"]["ductile"]
    assert service["init"] is True
    assert instructions("CMD") == ['["ductiled"]']
    ending_a_plugin = 6
    needed = Service().shutdown_grace + ending_a_plugin
    assert parse_duration(service["stop_grace_period"]) > needed
    assert int(re.search(r"--stop-timeout (\d+)", README)[1]) > needed


def test_what_the_image_is_built_from_is_there() -> None:
    for text in instructions("RUN"):
        for name in re.findall(r"-r (\S+)", text):
            assert (ROOT / name).is_file()
    build = COMPOSE["services"]["ductile"]["build"]
    assert (CONTAINER / build["context"] / build["dockerfile"]).resolve() == CONTAINER / "Containerfile"


@pytest.mark.parametrize("block", re.findall(r"^```sh\n(.*?)^```$", README, re.DOTALL | re.MULTILINE))
def test_the_commands_are_free_of_syntax_errors(block: str) -> None:
    done = subprocess.run(["bash", "-n"], input=block, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
