"""The shipped trees are found from a checkout, from a user's own install, and missed by name where they are not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from ductile import shipped

ROOT = Path(__file__).resolve().parent.parent

SHOW_SHARE = "from ductile import shipped; print(shipped.share())"
SHOW_ERROR = """
from ductile import shipped
from ductile.errors import DuctileError
try:
    shipped.share()
except DuctileError as error:
    print(error.exit_code, *error.lines, sep="|")
"""


def base_python() -> Path:
    """Return the interpreter outside of any virtual environment: only there do a user's own installs count."""
    return Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")


def copy_package(library: Path) -> None:
    shutil.copytree(ROOT / "ductile", library / "ductile", ignore=shutil.ignore_patterns("__pycache__"))


def answer(python: Path, program: str, cwd: Path, **environment: str) -> str:
    """Run a program in a clean environment, outside of the checkout, and return the line it prints."""
    done = subprocess.run(
        [python, "-W", "error", "-c", program],
        cwd=cwd, env={"PATH": os.defpath, **environment}, capture_output=True, text=True, check=False, timeout=30,
    )
    assert done.stderr == ""
    return done.stdout.removesuffix("\n")


def test_a_checkout_ships_its_own_trees() -> None:
    assert shipped.share() == ROOT


@pytest.mark.parametrize(
    ("find", "place"),
    [
        (shipped.plugins, "plugins"),
        (shipped.pipelines, "pipelines"),
        (shipped.example_config, "etc/ductile/config.yaml"),
    ],
)
def test_each_tree_has_its_place_under_share(find, place) -> None:
    assert find() == ROOT / place


def test_a_users_own_install_ships_what_lies_in_the_users_base(tmp_path: Path) -> None:
    scheme = sysconfig.get_preferred_scheme("user")
    home = {"userbase": str(tmp_path / "base")}
    copy_package(Path(sysconfig.get_path("purelib", scheme, home)))
    share = Path(sysconfig.get_path("data", scheme, home), "share", "ductile")
    shutil.copytree(ROOT / "plugins", share / "plugins")

    assert answer(base_python(), SHOW_SHARE, tmp_path, PYTHONUSERBASE=home["userbase"]) == str(share)


def test_a_package_without_its_trees_names_every_place_looked_at(tmp_path: Path) -> None:
    library = tmp_path / "lib"
    copy_package(library)
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=30)

    assert answer(venv / "bin" / "python", SHOW_ERROR, tmp_path, PYTHONPATH=str(library)) == (
        f"74|the plugins that come with ductile are in none of {library}, {venv}/share/ductile: install ductile again"
    )
