"""Which configuration file is taken, and the true reason why there is none."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ductile.config.find import find
from ductile.errors import DuctileError
from support.launch import NOBODY, in_a_child, writable_by_all

DENIED = 7
STRANGER = 12345    # a UID that no account has
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes an ordinary user, which takes root")


def written(directory: Path) -> Path:
    """Put a configuration into a directory that is made, and return it."""
    directory.mkdir(parents=True)
    (directory / "config.yaml").touch()
    return directory / "config.yaml"


def refusal(argument: str | None, environ: Mapping[str, str] | None = None, *, system: Path) -> tuple[int, str]:
    with pytest.raises(DuctileError) as caught:
        find(argument, environ or {}, denied=DENIED, system=system)
    return caught.value.exit_code, str(caught.value)


def asked_by(user: int, argument: str | None, environ: Mapping[str, str], *, system: Path) -> tuple[int, str]:
    """Look for the configuration as somebody else; return code and text."""
    def asked() -> tuple[int, str]:
        try:
            return 0, str(find(argument, environ, denied=DENIED, system=system))
        except DuctileError as error:
            return error.exit_code, str(error)

    return in_a_child(asked, ordinary=True, user=user)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that everybody may search."""
    with writable_by_all() as directory:
        yield directory


def test_the_first_that_is_named_or_exists_is_taken(tmp_path: Path) -> None:
    named, variable, own, system = (written(tmp_path / name) for name in (
        "named", "variable", "home/.config/ductile", "system"))
    environ = {"DUCTILE_CONFIG": str(variable), "HOME": str(tmp_path / "home")}
    assert find(str(named), environ, denied=DENIED, system=system) == named
    assert find(str(named.parent), environ, denied=DENIED, system=system) == named
    assert find(None, environ, denied=DENIED, system=system) == variable
    del environ["DUCTILE_CONFIG"]
    assert find(None, environ, denied=DENIED, system=system) == own
    own.unlink()
    assert find(None, environ, denied=DENIED, system=system) == system


def test_where_none_is_all_places_are_named(tmp_path: Path) -> None:
    assert refusal(None, {"HOME": str(tmp_path)}, system=tmp_path / "none") == (
        78, f"no configuration found (looked at $DUCTILE_CONFIG, {tmp_path}/.config/ductile/config.yaml,"
            f" {tmp_path}/none); `ductilectl init` writes a starter configuration")


@pytest.mark.parametrize(("name", "line"), [
    ("none", "{path}/none: no such file or directory"),
    ("a\nb\x1b[31m", "{path}/a\\nb\\x1b[31m: no such file or directory"),
    ("", "{path}: no config.yaml in this directory"),
    ("file/below", "{path}/file/below: cannot be read: Not a directory"),
    ("loop", "{path}/loop: cannot be read: Too many levels of symbolic links"),
    ("n" * 300, "{path}/" + "n" * 300 + ": cannot be read: File name too long"),
])
def test_one_that_is_named_must_be_there(tmp_path: Path, name: str, line: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    path, line = str(tmp_path / name), line.format(path=tmp_path)
    assert refusal(path, system=tmp_path) == (78, f"{line}, named by -c")
    assert refusal(None, {"DUCTILE_CONFIG": path}, system=tmp_path) == (78, f"{line}, named by $DUCTILE_CONFIG")


def test_an_empty_name_is_not_the_directory_one_is_in(tmp_path: Path) -> None:
    assert refusal("", system=tmp_path) == (78, "'': no such file or directory, named by -c")


@as_root
@pytest.mark.parametrize("name", ["", "/config.yaml", "/none"])
def test_a_directory_that_may_not_be_searched_is_not_taken_for_empty(open_path: Path, name: str) -> None:
    closed = written(open_path / "closed").parent
    closed.chmod(0o700)
    looked_at = f"{closed}{name or '/config.yaml'}"
    assert asked_by(NOBODY, f"{closed}{name}", {}, system=open_path) == (
        DENIED, f"{looked_at}: cannot be read: Permission denied, named by -c; run this as the user that runs"
                " ductiled")


@as_root
def test_a_usual_place_that_may_not_be_searched_is_told(open_path: Path) -> None:
    closed = written(open_path / "closed").parent
    closed.chmod(0o700)
    assert asked_by(NOBODY, None, {"HOME": str(open_path)}, system=closed / "config.yaml") == (
        DENIED, f"no configuration found (looked at $DUCTILE_CONFIG, {open_path}/.config/ductile/config.yaml,"
                f" {closed}/config.yaml: Permission denied); run this as the user that runs ductiled, or name one with"
                " -c")
    system = written(open_path / "system")
    assert asked_by(NOBODY, None, {"HOME": str(closed)}, system=system) == (0, str(system))


@as_root
def test_without_a_home_there_is_one_place_less(open_path: Path) -> None:
    assert asked_by(STRANGER, None, {}, system=open_path / "none") == (
        78, f"no configuration found (looked at $DUCTILE_CONFIG, {open_path}/none); `ductilectl init` writes a starter"
            " configuration")
    config = written(open_path / "here")
    assert asked_by(STRANGER, None, {}, system=config) == (0, str(config))
    assert asked_by(STRANGER, str(config), {}, system=open_path / "none") == (0, str(config))


def test_without_the_variable_the_home_is_the_accounts(tmp_path: Path) -> None:
    try:
        own = f"{pwd.getpwuid(os.getuid()).pw_dir}/.config/ductile/config.yaml"
    except KeyError:
        pytest.skip("this user has no account")
    if os.path.exists(own):
        assert find(None, {}, denied=DENIED, system=tmp_path / "none") == Path(own)
    else:
        assert f"(looked at $DUCTILE_CONFIG, {own}, {tmp_path}/none)" in refusal(None, system=tmp_path / "none")[1]
