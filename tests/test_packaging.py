"""What `pip install` puts on a machine: the whole package, the shipped trees with their modes, both programs."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from fnmatch import fnmatch
from pathlib import Path

import pytest

from ductile import __version__
from support.wheels import Built

ROOT = Path(__file__).resolve().parent.parent
TREES = ("plugins", "pipelines", "etc", "contrib")
FOR_A_CHECKOUT = ("bench", "benchmarks", "demo", "install", "quickstart", "run-tests", "lint", "requirements*.txt",
                  "try-on", "container", "drive", "try-under-systemd", "faults", "injection", "temporal")
# The manuals have their place beside those of other programs, where man(1) looks for them.
MANUALS = "man"
LEFT_BEHIND = ("__pycache__", "test_*.py", ".*", MANUALS, *FOR_A_CHECKOUT)


# What run-tests itself writes into the environment that it has made.
STAMP = """
root=$1 purpose=tests
cd -- "$root"
eval "$(sed -n '/^fingerprint() {/,/^}/p' contrib/run-tests)"
fingerprint
"""


def files_under(top: Path, tree: str) -> dict[str, bool]:
    """Return every file of a tree, relative to `top`, that is to be shipped, and whether it is executable."""
    found = {}
    for path in sorted((top / tree).rglob("*")):
        name = path.relative_to(top)
        left_behind = any(fnmatch(part, pattern) for part in name.parts for pattern in LEFT_BEHIND)
        if path.is_file() and not left_behind:
            found[name.as_posix()] = os.access(path, os.X_OK)
    return found


def shipped_files(source: Path) -> dict[str, bool]:
    return {name: mode for tree in TREES for name, mode in files_under(source, tree).items()}


def manuals(source: Path) -> dict[str, bool]:
    """Return the manuals by the names that they are shipped under; none is executable."""
    pages = sorted((source / "contrib" / MANUALS).iterdir())
    return {f"share/man/man{page.suffix[1:]}/{page.name}": False for page in pages}


@pytest.fixture(scope="module")
def source(built: Built) -> Path:
    """What the wheel was built from: a copy, so that the checkout stays clean and nothing stale in it gets in."""
    return built.source


@pytest.fixture(scope="module")
def wheel(built: Built) -> Path:
    """A wheel. Needs, beside pytest, the build tools that pyproject.toml asks for: contrib/run-tests has them."""
    return built.wheel


@pytest.fixture(scope="module")
def contents(wheel: Path) -> dict[str, bool]:
    """Every name in the wheel and whether it is executable; the trees under the names they have here."""
    data = f"ductile-{__version__}.data/data/"
    with zipfile.ZipFile(wheel) as archive:
        return {
            info.filename.removeprefix(f"{data}share/ductile/").removeprefix(data):
                bool(info.external_attr >> 16 & 0o111)
            for info in archive.infolist()
        }


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> zipfile.Path:
    (directory,) = (path for path in zipfile.Path(wheel).iterdir() if path.name.endswith(".dist-info"))
    return directory


@pytest.fixture(scope="module")
def installed(built: Built) -> Path:
    """A virtual environment in which pip has installed the wheel and nothing else."""
    return built.venv


def test_the_wheel_holds_the_package_and_the_shipped_trees_and_nothing_else(
    source: Path, contents: dict[str, bool]
) -> None:
    expected = files_under(source, "ductile") | shipped_files(source) | manuals(source)
    assert {name for name in contents if ".dist-info/" not in name} == set(expected)


def test_the_wheel_keeps_the_mode_of_every_shipped_file(source: Path, contents: dict[str, bool]) -> None:
    shipped = shipped_files(source) | manuals(source)
    assert {name: contents.get(name) for name in shipped} == shipped
    assert contents["plugins/echo/run.sh"]


def test_the_wheel_names_both_programs(metadata: zipfile.Path) -> None:
    entry_points = configparser.ConfigParser()
    entry_points.read_string((metadata / "entry_points.txt").read_text(encoding="utf-8"))
    assert {section: dict(entry_points[section]) for section in entry_points.sections()} == {
        "console_scripts": {"ductiled": "ductile.main:run", "ductilectl": "ductile.ctl.main:run"},
    }


def test_the_wheel_asks_for_three_packages_and_for_others_only_to_test_and_lint(metadata: zipfile.Path) -> None:
    asked = Parser().parsestr((metadata / "METADATA").read_text(encoding="utf-8"))
    assert asked["Requires-Python"] == ">=3.11"
    names = [re.sub("[<>=][^;]*", "", line, count=1) for line in asked.get_all("Requires-Dist")]
    assert names == ["pyyaml", "python-daemon", "blake3", 'pytest; extra == "test"',
                     'ruff; extra == "lint"', 'mypy; extra == "lint"']


def ranges() -> dict[str, tuple[str, str]]:
    """Return what setup.cfg and pyproject.toml ask for: the lowest version, and the one that is too new."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    asked = [config["options"]["install_requires"], *config["options.extras_require"].values(), *build]
    lines = "\n".join(asked).split("\n")
    found = [re.fullmatch(r"([\w-]+) >=([\d.]+),<([\d.]+)", line) for line in lines if line]
    assert None not in found, lines
    return {name: (lowest, beyond) for name, lowest, beyond in (each.groups() for each in found)}


