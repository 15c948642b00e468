"""Programs run as an ordinary user, who may be unable to reach this checkout: a copy of it stands in then."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

NUMBER = 65534
NOBODY = ("setpriv", f"--reuid={NUMBER}", f"--regid={NUMBER}", "--clear-groups")
_ROOT = Path(__file__).resolve().parents[2]
_HERE = Path(sys.executable).parent
_PROGRAMS = ("ductiled", "ductilectl")
_DEPENDENCIES = ("yaml", "_yaml", "blake3", "daemon", "lockfile", "typing_extensions.py")
_NOT_COPIED = (".*", "__pycache__", "*.egg-info", "build", "dist", "tests")
_PATIENCE_SECONDS = 300


def program(name: str, become: Sequence[str] = NOBODY) -> Path:
    """Return `python`, `ductiled` or `ductilectl` as it can be run with the prefix `become`.

    The test is skipped where it cannot be, as with an interpreter in a directory that is closed to others.
    """
    return (_programs() if os.geteuid() == 0 and list(become)[:1] == ["setpriv"] else _HERE) / name


def reachable(path: Path) -> Path:
    """Return a file of the checkout as an ordinary user can reach it."""
    if os.geteuid() != 0 or _programs() == _HERE:
        return path
    return _programs().parents[1] / "checkout" / path.relative_to(_ROOT)


@functools.cache
def _programs() -> Path:
    if _can_run(_HERE):
        return _HERE
    copy = _copied()
    if not _can_run(copy):
        pytest.skip(f"an ordinary user cannot run {os.path.realpath(sys.executable)}")
    return copy


def _can_run(directory: Path) -> bool:
    probe = subprocess.run([*NOBODY, directory / "python", "-c", "import ductile.main"], cwd="/", env={},
                           capture_output=True, timeout=_PATIENCE_SECONDS, check=False)
    return probe.returncode == 0


def _copied() -> Path:
    """Make an environment with this interpreter, the dependencies and Ductile, which everybody can reach."""
    # Not below the directories of pytest, which are closed to others.
    top = Path(tempfile.mkdtemp(prefix="ductile-tests-"))
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    top.chmod(0o755)
    shutil.copytree(_ROOT, top / "checkout", ignore=shutil.ignore_patterns(*_NOT_COPIED))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", top / "venv"], check=True,
                   timeout=_PATIENCE_SECONDS)
    (library,) = (top / "venv").glob("lib/python3*/site-packages")
    for name in _DEPENDENCIES:
        source = Path(sysconfig.get_path("platlib"), name)
        if source.is_dir():
            shutil.copytree(source, library / name)
        elif source.exists():
            shutil.copy(source, library)
    (library / "checkout.pth").write_text(f"{top}/checkout\n")
    for name in _PROGRAMS:
        copy = top / "venv" / "bin" / name
        copy.write_text((_HERE / name).read_text().replace(str(_HERE), str(copy.parent)))
        copy.chmod(0o755)
    # The other user cannot write what is compiled, and would compile it again at each start.
    subprocess.run([sys.executable, "-m", "compileall", "-q", library, top / "checkout" / "ductile"], check=True,
                   timeout=_PATIENCE_SECONDS)
    subprocess.run(["chmod", "-R", "a+rX", top], check=True, timeout=_PATIENCE_SECONDS)
    return top / "venv" / "bin"
