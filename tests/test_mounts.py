from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ductile.safe_files import network_file_system

ROOT = Path(__file__).resolve().parents[1]
LIMIT_SECONDS = 60
NOBODY = "22 1 0:20 / {place} rw,relatime shared:1 - {kind} source rw"


def kind_of(directory: str | Path, tmp_path: Path, *mounts: tuple[str | Path, str]) -> str | None:
    table = tmp_path / "mountinfo"
    table.write_text("".join(NOBODY.format(place=place, kind=kind) + "\n" for place, kind in mounts))
    return network_file_system(Path(directory), table)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs", "lustre"])
def test_a_network_file_system_is_told_by_its_type(tmp_path, kind):
    assert kind_of("/srv/data", tmp_path, ("/", "ext4"), ("/srv", kind)) == kind


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "vfat"])
def test_a_local_file_system_is_none(tmp_path, kind):
    assert kind_of("/srv/data", tmp_path, ("/", "nfs4"), ("/srv", kind)) is None


def test_the_innermost_mount_counts(tmp_path):
    mounts = [("/srv/data", "ext4"), ("/", "ext4"), ("/srv", "nfs4")]
    assert kind_of("/srv/data/ductile", tmp_path, *mounts) is None
    assert kind_of("/srv/other", tmp_path, *mounts) == "nfs4"
    assert kind_of("/home", tmp_path, *mounts) is None


@pytest.mark.parametrize("below, above, expected", [("ext4", "nfs4", "nfs4"), ("nfs4", "ext4", None)])
def test_of_two_mounts_on_one_place_the_later_counts(tmp_path, below, above, expected):
    assert kind_of("/srv", tmp_path, ("/", "ext4"), ("/srv", below), ("/srv", above)) == expected


def test_a_name_that_only_begins_alike_is_another_place(tmp_path):
    assert kind_of("/srvdata", tmp_path, ("/", "ext4"), ("/srv", "nfs4")) is None


@pytest.mark.parametrize("written, place", [
    (r"/srv/my\040data", "/srv/my data"),
    (r"/srv/tab\011here", "/srv/tab\there"),
    (r"/srv/back\134slash", "/srv/back\\slash"),
    (r"/srv/line\012break", "/srv/line\nbreak"),
    ("/srv/caf\u00e9", "/srv/caf\u00e9"),
])
def test_the_tables_escapes_are_undone(tmp_path, written, place):
    assert kind_of(f"{place}/ductile", tmp_path, ("/", "ext4"), (written, "nfs4")) == "nfs4"


def test_a_link_is_followed_to_where_the_data_are(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to("far")
    assert kind_of(tmp_path / "near", tmp_path, ("/", "ext4"), (tmp_path / "far", "nfs4")) == "nfs4"


def test_optional_fields_do_not_shift_the_type(tmp_path):
    (tmp_path / "mountinfo").write_text(
        "1 0 0:1 / / rw - ext4 dev rw\n"
        "36 35 98:0 /mnt1 /srv rw,noatime master:1 propagate_from:2 unbindable - nfs4 host:/share rw\n")
    assert network_file_system(Path("/srv"), tmp_path / "mountinfo") == "nfs4"


def test_lines_that_make_no_sense_are_passed_over(tmp_path):
    (tmp_path / "mountinfo").write_text("\nnonsense\n1 2 3 - nfs4\n1 0 0:1 / / rw - ext4 dev rw\n")
    assert network_file_system(Path("/srv"), tmp_path / "mountinfo") is None


def test_where_the_table_cannot_be_read_nothing_is_refused(tmp_path):
    assert network_file_system(Path("/srv"), tmp_path / "nowhere") is None


MAKE = """
import sys
from pathlib import Path
from ductile import db
from ductile.errors import DuctileError
try:
    db.make_directory(Path(sys.argv[1]))
except DuctileError as error:
    print(error.exit_code, error)
"""


def in_a_mount_namespace(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a shell script as root among mounts of its own, which end with it; skip where that is not allowed."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can have mounts of its own")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, timeout=LIMIT_SECONDS).returncode != 0:
        pytest.skip("this machine allows no mounts of one's own")
    return subprocess.run(["unshare", "-m", "sh", "-ec", script, "sh", *map(str, arguments)], cwd=ROOT, text=True,
                          capture_output=True, timeout=LIMIT_SECONDS)


def test_a_data_directory_on_a_network_is_refused(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(NOBODY.format(place=tmp_path, kind="nfs4") + "\n")
    # The process that looks is the one that has put another table in the place of its own.
    run = in_a_mount_namespace('mount --bind "$1" /proc/$$/mountinfo; exec "$2" -c "$3" "$4"',
                               table, sys.executable, MAKE, tmp_path / "data" / "state.db")
    assert (run.stderr, run.returncode) == ("", 0)
    assert run.stdout == (
        f"71 the data directory {tmp_path}/data is on a network file system (nfs4), where SQLite's locks do not hold; "
        f"set state.path to a local disk\n")
