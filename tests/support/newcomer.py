"""What somebody has who has just cloned the project: the files, a shell, and an environment of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60
_NOT_CLONED = (".*", "__pycache__", "*.egg-info", "build", "dist", "tests")
_PASTED = "pasted-to-here"
# Copies an environment that is there; the rest is the interpreter's own business.
_COPIES_ENVIRONMENTS = """\
#!/bin/sh
case $1$2 in
    -c*realpath*) echo "$0" ;;
    -mvenv)
        for place; do :; done
        mkdir -p "$place" && cp -a {made}/. "$place" && cd "$place" &&
            grep -rlIZ -F -e {made} -- bin pyvenv.cfg | xargs -0 sed -i "s|{made}|$(pwd -P)|g" ;;
    *) exec {python} "$@" ;;
esac
"""
_PIP = "#!{python}\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n"
# What pip is told so that it builds with the setuptools that a copied environment has, and not in one made for that.
NOT_ISOLATED = {"PIP_NO_BUILD_ISOLATION": "0"}


def make_clone(directory: Path) -> Path:
    """Copy the checkout as a clone has it, without the tests."""
    shutil.copytree(ROOT, directory, ignore=shutil.ignore_patterns(*_NOT_CLONED))
    return directory


def environment(home: Path, **environ: str) -> dict[str, str]:
    """Return a short environment with this interpreter first."""
    return {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "HOME": str(home), "LANG": "C.UTF-8", **environ}


def killed_when_late(process: subprocess.Popen, seconds: float = PATIENCE_SECONDS) -> threading.Timer:
    """Start a watchdog, to be cancelled: a program that hangs must not hang its reader."""
    watchdog = threading.Timer(seconds, process.kill)
    watchdog.start()
    return watchdog


def python_that_copies(directory: Path) -> Path:
    """Make a `python3` that makes virtual environments of one that it has, pip included."""
    made, python = directory / "made", directory / "python3"
    real = system_python() or Path(sys.executable)
    # With pip as it is here: ensurepip takes seven seconds.
    subprocess.run([real, "-m", "venv", "--without-pip", made], check=True, timeout=PATIENCE_SECONDS)
    (library,) = made.glob("lib/python3*/site-packages")
    for name in ("pip", "setuptools"):
        _copy_distribution(name, library)
    (made / "bin" / "pip").write_text(_PIP.format(python=made / "bin" / "python"), encoding="utf-8")
    (made / "bin" / "pip").chmod(0o755)
    python.write_text(_COPIES_ENVIRONMENTS.format(made=made, python=real), encoding="utf-8")
    python.chmod(0o755)
    return python


def _copy_distribution(name: str, library: Path) -> None:
    """Copy a package that is installed here into another library, with what is compiled of it."""
    for top in {file.parts[0] for file in metadata.distribution(name).files if ".." not in file.parts}:
        found = Path(metadata.distribution(name).locate_file(top))
        shutil.copytree(found, library / top) if found.is_dir() else shutil.copy2(found, library)


def system_python() -> Path | None:
    """Return the machine's own interpreter, if it is like this one and can make environments."""
    python = Path("/usr/bin/python3")
    wanted = f"import ensurepip, sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    if python.exists() and subprocess.run([python, "-c", wanted], check=False, capture_output=True,
                                          timeout=PATIENCE_SECONDS).returncode == 0:
        return python
    return None


class Shell:
    """A bash that is given one paste after the other, each when the one before is done."""

    def __init__(self, directory: Path, **environ: str) -> None:
        self._errors = open(directory.parent / "errors.txt", "w+", encoding="utf-8")  # noqa: SIM115
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"], cwd=directory, env=environment(directory, **environ), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, umask=0o022)
        self._watchdog = killed_when_late(self._process, 5 * PATIENCE_SECONDS)

    def paste(self, text: str) -> str:
        """Run a text as one paste and return what it prints."""
        self._process.stdin.write(f"{text}echo {_PASTED}\n")
        self._process.stdin.flush()
        lines = []
        for line in self._process.stdout:
            if line == f"{_PASTED}\n":
                break
            lines.append(line)
        return "".join(lines)

    def close(self) -> str:
        """End the shell and return what was printed on standard error."""
        self._watchdog.cancel()
        with self._process as process, self._errors as errors:
            process.stdin.close()
            process.stdout.read()
            process.wait()
            errors.seek(0)
            return errors.read()
