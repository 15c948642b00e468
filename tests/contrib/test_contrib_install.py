"""contrib/install on a tree of its own: what it makes, what an update leaves alone, and that it can be undone."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest

from support import ordinary
from support.newcomer import NOT_ISOLATED, make_clone, system_python
from support.wheels import make_wheels, needed

ROOT = Path(__file__).resolve().parents[2]
INSTALL = ROOT / "contrib" / "install"
REQUIREMENTS = ROOT / "contrib" / "requirements.txt"
PATIENCE_SECONDS = 300
SYSTEM_PATH = f"{os.defpath}:/usr/sbin:/sbin"
ORDINARY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
# What programs that change passwd leave beside it.
NOT_OURS = re.compile(r"etc/(passwd|group|shadow|gshadow)-|etc/\.pwd\.lock")
ACCOUNTS = {"passwd": "root:x:0:0:root:/root:/bin/sh\n", "group": "root:x:0:\n", "shadow": "root:*:19000::::::\n",
            "gshadow": "root:*::\n"}
DIRECTORIES = ("opt", "etc/default", "etc/init.d", "etc/logrotate.d", "usr/local/bin", "usr/local/lib", "var/lib",
               "var/log")

# New enough, makes environments of its own kind, and its pip finds nothing. Called with -c TEXT, -m MODULE ARGUMENT...
PYTHON_WITHOUT_NETWORK = """\
#!/bin/sh
case $1$2 in
    -c*realpath*) echo "$0" ;;
    -mvenv) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    -mpip) echo 'ERROR: no matching distribution' >&2; exit 1 ;;
esac
"""

# The same, but its pip has nothing to do.
PYTHON_WITHOUT_PIP = """\
#!/bin/sh
case $1$2 in
    -c*realpath*) echo "$0" ;;
    -mvenv) mkdir -p "$4/bin" "$4/lib" && cp "$0" "$4/bin/python" && echo "$4" >"$4/pyvenv.cfg" ;;
esac
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can install for the whole machine")


