"""groff and man render the manuals without warnings, and every example in them is tested."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ductile import __version__
from support.manuals import MAN, PAGES, examples, plain, section, source

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "config", "config world", "problem", "problem pipeline", "problem says", "env_file", "pipeline", "request",
    "response", "log", "sql", "keys", "sh", "sh run", "sh signed", "file", "library", "endpoint",
}
RENDER = {
    "groff": ["groff", "-man", "-Tutf8", "-ww", "-z"],
    "man": ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"],
}


def test_every_page_is_known_here() -> None:
    assert sorted(path.name for path in MAN.iterdir()) == sorted(PAGES)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("program", RENDER)
def test_a_page_renders_without_a_warning(program: str, page: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} here")
    done = subprocess.run([*RENDER[program], MAN / page], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          check=False, timeout=30, env={"PATH": os.defpath, "LANG": "C.UTF-8", "MANPAGER": "cat"})
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_the_name_the_section_and_the_version_that_it_should(page: str) -> None:
    name, _, number = page.rpartition(".")
    assert source(page)[0] == f'.TH {name.upper()} {number} "" "ductile {__version__}" "Ductile"'


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_in_one_line_what_it_is_about(page: str) -> None:
    lines = source(page)
    name = page.rpartition(".")[0].replace("-", r"\-")
    assert lines[lines.index(".SH NAME") + 1].replace(r"\-", "-").startswith(f"{name} - ".replace(r"\-", "-"))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_all_the_others(page: str) -> None:
    others = {f"{each.rpartition('.')[0]}" for each in PAGES} - {page.rpartition(".")[0]}
    assert set(section(page, "SEE ALSO").bold) == others


@pytest.mark.parametrize("page", PAGES)
def test_no_example_is_left_untested(page: str) -> None:
    found = list(examples(page))
    assert found
    assert [(each.line, each.kind) for each in found if not {each.kind, each.kind.partition(" ")[0]} & KINDS] == []


@pytest.mark.parametrize("page", PAGES)
def test_the_source_of_a_page_is_fit_to_be_read(page: str) -> None:
    shown = {line for each in examples(page) for line in each.text.splitlines()}
    assert [line for line in source(page) if len(line) > 120 and plain(line) not in shown] == []
