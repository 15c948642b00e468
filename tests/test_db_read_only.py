"""A connection that SQLite could only open for reading is opened once more, and not kept for as long as it lives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ductile import db

ROOT = Path(__file__).resolve().parents[1]
LIMIT_SECONDS = 60

# Fails the openings for writing of a write-ahead log whose numbers, from 1, are $FAIL_FROM up to $FAIL_TO.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static int opened;

static int refuse(const char *path, int flags) {
    size_t length = strlen(path);
    if ((flags & O_ACCMODE) != O_RDWR || length < 4 || strcmp(path + length - 4, "-wal") != 0)
        return 0;
    opened++;
    return opened >= atoi(getenv("FAIL_FROM")) && opened <= atoi(getenv("FAIL_TO"));
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    if (refuse(path, flags)) {
        errno = EMFILE;
        return -1;
    }
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64"))(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return open64(path, flags, mode);
}
"""

# The loop's connection, then the one that webhooks share.
OPEN_BOTH = """
import sys
from pathlib import Path
from ductile import db
from ductile.errors import DuctileError
path = Path(sys.argv[1])
try:
    for conn in (db.open_for_daemon(path), db.connect_again(path)):
        with db.transaction(conn):
            conn.execute("INSERT INTO plugin_state VALUES (?, '{}', '2026-02-08T10:00:00.000Z')", (repr(conn),))
    print("both write")
except (DuctileError, db.NotWritten) as error:
    print(getattr(error, "exit_code", "not written:"), error)
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("needs cc")
    directory = tmp_path_factory.mktemp("shim")
    (directory / "shim.c").write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", directory / "shim.so", directory / "shim.c"], check=True,
                   timeout=LIMIT_SECONDS)
    return directory / "shim.so"


def opened(shim: Path, path: Path, first: int, last: int) -> str:
    """What a program says that opens a database twice, where these openings of its log, which is there, fail."""
    environ = {**os.environ, "LD_PRELOAD": os.fspath(shim), "FAIL_FROM": str(first), "FAIL_TO": str(last)}
    with closing(db.open_for_daemon(path)):
        run = subprocess.run([sys.executable, "-c", OPEN_BOTH, path], cwd=ROOT, env=environ, capture_output=True,
                             text=True, timeout=LIMIT_SECONDS)
    assert (run.stderr, run.returncode) == ("", 0)
    return run.stdout


@pytest.mark.parametrize("number", [1, 2])
def test_one_failed_opening_of_the_log_does_not_last(shim: Path, tmp_path: Path, number: int) -> None:
    assert opened(shim, tmp_path / "state.db", number, number) == "both write\n"


@pytest.mark.parametrize("number", [1, 2])
def test_a_log_that_stays_closed_to_writers_is_said(shim: Path, tmp_path: Path, number: int) -> None:
    path = tmp_path / "state.db"
    assert opened(shim, path, number, 99) == (
        f"71 cannot write the database {path}: it or its -wal can only be opened for reading; check their permissions "
        f"and the limit on open files\n")
