"""What is found in real directories, and every reason for which a plugin is not loaded."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from ductile.plugin.discovery import discover
from support.plugins_on_disk import (
    MANIFEST,
    ROOT,
    found_by_a_child,
    found_by_an_ordinary_user,
    make,
    missing_for_an_ordinary_user,
    write,
)

INSIDE = "expected a path inside the plugin's directory, without '..', got"


@pytest.fixture
def plugins():
    # pytest's own directories are closed to other users, and the children here are other users.
    directory = Path(tempfile.mkdtemp(prefix="plugins-")).resolve()
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def more(count: int) -> str:
    return f" (and {count} more: `ductilectl check` shows all)"


def reason_in(plugins: Path) -> str:
    """Return the reason of the only thing found."""
    (found,) = discover([plugins]).found
    assert found.plugin is None
    return found.reason


def reason_or_none(plugins: Path) -> str | None:
    (found,) = discover([plugins]).found
    return found.reason


def test_a_good_plugin_is_loaded(plugins):
    directory = make(plugins)
    registry = discover([plugins])
    (found,) = registry.found
    assert registry.missing == ()
    assert (found.name, found.directory, found.reason) == ("echo", directory, None)
    assert found.plugin.manifest.version == "0.1.0"
    assert found.plugin.directory == directory
    assert found.plugin.entrypoint == directory / "run.sh"
    assert found.files == (("echo/manifest.yaml", (directory / "manifest.yaml").read_bytes()),)
    assert registry.get("echo") is found
    assert registry.get("nothing") is None


def test_plugins_are_sorted_and_what_has_no_manifest_is_skipped(plugins):
    for name in ("zeta", "alpha", "mid"):
        make(plugins, name)
    (plugins / "lib").mkdir()
    make(plugins / "lib", "deeper")
    (plugins / "_template").mkdir()
    (plugins / "README.md").write_text("not a directory")
    (plugins / "nowhere").symlink_to("gone")
    assert [found.name for found in discover([plugins]).found] == ["alpha", "mid", "zeta"]


def test_a_plugin_is_called_what_its_manifest_says(plugins):
    make(plugins, "directory", called="plugin")
    registry = discover([plugins])
    assert registry.get("plugin").plugin is not None
    assert registry.get("directory") is None


def test_a_plugin_is_found_under_its_name_though_its_manifest_is_wrong(plugins):
    directory = make(plugins, "directory", called="plugin")
    write(directory / "manifest.yaml", "name: plugin\nversion: 1\nprotocol: 3\nentrypoint: run.sh\ncommands: [poll]\n")
    found = discover([plugins]).get("plugin")
    assert found.reason == f"{directory}/manifest.yaml:3:11: protocol: expected 1 or 2, got 3"


def test_a_directory_that_does_not_exist_is_missing(plugins):
    make(plugins)
    registry = discover([plugins / "none", plugins])
    assert registry.missing == ((plugins / "none", f"expected a directory that exists, got {plugins}/none"),)
    assert [found.name for found in registry.found] == ["echo"]


def test_a_directory_named_twice_is_searched_once(plugins):
    make(plugins)
    assert [found.reason for found in discover([plugins, plugins]).found] == [None]


def test_what_is_no_directory_of_plugins_is_missing(plugins):
    write(plugins / "file", "")
    (plugins / "loop").symlink_to("loop")
    make(plugins)
    registry = discover([plugins / "file", plugins / "loop", plugins])
    assert registry.missing == (
        (plugins / "file", f"expected a directory, got {plugins}/file: Not a directory"),
        (plugins / "loop", f"expected a directory, got {plugins}/loop: Too many levels of symbolic links"),
    )
    assert registry.get("echo").plugin is not None


def test_the_first_directory_shadows_the_later_ones(plugins):
    make(plugins / "a")
    make(plugins / "b", "other", called="echo")
    registry = discover([plugins / "a", plugins / "b"])
    assert [(found.directory, found.plugin is None, found.reason) for found in registry.found] == [
        (plugins / "a" / "echo", False, None),
        (plugins / "b" / "other", True, f"shadowed by {plugins}/a/echo"),
    ]
    assert registry.get("echo").directory == plugins / "a" / "echo"


def test_a_plugin_that_cannot_be_loaded_still_shadows(plugins):
    (make(plugins / "a") / "run.sh").unlink()
    make(plugins / "b")
    registry = discover([plugins / "a", plugins / "b"])
    assert registry.get("echo").plugin is None
    assert registry.found[1].reason == f"shadowed by {plugins}/a/echo"


def test_of_two_plugins_with_one_name_in_a_directory_the_first_is_loaded(plugins):
    make(plugins, "echo")
    make(plugins, "echo.old", called="echo")
    registry = discover([plugins])
    assert registry.get("echo").plugin.directory == plugins / "echo"
    assert [found.reason for found in registry.found] == [
        None,
        f"{plugins}/echo.old/manifest.yaml: the name 'echo' is taken by {plugins}/echo; "
        "change one of the two names, or remove one of the directories",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"name: *other\n", ":1:7: the alias *other has no anchor before it"),
        (b"\xff", ":1:1: expected UTF-8, got the byte 0xff"),
        (b"", ":1:1: the key 'name' is missing" + more(4)),
        (b"- echo\n", ":1:1: expected a mapping, got a list"),
        (b"name: echo\nname: echo\n", ":1:1: the key 'version' is missing" + more(4)),
        (MANIFEST.format(name="a b", entrypoint="run.sh").encode(),
         ":1:7: name: expected a name of 1 to 64 letters, digits, '-' and '_', the first a letter or digit, got 'a b'"),
        (MANIFEST.format(name="echo", entrypoint="/bin/sh").encode(), f":4:13: entrypoint: {INSIDE} '/bin/sh'"),
        (MANIFEST.format(name="echo", entrypoint="../run.sh").encode(), f":4:13: entrypoint: {INSIDE} '../run.sh'"),
        (b"#" * (1024**2 + 1), ": cannot be read: larger than 1.0 MB"),
    ],
)
def test_a_wrong_manifest_is_a_reason_with_its_place(plugins, content, reason):
    manifest = make(plugins) / "manifest.yaml"
    manifest.write_bytes(content)
    assert reason_in(plugins) == f"{manifest}{reason}"


def test_a_manifest_that_is_not_yaml_is_a_reason_with_its_place(plugins):
    manifest = make(plugins) / "manifest.yaml"
    manifest.write_bytes(b"name: [\n")
    assert reason_in(plugins) == (
        f"{manifest}:1:7: the '[' that opens here is not closed: expected ',' or ']' at line 2, column 1")


def test_a_manifest_of_exactly_the_limit_is_read(plugins):
    manifest = make(plugins) / "manifest.yaml"
    text = manifest.read_bytes()
    manifest.write_bytes(text + b"#" * (1024**2 - len(text)))
    assert discover([plugins]).get("echo").plugin is not None


def test_the_other_ending_is_read_too_and_both_at_once_are_a_reason(plugins):
    directory = make(plugins)
    (directory / "manifest.yaml").rename(directory / "manifest.yml")
    (found,) = discover([plugins]).found
    assert (found.reason, found.files[0][0]) == (None, "echo/manifest.yml")
    write(directory / "manifest.yaml", "name: other\n")
    assert reason_in(plugins) == f"{directory}: manifest.yaml and manifest.yml both exist; remove one of them"


def test_a_manifest_of_a_megabyte_of_short_lines_is_refused_after_a_part_of_them(plugins):
    manifest = make(plugins) / "manifest.yaml"
    manifest.write_bytes(b"a: 1\n" * (1024**2 // 5))
    where, told = reason_in(plugins).removeprefix(f"{manifest}:").split(": ", 1)
    assert told == "expected at most 10,000 values in one file, got more"
    assert int(where.split(":")[0]) <= 10_001


@pytest.mark.parametrize(("first", "fault"), [
    ("#!/usr/bin/nope -u\n", "its first line names the interpreter '/usr/bin/nope', which does not exist; install it or"
     " mend the line"),
    ("#! /usr/bin/nope", "its first line names the interpreter '/usr/bin/nope', which does not exist; install it or"
     " mend the line"),
    ("#!/bin/sh\r\n", "its first line ends in CR LF, as on Windows: sed -i 's/\\r$//' {program}"),
    ("#!/usr/bin/env python3\r\n", "its first line ends in CR LF, as on Windows: sed -i 's/\\r$//' {program}"),
    ("#!\n", "its first line names no interpreter; write one such as #!/bin/sh"),
])
def test_a_script_whose_interpreter_cannot_be_found_is_a_reason(plugins, first, fault):
    program = make(plugins) / "run.sh"
    program.write_bytes(first.encode())
    assert reason_in(plugins) == f"{program}: {fault.format(program=program)}"


@pytest.mark.parametrize("content", ["#! /bin/sh -e\n", "#!/bin/sh", "\x7fELF\r\n", "echo\r\n", "", "#!/" + "x" * 300])
def test_a_program_whose_interpreter_exists_or_that_names_none_is_loaded(plugins, content):
    (make(plugins) / "run.sh").write_bytes(content.encode())
    assert reason_or_none(plugins) is None


def to_fifo(path: Path) -> None:
    os.mkfifo(path)


def to_directory(path: Path) -> None:
    path.mkdir(mode=0o755)


def to_endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("replace", [to_fifo, to_directory, to_endless_device])
def test_a_manifest_that_is_no_file_is_refused_at_once(plugins, replace):
    manifest = make(plugins) / "manifest.yaml"
    manifest.unlink()
    replace(manifest)
    assert reason_in(plugins) == f"{manifest}: cannot be read: not a regular file; put a regular file in its place"


def test_a_manifest_that_is_a_socket_is_refused(plugins):
    manifest = make(plugins) / "manifest.yaml"
    manifest.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(manifest))
        assert reason_in(plugins) == f"{manifest}: cannot be read: No such device or address"


@pytest.mark.parametrize(
    ("target", "error"),
    [("manifest.yaml", "Too many levels of symbolic links"), ("gone", "No such file or directory")],
)
def test_a_manifest_that_links_nowhere_is_a_reason(plugins, target, error):
    manifest = make(plugins) / "manifest.yaml"
    manifest.unlink()
    manifest.symlink_to(target)
    assert reason_in(plugins) == f"{manifest}: cannot be read: {error}"


def test_a_plugin_directory_that_links_to_itself_is_a_reason(plugins):
    (plugins / "loop").symlink_to("loop")
    assert reason_in(plugins) == (
        f"{plugins}/loop/manifest.yaml: cannot be read: Too many levels of symbolic links"
    )


def test_a_missing_entrypoint_is_a_reason(plugins):
    directory = make(plugins, entrypoint="gone.sh")
    assert reason_in(plugins) == (
        f"{directory}/gone.sh: the entrypoint is missing; put it there, "
        f"or mend 'entrypoint' in {directory}/manifest.yaml"
    )


@pytest.mark.parametrize(
    ("target", "error"), [("loop", "Too many levels of symbolic links"), ("run.sh/x", "Not a directory")]
)
def test_an_entrypoint_that_leads_nowhere_is_a_reason(plugins, target, error):
    directory = make(plugins, entrypoint="loop")
    (directory / "loop").symlink_to(target)
    assert reason_in(plugins) == f"{directory}/loop: cannot be read: {error}"


@pytest.mark.parametrize("entrypoint", ["sub", ".", "fifo"])
def test_an_entrypoint_that_is_no_file_is_a_reason(plugins, entrypoint):
    directory = make(plugins, entrypoint=entrypoint)
    (directory / "sub").mkdir(mode=0o755)
    os.mkfifo(directory / "fifo", 0o644)
    assert reason_in(plugins) == (
        f"{directory / entrypoint}: the entrypoint is not a regular file; "
        f"mend 'entrypoint' in {directory}/manifest.yaml"
    )


def test_an_entrypoint_that_is_not_executable_is_a_reason(plugins):
    directory = make(plugins)
    (directory / "run.sh").chmod(0o644)
    assert reason_in(plugins) == (
        f"{directory}/run.sh: the entrypoint is not executable: chmod a+rx {directory}/run.sh"
    )


def test_a_name_that_the_shell_would_split_is_quoted_in_the_command(plugins):
    directory = make(plugins, "my echo", called="echo")
    directory.chmod(0o757)
    assert reason_in(plugins) == f"{directory}: writable by others: chmod o-w '{directory}'"


def test_links_inside_the_plugin_are_followed(plugins):
    directory = make(plugins, entrypoint="bin/start")
    (directory / "bin").mkdir(mode=0o755)
    (directory / "bin" / "start").symlink_to("../run.sh")
    assert discover([plugins]).get("echo").plugin.entrypoint == directory / "run.sh"


def test_a_plugin_directory_may_itself_be_a_link(plugins):
    directory = make(plugins / "elsewhere")
    (plugins / "search").mkdir()
    (plugins / "search" / "echo").symlink_to(directory)
    plugin = discover([plugins / "search"]).get("echo").plugin
    assert plugin.directory == plugins / "search" / "echo"
    assert plugin.entrypoint == directory / "run.sh"


@pytest.mark.parametrize("through", ["file", "directory", "chain", "sibling"])
def test_an_entrypoint_that_links_out_of_the_plugin_is_a_reason(plugins, through):
    outside = make(plugins / "outside")
    entrypoint = "link/run.sh" if through == "directory" else "link"
    search = plugins / "search"
    directory = make(search, "plugin", entrypoint=entrypoint)
    real = outside / "run.sh"
    if through == "sibling":
        # A name that only begins like the plugin's own directory is outside all the same.
        real = make(plugins / "search", "plugin2") / "run.sh"
        (search / "plugin2" / "manifest.yaml").unlink()
    (directory / "second").symlink_to(real)
    (directory / "link").symlink_to({"directory": outside, "chain": "second"}.get(through, real))
    assert reason_in(search) == (
        f"{directory / entrypoint}: the entrypoint leads out of the plugin's directory, to {real}; "
        f"replace the link by the file: cp --remove-destination {real} {directory / entrypoint}"
    )


@pytest.mark.parametrize("place", [".", "manifest.yaml", "run.sh"])
def test_what_others_may_write_is_a_reason(plugins, place):
    path = make(plugins) / place
    path.chmod(0o757)
    assert reason_in(plugins) == f"{path}: writable by others: chmod o-w {path}"


@pytest.mark.parametrize("place", ["bin", "bin/deep", "bin/deep/start"])
def test_what_others_may_write_behind_a_link_is_a_reason(plugins, place):
    directory = make(plugins, entrypoint="start")
    for each in ("bin", "bin/deep"):
        (directory / each).mkdir(mode=0o755)
    (directory / "run.sh").rename(directory / "bin" / "deep" / "start")
    (directory / "start").symlink_to("bin/deep/start")
    assert discover([plugins]).get("echo").plugin is not None
    (directory / place).chmod(0o757)
    assert reason_in(plugins) == f"{directory / place}: writable by others: chmod o-w {directory / place}"


def test_what_the_group_may_write_is_loaded(plugins):
    directory = make(plugins)
    for path in (directory, directory / "manifest.yaml", directory / "run.sh"):
        path.chmod(0o775)
    assert discover([plugins]).get("echo").plugin is not None


def test_a_directory_name_that_is_not_utf8_is_a_reason(plugins):
    odd = Path(os.fsdecode(os.fsencode(plugins) + b"/caf\xe9"))
    make(plugins, "echo").rename(odd)
    (found,) = discover([plugins]).found
    assert found.directory == odd
    assert found.reason == f"{plugins}/caf\\xe9: the directory's name is not UTF-8; rename it"


def test_an_odd_name_stays_on_one_line(plugins):
    make(plugins, "a\nb\x1b", called="echo").chmod(0o757)
    assert reason_in(plugins) == f"{plugins}/a\\nb\\x1b: writable by others: chmod o-w '{plugins}/a\\nb\\x1b'"


def test_an_entrypoint_beyond_ascii_is_found_in_any_locale(plugins):
    directory = make(plugins, entrypoint="☃.sh")
    (directory / "run.sh").rename(directory / "☃.sh")
    found = found_by_a_child(plugins, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert found == [["echo", None]]


def test_no_descriptor_stays_open(plugins):
    make(plugins, "good")
    for name, replace in (("fifo", to_fifo), ("directory", to_directory), ("device", to_endless_device)):
        manifest = make(plugins, name) / "manifest.yaml"
        manifest.unlink()
        replace(manifest)
    before = len(os.listdir("/proc/self/fd"))
    assert len(discover([plugins]).found) == 4
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_ordinary_user_loads_what_it_may_read(plugins):
    make(plugins)
    assert found_by_an_ordinary_user(plugins) == [["echo", None]]


@pytest.mark.parametrize(("place", "mode"), [("manifest.yaml", 0o000), (".", 0o000)])
def test_an_ordinary_user_is_told_what_it_cannot_read(plugins, place, mode):
    directory = make(plugins)
    (directory / place).chmod(mode)
    found = found_by_an_ordinary_user(plugins)
    (directory / place).chmod(0o755)
    assert found == [[
        "echo",
        f"{directory}/manifest.yaml: cannot be read: Permission denied; "
        "give the daemon's user access to it and to its directory",
    ]]


def test_an_ordinary_user_is_told_of_a_closed_way_to_the_entrypoint(plugins):
    directory = make(plugins, entrypoint="bin/start")
    (directory / "bin").mkdir()
    (directory / "run.sh").rename(directory / "bin" / "start")
    (directory / "bin").chmod(0o000)
    found = found_by_an_ordinary_user(plugins)
    (directory / "bin").chmod(0o755)
    assert found == [[
        "echo",
        f"{directory}/bin/start: cannot be read: Permission denied; "
        "give the daemon's user access to it and to its directory",
    ]]


def test_an_ordinary_user_is_told_of_a_search_directory_it_cannot_list(plugins):
    (plugins / "closed").mkdir(mode=0o000)
    missing = missing_for_an_ordinary_user(plugins / "closed")
    (plugins / "closed").chmod(0o755)
    assert missing == [[
        f"{plugins}/closed",
        f"expected a directory that the daemon's user can read, got {plugins}/closed: Permission denied",
    ]]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else than the file's owner")
def test_an_ordinary_user_is_told_of_an_entrypoint_that_only_its_owner_may_run(plugins):
    directory = make(plugins)
    (directory / "run.sh").chmod(0o744)
    assert found_by_an_ordinary_user(plugins) == [
        ["echo", f"{directory}/run.sh: the entrypoint is not executable: chmod a+rx {directory}/run.sh"]
    ]


def test_every_shipped_plugin_is_loaded():
    found = discover([ROOT / "plugins"]).found
    assert "echo" in [each.name for each in found]
    assert [each.reason for each in found if each.reason is not None] == []