def install(*arguments: str | Path, become: Sequence[str] = (),
            **environ: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the script with these arguments, with this interpreter and what is installed for it."""
    environ = {"PATH": SYSTEM_PATH, "HOME": "/nonexistent", "LANG": "C.UTF-8", "PYTHON": sys.executable,
               "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, **environ}
    return subprocess.run([*become, ordinary.reachable(INSTALL) if become else INSTALL, *arguments], check=False,
                          stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=PATIENCE_SECONDS, env=environ, cwd="/")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with everything that pip would fetch from the network."""
    directory = tmp_path_factory.mktemp("wheels")
    exact = REQUIREMENTS.read_text().splitlines()
    others = [name for name in needed()
              if f"{name.lower().replace('_', '-')}=={metadata.version(name)} \\" not in exact]
    if others:
        pytest.skip(f"needs the versions of contrib/requirements.txt; others are installed of: {', '.join(others)}")
    return make_wheels(directory)


def make_tree(root: Path) -> Path:
    """A machine, as far as the script looks at one."""
    for name in DIRECTORIES:
        (root / name).mkdir(parents=True)
    for name, text in ACCOUNTS.items():
        (root / "etc" / name).write_text(text)
        (root / "etc" / name).chmod(0o600 if "shadow" in name else 0o644)
    return root


def contents(root: Path) -> dict[str, tuple[int, int, int, str | bytes]]:
    """Return everything below: mode, owner, group, and what is in it or where it points to."""
    found = {}
    for path in sorted(root.rglob("*")):
        name, status = path.relative_to(root).as_posix(), path.lstat()
        inside = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        if not NOT_OURS.fullmatch(name):
            found[name] = (status.st_mode, status.st_uid, status.st_gid, inside)
    return found


def account(root: Path) -> tuple[int, int]:
    (line,) = [line for line in (root / "etc" / "passwd").read_text().splitlines() if line.startswith("ductile:")]
    _, _, uid, gid, _, home, shell = line.split(":")
    assert (home, Path(shell).name) == ("/var/lib/ductile", "nologin")
    return int(uid), int(gid)


@pytest.fixture(scope="module")
def installed(wheels: Path, python_that_copies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, before = make_tree(tmp_path_factory.mktemp("installed").resolve()), built_in_the_checkout()
    done = install("--root", root, PYTHON=python_that_copies, PIP_FIND_LINKS=wheels)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("wrote ")] == [
        f"wrote {root}/etc/ductile/config.yaml", f"wrote {root}/etc/ductile/secrets.env",
        f"wrote {root}/etc/default/ductiled", f"wrote {root}/etc/logrotate.d/ductile",
    ]
    assert built_in_the_checkout() == before
    return root


def built_in_the_checkout() -> set[str]:
    """Return what setuptools leaves behind where it is let."""
    return {path.name for path in ROOT.iterdir() if path.name == "build" or path.suffix == ".egg-info"}


@pytest.fixture(scope="module")
def without_libraries(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what was installed without the two thousand files of pip and setuptools."""
    copy = tmp_path_factory.mktemp("small").resolve()
    subprocess.run(["cp", "-a", "--", f"{installed}/.", copy], check=True, timeout=PATIENCE_SECONDS)
    for name in ("pip", "setuptools", "pkg_resources", "_distutils_hack"):
        for found in copy.glob(f"opt/ductile/lib/python3*/site-packages/{name}"):
            shutil.rmtree(found)
    return copy


@pytest.fixture
def tree(without_libraries: Path, tmp_path: Path) -> Path:
    """A copy of what was installed, to be changed."""
    subprocess.run(["cp", "-a", "--", f"{without_libraries}/.", tmp_path], check=True, timeout=PATIENCE_SECONDS)
    return tmp_path.resolve()


@as_root
@pytest.mark.parametrize(
    ("name", "mode", "is_its_own"),
    [
        ("etc/ductile", 0o755, False), ("etc/ductile/plugins", 0o755, False), ("etc/ductile/pipelines", 0o755, False),
        ("etc/ductile/config.yaml", 0o644, False), ("etc/default/ductiled", 0o640, False),
        ("etc/logrotate.d/ductile", 0o644, False), ("etc/init.d/ductiled", 0o755, False),
        ("usr/local/lib/systemd/system/ductiled.service", 0o644, False),
        ("usr/local/lib/systemd/system/ductiled@.service", 0o644, False),
        ("usr/local/lib/systemd/user/ductiled.service", 0o644, False),
        ("usr/local/lib/sysusers.d/ductile.conf", 0o644, False),
        ("usr/local/lib/tmpfiles.d/ductile.conf", 0o644, False),
        ("opt/ductile/bin/ductiled", 0o755, False), ("opt/ductile/share/ductile/plugins/echo/run.sh", 0o755, False),
        ("var/lib/ductile", 0o700, True), ("var/log/ductile", 0o750, True),
    ],
)
def test_each_thing_is_where_it_belongs(installed: Path, name: str, mode: int, is_its_own: bool) -> None:
    status = (installed / name).stat()
    owner = account(installed) if is_its_own else (0, 0)
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, *owner)


@as_root
def test_secrets_are_for_root_and_the_group(installed: Path) -> None:
    status = (installed / "etc/ductile/secrets.env").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 0, account(installed)[1])


@as_root
@pytest.mark.skipif(shutil.which("systemd-tmpfiles", path=SYSTEM_PATH) is None, reason="there is no systemd-tmpfiles")
def test_a_var_that_starts_empty_is_filled_at_boot(tree: Path) -> None:
    before = contents(tree)
    for name in ("var/lib/ductile", "var/log/ductile"):
        (tree / name).rmdir()
    done = subprocess.run(
        ["systemd-tmpfiles", f"--root={tree}", "--create", tree / "usr/local/lib/tmpfiles.d/ductile.conf"],
        check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS, env={"PATH": SYSTEM_PATH},
    )
    assert (done.returncode, done.stderr, contents(tree) == before) == (0, "", True)


@as_root
@pytest.mark.parametrize("program", ["ductiled", "ductilectl"])
def test_both_programs_run_from_their_own_environment(installed: Path, program: str) -> None:
    assert os.readlink(installed / "usr/local/bin" / program) == f"/opt/ductile/bin/{program}"
    script = installed / "opt/ductile/bin" / program
    assert script.read_text().startswith("#!/opt/ductile/bin/python")
    # Under another root the first line of the script leads nowhere yet.
    done = subprocess.run([script.with_name("python"), script, "--version"], check=False, capture_output=True,
                          text=True, timeout=PATIENCE_SECONDS, env={"PATH": os.defpath}, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(rf"{program} \d+\.\d+\.\d+\n", done.stdout)


@as_root
def test_nothing_names_the_root_that_it_was_installed_under(installed: Path) -> None:
    texts = [path for top in ("etc", "usr", "opt/ductile/bin", "opt/ductile/share")
             for path in (installed / top).rglob("*") if path.is_file() and not path.is_symlink()]
    named = [path for path in [*texts, installed / "opt/ductile/pyvenv.cfg"] if b"installed" in path.read_bytes()
             and os.fsencode(installed) in path.read_bytes()]
    assert named == []


@as_root
def test_the_configuration_is_the_example_with_the_places_of_the_machine(installed: Path, tmp_path: Path) -> None:
    text = (installed / "etc/ductile/config.yaml").read_text(encoding="utf-8")
    example = (ROOT / "etc/ductile/config.yaml").read_text(encoding="utf-8").splitlines()
    changed = [line for line in text.splitlines() if line not in example and not line.startswith("#")]
    assert changed == [
        "  env_file: /etc/ductile/secrets.env",
        "  path: /var/lib/ductile/state.db",
        "  path: /var/lib/ductile/ws",
        "plugins_dir: [/etc/ductile/plugins, /opt/ductile/share/ductile/plugins]",
        "pipelines_dir: /etc/ductile/pipelines",
    ]
    assert "ductiled -t -c /etc/ductile " in text
    assert ".." not in re.sub(r"\.\.\.", "", text), "a path relative to where the example was"
    here = tmp_path / "config.yaml"
    here.write_text(re.sub(r"/(etc|opt|var/lib)/ductile", rf"{installed}/\1/ductile", text), encoding="utf-8")
    python = installed / "opt/ductile/bin/python"
    done = subprocess.run([python, python.with_name("ductiled"), "-t", "-c", here], check=False, capture_output=True,
                          text=True, timeout=PATIENCE_SECONDS, env={"PATH": os.defpath}, cwd="/")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{here}: ok, 1 plugin configured\n", "")


@as_root
def test_an_update_replaces_programs_and_leaves_settings_alone(
    tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    python = tmp_path_factory.mktemp("new") / "python3"
    python.write_text(PYTHON_WITHOUT_PIP)
    python.chmod(0o755)
    settings = [tree / name for name in ("etc/ductile/config.yaml", "etc/ductile/secrets.env", "etc/default/ductiled",
                                         "etc/logrotate.d/ductile")]
    for path in settings:
        path.write_text("changed by the operator\n")
    (tree / "etc/ductile/plugins/own").write_text("of the operator")
    (tree / "opt/ductile/stale").write_text("of the version before")
    unit = tree / "usr/local/lib/systemd/system/ductiled.service"
    unit.write_text("of the version before")
    passwd = (tree / "etc/passwd").read_text()
    done = install("--root", tree, PYTHON=python)
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, "")
    assert {path.read_text() for path in settings} == {"changed by the operator\n"}
    assert (tree / "etc/ductile/plugins/own").exists()
    assert (tree / "etc/passwd").read_text() == passwd
    assert unit.read_text() == (ROOT / "contrib/systemd/ductiled.service").read_text()
    assert [path.name for path in (tree / "opt").iterdir()] == ["ductile"]
    assert not (tree / "opt/ductile/stale").exists()


@as_root
def test_an_update_that_fails_says_so_and_leaves_the_programs_that_were_there(
    tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    python = tmp_path_factory.mktemp("offline") / "python3"
    python.write_text(PYTHON_WITHOUT_NETWORK)
    python.chmod(0o755)
    before = contents(tree)
    done = install("--root", tree, PYTHON=python)
    assert (done.returncode, done.stderr) == (
        69, "ERROR: no matching distribution\ninstall: pip could not install Ductile: is the network there?\n")
    assert contents(tree) == before


@as_root
def test_removal_leaves_configuration_data_and_logs(tree: Path) -> None:
    (tree / "var/lib/ductile/state.db").write_text("precious")
    done = install("--root", tree, "--remove")
    assert (done.returncode, done.stdout, done.stderr) == (
        0, f"kept: {tree}/etc/ductile, {tree}/var/lib/ductile, {tree}/var/log/ductile and the user ductile;"
           " contrib/install --remove --purge removes them\n", "")
    left = {name for name in contents(tree) if "ductile" in name}
    assert left == {
        "etc/ductile", "etc/ductile/config.yaml", "etc/ductile/secrets.env", "etc/ductile/pipelines",
        "etc/ductile/plugins", "etc/default/ductiled", "etc/logrotate.d/ductile", "var/lib/ductile",
        "var/lib/ductile/state.db", "var/log/ductile",
    }
    assert account(tree)


@as_root
def test_a_purge_leaves_the_tree_as_it_was_before(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    untouched = make_tree(tmp_path_factory.mktemp("untouched"))
    (tree / "var/lib/ductile/state.db").write_text("not so precious")
    done = install("--root", tree, "--remove", "--purge")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert contents(tree) == contents(untouched)
    assert install("--root", tree, "--remove", "--purge").returncode == 0, "a second time is no error"


@as_root
def test_programs_manuals_and_completion_are_where_they_are_looked_for(tree: Path) -> None:
    links = {path.relative_to(tree).as_posix(): path.readlink() for place in ("etc/fish", "usr/local")
             for path in (tree / place).rglob("*") if path.is_symlink()}
    assert sorted(links) == [
        "etc/fish/completions/ductilectl.fish",
        "usr/local/bin/ductilectl", "usr/local/bin/ductiled", *(
            f"usr/local/share/bash-completion/completions/{name}" for name in ("ductilectl", "ductiled")), *(
            f"usr/local/share/man/{page}" for page in (
                "man1/ductilectl.1", "man5/ductile.yaml.5", "man7/ductile-pipeline.7", "man7/ductile-plugin.7",
                "man7/ductile-webhook.7",
                "man8/ductiled.8")), "usr/local/share/zsh/site-functions/_ductilectl"]
    assert [target for target in links.values() if not (tree / target.relative_to("/")).is_file()] == []


@as_root
def test_what_the_user_may_not_write_is_compiled(tree: Path) -> None:
    plugins = tree / "opt/ductile/share/ductile/plugins"
    assert {path.parent.name for path in plugins.glob("*/__pycache__")} == {
        path.parent.name for path in plugins.glob("*/*.py")}


@as_root
def test_what_is_not_ours_is_not_removed(tree: Path) -> None:
    link = tree / "usr/local/bin/ductiled"
    link.unlink()
    link.write_text("somebody else's")
    (tree / "usr/local/lib/tmpfiles.d/other.conf").write_text("somebody else's")
    assert install("--root", tree, "--remove", "--purge").returncode == 0
    assert {name for name in contents(tree) if name.startswith("usr/local/") and (tree / name).is_file()} == {
        "usr/local/bin/ductiled", "usr/local/lib/tmpfiles.d/other.conf"}


@as_root
def test_nothing_is_removed_while_a_daemon_runs(tree: Path) -> None:
    before = contents(tree)
    with open(tree / "var/lib/ductile/ductiled.pid", "w") as held:
        held.write("4711\n")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        done = install("--root", tree, "--remove", "--purge")
    assert (done.returncode, done.stderr) == (75, "install: ductiled still runs as PID 4711: stop it first\n")
    assert contents(tree).keys() - before.keys() == {"var/lib/ductile/ductiled.pid"}
    assert before.keys() - contents(tree).keys() == set()


def programs_without(name: str, directory: Path) -> Path:
    """Return a directory of links to every program but one."""
    directory.mkdir()
    for place in SYSTEM_PATH.split(":"):
        for program in Path(place).glob("*"):
            if program.name != name and not (directory / program.name).is_symlink():
                (directory / program.name).symlink_to(program)
    return directory


@as_root
@pytest.mark.parametrize("absent", ["useradd", "systemd-sysusers"])
def test_an_empty_tree_gets_what_it_lacks(tmp_path: Path, absent: str) -> None:
    other = {"useradd": "systemd-sysusers", "systemd-sysusers": "useradd"}[absent]
    if shutil.which(other, path=SYSTEM_PATH) is None:
        pytest.skip(f"{other} is not installed")
    root, python = tmp_path / "root", tmp_path / "python3"
    root.mkdir()
    python.write_text(PYTHON_WITHOUT_PIP)
    python.chmod(0o755)
    programs = programs_without(absent, tmp_path / "bin")
    done = install("--root", root, PATH=programs, PYTHON=python)
    assert (done.returncode, done.stdout.splitlines()) == (0, [
        f"installing into {root}/opt/ductile with {python}", f"wrote {root}/etc/ductile/config.yaml",
        f"wrote {root}/etc/ductile/secrets.env"]), done.stderr
    owned = [(root / name).stat() for name in ("var/lib/ductile", "var/log/ductile")]
    assert [(each.st_uid, each.st_gid) for each in owned] == [account(root)] * 2
    assert os.readlink(root / "usr/local/bin/ductiled") == "/opt/ductile/bin/ductiled"
    assert (root / "usr/local/lib/systemd/system/ductiled.service").exists()
    assert install("--root", root, "--remove", "--purge", PATH=programs).returncode == 0
    assert {name for name in contents(root) if "ductile" in name} == set()
    assert "ductile" not in (root / "etc/group").read_text() + (root / "etc/passwd").read_text()


@as_root
def test_a_machine_without_a_good_python_is_told_so(tmp_path: Path) -> None:
    done = install("--root", make_tree(tmp_path), PYTHON="/no/such/python3")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        69, "install: no Python 3.11 or newer found in PYTHON=/no/such/python3: install one, or name it with"
            " PYTHON=/path/to/python3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prefix", "/usr"], "no such argument: '--prefix'; see contrib/install --help"),
        (["--root"], "--root needs a directory that exists, got ''"),
        (["--root", "/no/such/place"], "--root needs a directory that exists, got '/no/such/place'"),
        (["--purge"], "--purge goes with --remove"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], message: str) -> None:
    done = install(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (64, "", f"install: {message}\n")


def test_only_root_may() -> None:
    done = install("--root", tempfile.gettempdir(), become=ORDINARY if os.geteuid() == 0 else ())
    assert (done.returncode, done.stdout, done.stderr) == (
        77, "", "install: only root can install for the whole machine\n")


def test_help_is_the_head_of_the_script() -> None:
    done = install("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Installs this checkout for the whole machine, and takes it away again.\n")
    assert done.stdout.endswith("for anybody but root, else 1.\n")


# The guide's steps, on what looks like a whole machine to them: what they change lies over the real one in a namespace.
NAMESPACE = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
OVERLAID = ("/etc", "/opt", "/usr/local", "/var")
BLOCK = re.compile(r"^```sh (\w+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def machine(directory: Path) -> list[str]:
    """Commands that put a layer over each of these trees, and hide a systemd that runs."""
    lines = ["mount -t tmpfs tmpfs /run", f"mount -t tmpfs tmpfs {directory}"]
    for number, tree in enumerate(OVERLAID):
        upper, work = directory / f"{number}-upper", directory / f"{number}-work"
        lines += [f"mkdir {upper} {work}",
                  f"mount -t overlay overlay -o lowerdir={tree},upperdir={upper},workdir={work} {tree}"]
    return lines


def why_not_here() -> str | None:
    """Say why the guide's steps cannot be taken here."""
    if os.geteuid() != 0:
        return "only root can install for the whole machine"
    for program in ("unshare", "runuser", "service", "update-rc.d", "start-stop-daemon"):
        if shutil.which(program, path=SYSTEM_PATH) is None:
            return f"{program} is not installed"
    if Path("/opt/ductile").exists() or Path("/etc/ductile").exists():
        return "Ductile is installed on this machine"
    if system_python() is None:
        return f"/usr/bin/python3 is not Python {sys.version_info[0]}.{sys.version_info[1]} with its venv module"
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run([*NAMESPACE, "sh", "-ec", "\n".join(machine(Path(directory)))], check=False,
                              capture_output=True, timeout=PATIENCE_SECONDS)
    return None if done.returncode == 0 else "no namespace with overlays can be made here"


WHY_NOT = why_not_here()


def steps(mark: str) -> list[str]:
    """Return the guide's commands of one kind, a line each, without those for systemd."""
    blocks = BLOCK.findall((ROOT / "contrib/INSTALL.md").read_text(encoding="utf-8"))
    return [line for kind, init, text in blocks if kind == mark and init != "systemd" for line in text.splitlines()]


@pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")
@pytest.mark.parametrize(("mark", "then"), [
    ("steps", ["grep -q '^GITHUB_WEBHOOK_SECRET=..' /etc/ductile/secrets.env", "service ductiled stop"]),
    ("hand", ["ductiled --version", "runuser -u ductile -- ductilectl --version"]),
])
def test_the_guides_steps_work_line_by_line(tmp_path: Path, wheels: Path, python_that_copies: Path, mark: str,
                                            then: list[str]) -> None:
    taken, clone, layers = [*steps(mark), *then], make_clone(tmp_path / "clone"), tmp_path / "layers"
    layers.mkdir()
    script = "\n".join(["set -e", *machine(layers), "set +e",
                        *(f"{{ {step}\n}} && printf '\\0'" for step in taken)])
    done = subprocess.run(
        [*NAMESPACE, "bash", "-c", script], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=PATIENCE_SECONDS, cwd=clone,
        env={"PATH": f"{python_that_copies.parent}:/usr/local/bin:{SYSTEM_PATH}", "HOME": "/root",
             "PYTHON": str(python_that_copies), "USER": "root", "LANG": "C.UTF-8",
             "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull,
             "PIP_ROOT_USER_ACTION": "ignore", **NOT_ISOLATED})
    assert (len(taken) > 5, done.stdout.count("\0")) == (True, len(taken)), done.stdout + done.stderr


def test_every_file_that_the_guide_names_is_there() -> None:
    text = (ROOT / "contrib/INSTALL.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:contrib|etc/ductile)/[\w./-]*\w", text))
    named -= {"etc/ductile/secrets.env", "etc/ductile/environment"}
    missing = [name for name in named if not (ROOT / name).exists() and f"/{name}" not in text]
    assert missing == []