def exact_versions(file: str = "requirements.txt") -> dict[str, tuple[str, int]]:
    """Return the versions of a requirements file in contrib/, each with the number of its hashes."""
    text = (ROOT / "contrib" / file).read_text(encoding="utf-8")
    entries = re.findall(r"^([\w-]+)==([\d.]+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)*)", text, re.MULTILINE)
    return {name: (version, hashes.count("--hash=")) for name, version, hashes in entries}


def test_the_exact_versions_are_within_the_ranges_and_have_hashes() -> None:
    to_test, asked = exact_versions(), ranges()
    exact = exact_versions("requirements-lint.txt") | to_test
    assert asked.keys() - to_test.keys() == {"ruff", "mypy"}
    assert set(asked) <= set(exact) and all(hashes > 0 for _, hashes in exact.values())
    outside = [name for name, (lowest, beyond) in asked.items()
               if not parts(lowest) <= parts(exact[name][0]) < parts(beyond)]
    assert outside == []


def parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def test_the_exact_versions_are_on_plain_lines_that_contrib_install_can_cut_out() -> None:
    text = (ROOT / "contrib" / "requirements.txt").read_text(encoding="utf-8")
    assert [line.split("==")[0] for line in text.splitlines() if not line.startswith((" ",
                                                                                      "#"))] == list(exact_versions())


def test_pip_installs_every_shipped_file_with_its_mode(source: Path, installed: Path) -> None:
    share = installed / "share" / "ductile"
    assert files_under(share, ".") == shipped_files(source)


def test_pip_installs_every_manual_where_man_looks_for_it(source: Path, installed: Path) -> None:
    pages = manuals(source)
    assert {name: os.access(installed / name, os.X_OK) for name in pages if (installed / name).is_file()} == pages


@pytest.mark.parametrize("program", ["ductiled", "ductilectl"])
def test_pip_installs_both_programs(installed: Path, program: str) -> None:
    assert os.access(installed / "bin" / program, os.X_OK)


def test_an_installed_package_finds_the_plugins_that_came_with_it(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [installed / "bin" / "python", "-c", "from ductile import shipped; print(shipped.plugins())"],
        cwd=tmp_path, env={"PATH": os.defpath}, capture_output=True, text=True, check=False, timeout=30,
    )
    assert (done.stdout, done.stderr) == (f"{installed}/share/ductile/plugins\n", "")


@pytest.mark.parametrize("script", [".ci/run", "contrib/run-tests"])
def test_the_scripts_of_the_checkout_are_executable(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"PYTHON": "/no/such/python3"},
            "PYTHON=/no/such/python3 is not a Python 3.11 or newer: name one that is",
        ),
        (
            {"DUCTILE_VENV": "{taken}", "PYTHON": sys.executable},
            "{taken} is not a virtual environment: name another place with DUCTILE_VENV",
        ),
    ],
)
def test_run_tests_says_why_it_cannot_make_an_environment(environment, message, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "letter").write_text("not to be lost", encoding="utf-8")
    variables = {name: value.format(taken=taken) for name, value in environment.items()}
    done = subprocess.run(
        [ROOT / "contrib" / "run-tests"],
        cwd=tmp_path, env={"PATH": os.defpath, "DUCTILE_VENV": str(tmp_path / "new"), **variables},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30,
    )
    assert (done.returncode, done.stderr) == (69, f"run-tests: {message.format(taken=taken)}\n")
    assert [path.name for path in taken.iterdir()] == ["letter"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of nothing but run-tests and a few tests, two of which fail, with the environment of this one."""
    text = (ROOT / "contrib" / "run-tests").read_text(encoding="utf-8")
    parts = [place for _, part in re.findall(r"^(\w+)_part=\((.*)\)$", text, re.MULTILINE) for place in part.split()]
    for directory in ("contrib", *parts):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "tests" / "support").mkdir()
    for name in ("setup.cfg", "pyproject.toml", "contrib/requirements.txt", "contrib/run-tests",
                 "tests/support/counts.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "tests/conftest.py").write_text("from support.counts import pytest_sessionfinish\n", encoding="utf-8")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "tests/daemon/test_first.py").write_text(
        "def test_one(): pass\ndef test_two(): assert False, 'in the first'\n", encoding="utf-8")
    (tmp_path / "tests/ctl/test_second.py").write_text(
        "import pytest\ndef test_three(): pass\ndef test_four(): pytest.skip('not here')\n", encoding="utf-8")
    (tmp_path / "tests/test_third.py").write_text("def test_five(): assert False, 'in the third'\n", encoding="utf-8")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    python = tmp_path / "venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    stamp = subprocess.run(["bash", "-ec", STAMP, "bash", tmp_path.resolve()], capture_output=True, text=True,
                           check=True, timeout=30).stdout
    (tmp_path / "venv" / "ductile-tests.stamp").write_text(stamp, encoding="utf-8")
    return tmp_path


def run_tests(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "contrib" / "run-tests", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=60, env={"PATH": os.environ["PATH"], "DUCTILE_VENV": str(checkout / "venv"),
                                      "PYTEST_DEBUG_TEMPROOT": str(checkout)})


def test_the_whole_suite_has_one_summary_and_one_exit_code(checkout: Path) -> None:
    done = run_tests(checkout, "-q")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr, lines[-1]) == (1, "", "2 passed, 2 failed, 1 skipped"), done.stdout
    assert [line for line in lines if " passed" in line] == lines[-1:]
    assert ("in the first" in done.stdout, "in the third" in done.stdout) == (True, True)


def test_a_part_that_dies_is_named_and_fails_the_run(checkout: Path) -> None:
    for test in checkout.glob("tests/**/test_*.py"):
        test.write_text("def test_it(): pass\n", encoding="utf-8")
    (checkout / "tests" / "test_third.py").write_text(
        "import os, signal\ndef test_it(): os.kill(os.getpid(), signal.SIGKILL)\n", encoding="utf-8")
    done = run_tests(checkout)
    assert (done.returncode, done.stdout.splitlines()[-2:]) == (
        137, ["run-tests: the third part of the tests did not finish", "2 passed, 0 failed"])


def test_with_a_path_it_is_one_plain_pytest(checkout: Path) -> None:
    done = run_tests(checkout, "-q", "tests/daemon/test_first.py::test_one")
    assert (done.returncode, done.stdout.splitlines()[-1].startswith("1 passed in ")) == (0, True)
